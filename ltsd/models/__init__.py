"""Architectures: inputs in [0, 1], normalised inside the model, so that attacks work in the image range."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version

import torch
from torch import nn

from ltsd.config import ENCODER, LIBRARIES, ModelConfig
from ltsd.errors import UserError
from ltsd.models.backbones import Backbone, backbone, check_size, downloaded
from ltsd.models.detector import DetectionHead, small_fcos
from ltsd.models.network import Features, Head, Network
from ltsd.models.resnet import preact_resnet18, resnet18
from ltsd.models.small import small_cnn, small_resnet
from ltsd.models.smp import DECODERS, PACKAGE, EncoderDecoder, encoder_decoder
from ltsd.models.smp import downloaded as downloaded_encoder
from ltsd.models.speech import mel_resnet
from ltsd.models.text import text_cnn, text_transformer
from ltsd.models.text_encoder import TextEncoder, check_length, text_encoder
from ltsd.models.unet import small_unet
from ltsd.models.weights import PRETRAINED, Fit, fit_weights, read_weights
from ltsd.models.wide_resnet import wide_resnet34

FEATURES: Mapping[str, Callable[..., tuple[Features, int]]] = {
    "small-cnn": small_cnn,
    "small-resnet": small_resnet,
    "resnet18": resnet18,
    "preact-resnet18": preact_resnet18,
    "wrn-34-10": wide_resnet34,
    "small-unet": small_unet,
    **{name: partial(encoder_decoder, name) for name in DECODERS},
    "small-fcos": small_fcos,
    "mel-resnet": mel_resnet,
    "text-cnn": text_cnn,
    "text-transformer": text_transformer,
}
"""(channels of the images, width) -> features and their size; of DECODERS also the encoder."""
DETECTORS = ("small-fcos",)
"""Those that answer for locations."""


def build_model(model: ModelConfig, channels: int, num_classes: int, head: Head = nn.Linear) -> Network:
    """Return a freshly initialised network, images [B, channels, H, W] in [0, 1] -> logits [B, num_classes], of an
    encoder-decoder [B, H, W, num_classes], or of a detector [B, L, num_classes + 1 + BOX], see `ltsd.locations`.

    Args:
        model: name and width of the architecture, and the encoder if it has one.
        channels: of the images.
        num_classes: number of classes.
        head: (features, classes) -> the module that turns features [B, features] into logits.

    Raises:
        UserError: as `encoder_decoder`; as `backbone`.
    """
    if model.architecture in LIBRARIES:
        features, size = backbone(model.name)
    elif model.folder:
        features, size = text_encoder(model.name)
    else:
        chosen = {"encoder": model.encoder} if model.name in DECODERS else {}
        features, size = FEATURES[model.name](channels, model.channels, **chosen)
    own = DetectionHead(size, num_classes, head) if model.name in DETECTORS else head(size, num_classes)
    return Network(features, own).to(memory_format=torch.channels_last)


def library_of(model: ModelConfig) -> str:
    """Return which package and version builds a network and brings its weights; "" for ltsd itself."""
    if model.name not in DECODERS and model.architecture not in (*LIBRARIES, ENCODER):
        return ""
    package = PACKAGE if model.name in DECODERS else model.name.partition("/")[0]
    return f"{package} {version(package)}"


def begin_with(network: Network, model: ModelConfig) -> Fit:
    """Give a network the first weights that its configuration names, but to its head.

    Raises:
        UserError: they cannot be read or had, or none fits.
    """
    assert model.weights is not None
    body: nn.Module = network.features
    for layers in network.features:
        if isinstance(layers, EncoderDecoder):
            body = layers.encoder
        elif isinstance(layers, Backbone | TextEncoder):
            body = layers.network
    if model.weights != PRETRAINED:
        return fit_weights(body, network.features[0], read_weights(model.weights), model.weights)
    if model.folder:
        raise UserError(
            f"--model.weights {PRETRAINED}: {model.name} begins with the weights in its folder; leave the flag out"
        )
    if body is network.features:
        raise UserError(
            f"--model.weights {PRETRAINED}: nothing brings those of {model.name}; give the path of a file, or choose a "
            f"network of {', '.join((*LIBRARIES, *DECODERS))}"
        )
    brought = downloaded_encoder(model.encoder) if model.name in DECODERS else downloaded(model.name)
    return fit_weights(body, network.features[0], brought, PRETRAINED)


def check_model(model: ModelConfig, shape: Sequence[int]) -> str:
    """Check that an architecture can be built for images of a shape (C, H, W), and begin with the weights that it
    names; return the line that tells which of them fit, "" without any.

    Raises:
        UserError: a knob is set that the architecture does not have; as `build_model`; as `check_size`; as
            `begin_with`.
    """
    if model.encoder is not None and model.name not in DECODERS:
        raise UserError(
            f"--model.name {model.name}: has no encoder to choose; leave --model.encoder out, or choose "
            f"{', '.join(DECODERS)}"
        )
    is_of_library = model.architecture in (*LIBRARIES, ENCODER)
    if is_of_library and model.width is not None:
        raise UserError(f"--model.width {model.width}: {model.name} has a width of its own; leave it out")
    if not is_of_library and model.name not in DECODERS and model.weights is None:
        return ""
    with torch.random.fork_rng(devices=[]):
        network = build_model(model, shape[0], 2)
    if model.folder:
        check_length(model.name, network, shape[0], shape[1])
    elif is_of_library:
        check_size(model.name, network, shape)
    if model.folder and model.weights is None:
        return f"weights: those of {model.folder}"
    return "" if model.weights is None else str(begin_with(network, model))
