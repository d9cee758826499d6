"""ALP: adversarial logit pairing (Kannan et al. 2018), a new method in one file.

This script is `python -m ltsd` with one more method:

    python examples/new_method.py train --method alp --alp.weight 0.3 --out runs/alp.pt
    python examples/new_method.py evaluate runs/alp.pt --correctness runs/alp.parquet

`examples/compare.py` compares that file with one of another method. For a sweep the method has to be in the package:
copy this file to `ltsd/methods/alp.py` and add it to METHODS in the `__init__.py` beside it (docs/methods.md). Then it
is a row of the table:

    python sweeps/search.py --trials 0 --references alp,at-bsl
"""

import sys
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.knobs import Range, knob
from ltsd.methods import at
from ltsd.methods.method import Measurements, Method
from ltsd.methods.step_context import StepContext


@dataclass(frozen=True)
class Alp:
    """How strongly the two answers to an image are paired."""

    weight: float = knob(
        0.5, "weight of the distance between the answers", at_least=0, search=Range(0.1, 2.0, log=True)
    )


def objective(
    student: nn.Module, inputs: Tensor, adv_inputs: Tensor, labels: Tensor, context: StepContext
) -> tuple[Tensor, Measurements]:
    """CE(f(x_adv), y) + weight * MSE(f(x_adv), f(x))."""
    own: Alp = context.own
    clean_logits, logits = student(inputs), student(adv_inputs)
    loss = F.cross_entropy(logits, labels) + own.weight * F.mse_loss(logits, clean_logits)
    return loss, {"logits": logits}


METHOD = Method("ALP", at.adversary, objective, knobs=("alp", Alp))

if __name__ == "__main__":
    from ltsd.methods import METHODS

    METHODS["alp"] = METHOD  # before the command is imported, which makes its flags from METHODS
    from ltsd.__main__ import command

    sys.exit(command())
