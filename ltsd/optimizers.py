"""The optimizer of a network, and the schedule of its learning rate."""

import math

import torch
from torch import Tensor

from ltsd.config import OptimConfig
from ltsd.models.network import Network

OURS = ("lr", "fused", "capturable")
"""What a group of parameters keeps when a saved state is loaded: it belongs to the device."""


def optimizer_for(network: Network, optim: OptimConfig, device: torch.device) -> torch.optim.Optimizer:
    """Return SGD or AdamW, its state in place before the first step, so that this is a step like any other.

    Learning rates are tensors on the device, one a group: all parameters, or with a scale other than 1 those outside of
    the head and those of the head, in this order.
    """
    parts = [list(network.parameters())]
    if optim.backbone_lr_scale != 1:
        parts = [list(network.features.parameters()), list(network.head.parameters())]
    groups = [{"params": part, "lr": torch.tensor(optim.lr, device=device)} for part in parts]
    if optim.optimizer == "adamw":
        return _adamw(groups, optim, device)
    sgd = torch.optim.SGD(groups, momentum=optim.momentum, weight_decay=optim.weight_decay, fused=True)
    if optim.momentum:
        for weight in network.parameters():
            sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    return sgd


def set_rates(optimizer: torch.optim.Optimizer, rate: float, backbone_scale: float) -> None:
    """Set the learning rate of the head, and that of the parameters outside of it, which is `backbone_scale` times as
    high, in place.
    """
    *backbone, head = optimizer.param_groups
    head["lr"].fill_(rate)
    for group in backbone:
        group["lr"].fill_(rate * backbone_scale)


def rates_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the learning rates, a tensor a group."""
    return [group["lr"] for group in optimizer.param_groups]


def load_state(optimizer: torch.optim.Optimizer, saved: dict[str, object]) -> None:
    """Load a saved state; what depends on the device stays as it is."""
    own = [{name: group[name] for name in OURS if name in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)
    for group, kept in zip(optimizer.param_groups, own, strict=True):
        group |= kept


def learning_rate(base: float, epoch: int, epochs: int, schedule: str = "step", warmup: int = 0) -> float:
    """Return the learning rate of an epoch, counted from 0.

    During the first `warmup` epochs it rises in equal steps, base / (warmup + 1) first. Then `step` is `base`, a tenth
    of it after 75% of the epochs, a hundredth after 90%; `cosine` falls from `base` to nothing at the end (Loshchilov &
    Hutter 2017).
    """
    if epoch < warmup:
        return base * (epoch + 1) / (warmup + 1)
    if schedule == "cosine":
        return base * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup))) / 2
    return base * 0.1 ** ((epoch >= 0.75 * epochs) + (epoch >= 0.9 * epochs))


def _adamw(groups: list[dict[str, object]], optim: OptimConfig, device: torch.device) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2019); a CUDA graph can hold its step."""
    betas = (optim.momentum, 0.999)
    capturable = device.type == "cuda"
    adamw = torch.optim.AdamW(groups, betas=betas, weight_decay=optim.weight_decay, fused=True, capturable=capturable)
    for group in adamw.param_groups:
        for weight in group["params"]:
            adamw.state[weight] |= {
                "step": torch.zeros((), device=device),
                "exp_avg": torch.zeros_like(weight),
                "exp_avg_sq": torch.zeros_like(weight),
            }
    return adamw
