"""RobustLT's budgets: attack rare classes harder and frequent ones less, with mean eps (Zhang et al. 2026)."""

import torch
from torch import Tensor


def class_budgets(class_counts: Tensor, *, eps: float, strength: float) -> Tensor:
    """Return eps_c = (1 - a) eps + a eps sqrt(ln K_c) / sum_k pi_k sqrt(ln K_k), with K_c = n_max / n_c; [C].

    The mean over training images is eps; with equal counts every class has eps.

    Args:
        class_counts: [C] n_c.
        eps: mean radius, in units of the image range.
        strength: a in [0, 1]; 0 gives every class eps.
    """
    rarity = (class_counts.max() / class_counts).log().sqrt()
    mean = (class_counts / class_counts.sum() * rarity).sum()
    relative = torch.where(mean > 0, rarity / mean, torch.ones_like(rarity))
    return eps * ((1 - strength) + strength * relative)
