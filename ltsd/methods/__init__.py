"""The training methods. To add one: write its file with its two functions, add its line to METHODS.

A method is two functions. `adversary(student, inputs, labels, setting)` returns what the attack
maximises, a function of the adversarial inputs. `objective(student, inputs, adv_inputs, labels,
setting)` returns what training minimises, and the measurements that go into the log.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ltsd.attacks.pgd import Objective
from ltsd.methods import at, at_bsl, ltsd, natural
from ltsd.methods.setting import Setting

Measurements = dict[str, Tensor]
Adversary = Callable[[nn.Module, Tensor, Tensor, Setting], Objective]
TrainingObjective = Callable[[nn.Module, Tensor, Tensor, Tensor, Setting], tuple[Tensor, Measurements]]


@dataclass(frozen=True)
class Method:
    """What the attack maximises (None: no attack), what training minimises, whether a teacher is needed."""

    adversary: Adversary | None
    objective: TrainingObjective
    needs_teacher: bool = False


METHODS: Mapping[str, Method] = {
    "natural": Method(natural.adversary, natural.objective),
    "at": Method(at.adversary, at.objective),
    "at-bsl": Method(at_bsl.adversary, at_bsl.objective),
    "ltsd": Method(ltsd.adversary, ltsd.objective, needs_teacher=True),
}
