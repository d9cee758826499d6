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
    """A training method: what its attack maximises, what its training minimises, and what both need.

    Attributes:
        title: its name in tables and pictures.
        adversary: (student, inputs, labels, context) -> the function of the adversarial inputs that the attack
            maximises; None for no attack.
        objective: (student, inputs, adv_inputs, labels, context) -> the loss that training minimises, and the
            measurements to log. Among these, `logits` [B, C] are the student's answers to the training inputs:
            adversarial ones, or clean ones if there is no attack.
        knobs: the method's own knobs, as the name of their group and its dataclass: ("trades", Trades) makes
            `trades.beta`. Those that have a `search` range are searched.
        shared: knobs of other groups that it reads and that a sweep should search.
        start: where the attack starts: uniform in the ball, or at the input with normal noise of standard deviation
            0.001 (TRADES).
        head: (number of features, number of classes) -> the last layer of the network.
        needs_teacher: whether it learns from the balanced self-teacher.
        phase: (own knobs, progress) -> the number of the training phase. The two functions may branch on
            `context.phase` but on no other number: the step of each phase is recorded once and replayed (CUDA graphs).
        of_images: whether it reads the features of whole inputs; such a method needs a task with one label per input.
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
