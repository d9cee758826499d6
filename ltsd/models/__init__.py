"""Architectures: inputs in [0, 1], normalised inside the model, so that attacks work in the image range."""

import torch
from torch import nn

from ltsd.config import ModelConfig
from ltsd.models.resnet import resnet18
from ltsd.models.small_cnn import SmallCNN


def build_model(model: ModelConfig, channels: int, num_classes: int) -> nn.Module:
    """A freshly initialised network, images [B, channels, H, W] in [0, 1] -> logits [B, num_classes]."""
    if model.name == "small-cnn":
        network: nn.Module = SmallCNN(channels, num_classes, model.width)
    else:
        network = resnet18(channels, num_classes, model.width)
    return network.to(memory_format=torch.channels_last)
