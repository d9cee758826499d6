"""Signs that robustness is false: attacks that fail for want of a gradient, told by what no honest model shows.

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
"""PGD-20 to the strongest attack: 2 to 5 points where adversarial training is sound (3.9 for AT-BSL on CIFAR-10-LT),
15 to 20 where the training reweighted examples until PGD was fooled (GAIRAT, Hitaj et al. 2021)."""
STEP_MARGIN = 0.01
CHANCE_MARGIN = 0.05
STILL_SHARE = 0.05


@dataclass(frozen=True)
class Signs:
    """What a model does on up to IMAGES test images, evenly spaced: fractions in [0, 1].

    `still` is the share whose gradient of the cross-entropy is exactly zero, `unbounded` that which PGD-20 leaves
    standing when it may move every pixel by half the range, `chance` the share of the most frequent class. Within half
    the range every image can be plain grey, and no model tells grey from grey: a sound attack leaves `chance` or less.
    Inputs without a range, such as texts, are not attacked so: `unbounded` is 0.
    """

    images: int
    still: float
    unbounded: float
    chance: float


def signs_of(model: nn.Module, test: Split, domain: Domain) -> Signs:
    """Attack a part of the test set within half of the range of its domain, from the inputs, and look at the gradients
    there.
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
    everywhere = Range(domain.low, domain.high)  # padding too: inputs of any length can be alike then
    standing = pgd_correctness(model, part, domain=everywhere, eps=half, step_size=half / 8, steps=20, seed=None)
    return Signs(count, still, float(standing.right.double().mean()), chance)


def doubts(accuracies: Mapping[str, float], signs: Signs) -> list[str]:
    """What speaks against the robust accuracy, a sentence each; nothing where nothing does.

    Args:
        accuracies: class-balanced, of `fgsm`, `pgd20` and whatever stronger attacks there are, by the title to name.
        signs: of the same model.
    """
    fgsm, pgd20 = accuracies["FGSM"], accuracies["PGD-20"]
    strongest = min(accuracies, key=accuracies.__getitem__)
    found: list[str] = []
    if pgd20 - accuracies[strongest] > GAP and strongest != "FGSM":
        found.append(
            f"PGD-20 leaves {_percent(pgd20)} right and {strongest} {_percent(accuracies[strongest])}, a gap of more "
            f"than {_percent(GAP)}: PGD is led astray, and what it finds overstates robustness"
        )
    if pgd20 - fgsm > STEP_MARGIN:
        found.append(
            f"FGSM leaves {_percent(fgsm)} right and PGD-20 {_percent(pgd20)}: one step beats twenty, so the gradient "
            "does not lead uphill"
        )
    if signs.unbounded > signs.chance + CHANCE_MARGIN:
        found.append(
            f"PGD-20 with a radius of half the range, which reaches plain grey, leaves {_percent(signs.unbounded)} "
            f"of {signs.images} images right, and no more than {_percent(signs.chance)} can be: the attack fails, not "
            "for want of room"
        )
    if signs.still > STILL_SHARE:
        found.append(
            f"the gradient is exactly zero on {_percent(signs.still)} of {signs.images} images: attacks that follow "
            "it cannot move them"
        )
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
