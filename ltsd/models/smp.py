"""Encoders and decoders of segmentation-models-pytorch, which the extra `smp` installs."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.errors import UserError
from ltsd.knobs import nearest
from ltsd.models.blocks import Normalise, without_dropout
from ltsd.models.network import Features, Opaque
from ltsd.models.unet import ChannelsLast
from ltsd.models.weights import not_brought
from ltsd.packages import require

ENCODER = "resnet18"
PACKAGE = "segmentation_models_pytorch"
FPN_MULTIPLE = 64
"""Two channels a group: of a 32x32 image one pixel is left, and one value alone cannot be normalised."""


def _halving(width: int) -> dict[str, Any]:
    return {"decoder_channels": tuple(width * 2**level for level in (4, 3, 2, 1, 0))}


def _grouped(width: int) -> dict[str, Any]:
    if width % FPN_MULTIPLE:
        raise ValueError(f"its group normalisation wants a multiple of {FPN_MULTIPLE} as width")
    return {"decoder_segmentation_channels": width}


DECODERS: Mapping[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "smp-unet": ("unet", _halving),
    "smp-fpn": ("fpn", _grouped),
    "smp-deeplabv3plus": ("deeplabv3plus", lambda width: {"decoder_channels": width}),
    "smp-upernet": ("upernet", lambda width: {"decoder_channels": width}),
    "smp-segformer": ("segformer", lambda width: {"decoder_segmentation_channels": width}),
}
"""The package's name of an architecture, and the arguments that give its decoder `width` channels at its end."""


class EncoderDecoder(Opaque):
    """An encoder and a decoder, images [B, C, H, W] of any size -> [B, width, H, W].

    What the decoder answers at a coarser resolution is enlarged bilinearly, as the package does it after its own last
    layer; a linear head commutes with that.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, stride: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.stride = encoder, decoder, stride

    def forward(self, inputs: Tensor) -> Tensor:
        """Pad below and to the right to a multiple of the stride, and crop back."""
        height, width = inputs.shape[2:]
        padded = F.pad(inputs, (0, -width % self.stride, 0, -height % self.stride))
        outputs: Tensor = self.decoder(self.encoder(padded))
        if outputs.shape[2:] != padded.shape[2:]:
            outputs = F.interpolate(outputs, size=padded.shape[2:], mode="bilinear", align_corners=True)
        return outputs[:, :, :height, :width]


def encoder_decoder(name: str, channels: int, width: int, encoder: str | None = None) -> tuple[Features, int]:
    """Return a network of DECODERS without its last layer, with new weights.

    Dropout and stochastic depth are off: a training step draws no random number.

    Args:
        name: a name in DECODERS.
        channels: of the images.
        width: channels of the features.
        encoder: the package's name of the encoder; None for ENCODER.

    Raises:
        UserError: the package is not installed; it has no such encoder, or does not build the network.
    """
    require([PACKAGE], "smp", f"--model.name {name}")
    import segmentation_models_pytorch as smp

    encoder, (architecture, arguments) = encoder or ENCODER, DECODERS[name]
    known = smp.encoders.get_encoder_names()
    if encoder not in known and not encoder.startswith("tu-"):
        raise UserError(
            f"--model.encoder {encoder}: segmentation-models-pytorch has no such encoder{nearest(encoder, known)}"
        )
    try:
        with torch.device("cpu"):  # some encoders read numbers out of tensors, which those of no memory do not have
            network = smp.create_model(architecture, encoder, None, channels, classes=1, **arguments(width))
    except (KeyError, RuntimeError, ValueError) as error:
        told = str(error).splitlines()[0]
        raise UserError(
            f"--model.name {name}: cannot be built with --model.encoder {encoder}, --model.width {width} and images of "
            f"{channels} channel(s) ({told}); choose others"
        ) from error
    without_dropout(network)
    layers = EncoderDecoder(network.encoder, network.decoder, network.encoder.output_stride)
    return Features(Normalise(), layers, ChannelsLast()), network.segmentation_head[0].in_channels


def downloaded(encoder: str | None) -> Mapping[str, Tensor]:
    """Return the ImageNet weights that the package has for an encoder, from its cache or the network.

    Raises:
        UserError: they cannot be had.
    """
    import segmentation_models_pytorch as smp

    try:
        found: Mapping[str, Tensor] = smp.encoders.get_encoder(encoder or ENCODER, weights="imagenet").state_dict()
    except Exception as error:  # of whatever fetches them
        raise UserError(not_brought(PACKAGE, encoder or ENCODER, error)) from error
    return found
