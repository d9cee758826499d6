"""Signs of gradient masking: attacks fail because they have no useful gradient, not because the model is robust.

After Athalye, Carlini & Wagner 2018 (section 3.1) and Carlini et al. 2019, "On Evaluating Adversarial Robustness"
(section 5).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ltsd.attacks.domains import Domain, Range
from ltsd.attacks.losses import cross_entropy
from ltsd.data.batches import Split
from ltsd.evaluation.evaluate import eval_mode, pgd_correctness

IMAGES = 500

GAP = 0.1
"""A larger difference between PGD-20 and the strongest attack is a sign. Sound adversarial training has 2 to 5 points
(3.9 for AT-BSL on CIFAR-10-LT); a reweighting of examples that misleads PGD has 15 to 20 points (GAIRAT, Hitaj et al.
2021)."""
STEP_MARGIN = 0.01
CHANCE_MARGIN = 0.05
STILL_SHARE = 0.05


@dataclass(frozen=True)
class Signs:
    """Measurements on up to IMAGES test images, evenly spaced: fractions in [0, 1].

    Within half the range every image can become plain grey, and a model gives one answer to all grey images. So PGD
    with this radius leaves at most `chance` right if it works.

    Attributes:
        images: how many images were measured.
        still: share of the images whose gradient of the cross-entropy is exactly zero.
        unbounded: share that is still right under PGD-20 with a radius of half the range; 0 for inputs without a range,
            such as texts.
        chance: share of the most frequent class.
    """

    images: int
    still: float
    unbounded: float
    chance: float


def signs_of(model: nn.Module, test: Split, domain: Domain) -> Signs:
    """Measure the signs on a part of the test set: the gradients at the inputs, and PGD-20 from there with a radius of
    half the range of the domain.
    """
    count = min(IMAGES, len(test))
    positions = torch.linspace(0, len(test) - 1, count, device=test.rows.device).round().long()
    part = test.select(test.rows[positions])
    inputs, labels = part.take(torch.arange(count, device=part.rows.device))
    with eval_mode(model):
        inputs.requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(inputs), labels), inputs)
    still, chance = float((gradient.flatten(1) == 0).all(1).double().mean()), max(part.class_counts()) / count
    if not isinstance(domain, Range):  # no radius reaches everything
        return Signs(count, still, unbounded=0.0, chance=chance)
    half = (domain.high - domain.low) / 2
    everywhere = Range(domain.low, domain.high)  # padding too, so that inputs of different lengths can become equal
    standing = pgd_correctness(model, part, domain=everywhere, eps=half, step_size=half / 8, steps=20, seed=None)
    return Signs(count, still, float(standing.right.double().mean()), chance)


def doubts(accuracies: Mapping[str, float], signs: Signs) -> list[str]:
    """Return the reasons to doubt the robust accuracy, one sentence each.

    Args:
        accuracies: class-balanced, by the title of the attack: FGSM, PGD-20 and any stronger attacks.
        signs: of the same model.
    """
    fgsm, pgd20 = accuracies["FGSM"], accuracies["PGD-20"]
    strongest = min(accuracies, key=accuracies.__getitem__)
    found: list[str] = []
    if pgd20 - accuracies[strongest] > GAP and strongest != "FGSM":
        found.append(
            f"PGD-20 leaves {_percent(pgd20)} right and {strongest} {_percent(accuracies[strongest])}, a gap of more "
            f"than {_percent(GAP)}: the gradients mislead PGD, and its accuracy overstates robustness"
        )
    if pgd20 - fgsm > STEP_MARGIN:
        found.append(
            f"FGSM leaves {_percent(fgsm)} right and PGD-20 {_percent(pgd20)}: one step beats twenty, so the gradient "
            "does not lead uphill"
        )
    if signs.unbounded > signs.chance + CHANCE_MARGIN:
        found.append(
            f"PGD-20 with a radius of half the range, which reaches plain grey, leaves {_percent(signs.unbounded)} "
            f"of {signs.images} images right, and at most {_percent(signs.chance)} can be: the attack fails although "
            "its radius is large enough"
        )
    if signs.still > STILL_SHARE:
        found.append(
            f"the gradient is exactly zero on {_percent(signs.still)} of {signs.images} images: attacks that follow "
            "it cannot move them"
        )
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
