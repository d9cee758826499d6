"""The definition of a training method."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from ltsd.attacks.pgd import Objective
from ltsd.methods.step_context import StepContext

Measurements = dict[str, Tensor]
Adversary = Callable[[nn.Module, Tensor, Tensor, StepContext], Objective | None]
TrainingObjective = Callable[[nn.Module, Tensor, Tensor, Tensor, StepContext], tuple[Tensor, Measurements]]


@dataclass(frozen=True)
class Method:
    """Two functions, and what they need.

    Attributes:
        title: how tables and pictures call it.
        adversary: (student, inputs, labels, context) -> what the attack maximises, a function of the adversarial
            inputs; None for no attack.
        objective: (student, inputs, adv_inputs, labels, context) -> what training minimises, and the measurements
            that go into the log; of these `logits` is [B, C] on what the batch was trained on.
        knobs: the method's own knobs, the name of their group and its dataclass: ("trades", Trades) makes
            `trades.beta`. Those that have a `search` range are searched.
        shared: knobs of other groups that it reads and a sweep should search.
        start: where the attack starts: uniform in the ball, or a thousandth of normal noise (TRADES).
        head: (features, classes) -> its own head of the network.
        needs_teacher: whether it learns from the balanced self-teacher.
        phase: (own knobs, progress) -> in which phase of training a step is. The two functions may do one thing or
            another by `context.phase`, and by no other number: steps are recorded, once a phase, and replayed.
        of_images: whether it reads the features of whole images, and so serves classification alone.
    """

    title: str
    adversary: Adversary
    objective: TrainingObjective
    knobs: tuple[str, type] | None = None
    shared: tuple[str, ...] = ()
    start: Literal["uniform", "gaussian"] = "uniform"
    head: Callable[[int, int], nn.Module] = nn.Linear
    needs_teacher: bool = False
    phase: Callable[[Any, float], int] = lambda own, progress: 0
    of_images: bool = False
