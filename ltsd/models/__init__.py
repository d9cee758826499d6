"""Architectures: inputs in [0, 1], normalised inside the model, so that attacks work in the image range."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

from ltsd.config import ModelConfig
from ltsd.errors import UserError
from ltsd.models.detector import DetectionHead, small_fcos
from ltsd.models.network import Features, Head, Network
from ltsd.models.resnet import preact_resnet18, resnet18
from ltsd.models.small import small_cnn, small_resnet
from ltsd.models.smp import DECODERS, encoder_decoder, load_encoder
from ltsd.models.unet import small_unet
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
        UserError: as `encoder_decoder`.
    """
    chosen = {"encoder": model.encoder} if model.name in DECODERS else {}
    features, size = FEATURES[model.name](channels, model.channels, **chosen)
    own = DetectionHead(size, num_classes, head) if model.name in DETECTORS else head(size, num_classes)
    return Network(features, own).to(memory_format=torch.channels_last)


def check_model(model: ModelConfig, channels: int) -> None:
    """Check that an architecture can be built for images of `channels`, and begin with the weights that it names.

    Raises:
        UserError: an encoder is chosen for an architecture that has none; as `encoder_decoder`; as `load_encoder`.
    """
    if model.name in DECODERS:
        with torch.random.fork_rng(devices=[]):
            network = build_model(model, channels, 2)
        if model.encoder_weights is not None:
            load_encoder(network, model.encoder_weights)
    elif model.encoder is not None or model.encoder_weights is not None:
        raise UserError(
            f"--model.name {model.name}: has no encoder to choose; leave --model.encoder and --model.encoder-weights "
            f"out, or choose {', '.join(DECODERS)}"
        )
