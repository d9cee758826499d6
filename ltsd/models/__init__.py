"""Architectures: inputs in [0, 1], normalised inside the model, so that attacks work in the image range."""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from ltsd.config import ModelConfig
from ltsd.models.network import Features, Head, Network
from ltsd.models.resnet import preact_resnet18, resnet18
from ltsd.models.small import small_cnn, small_resnet
from ltsd.models.unet import small_unet
from ltsd.models.wide_resnet import wide_resnet34

FEATURES: Mapping[str, Callable[[int, int], tuple[Features, int]]] = {
    "small-cnn": small_cnn,
    "small-resnet": small_resnet,
    "resnet18": resnet18,
    "preact-resnet18": preact_resnet18,
    "wrn-34-10": wide_resnet34,
    "small-unet": small_unet,
}


def build_model(model: ModelConfig, channels: int, num_classes: int, head: Head = nn.Linear) -> Network:
    """Return a freshly initialised network, images [B, channels, H, W] in [0, 1] -> logits [B, num_classes], or of an
    encoder-decoder [B, H, W, num_classes].

    Args:
        model: name and width of the architecture.
        channels: of the images.
        num_classes: number of logits.
        head: (features, classes) -> the module that turns features [B, features] into logits.
    """
    features, size = FEATURES[model.name](channels, model.channels)
    return Network(features, head(size, num_classes)).to(memory_format=torch.channels_last)
