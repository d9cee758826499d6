"""One training step (attack, loss, update) and the context of an epoch's steps."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from ltsd.answers import is_right
from ltsd.attacks.awp import perturbed_weights
from ltsd.attacks.pgd import Objective, pgd
from ltsd.attacks.robustlt import class_budgets
from ltsd.config import Config
from ltsd.data.longtail import class_groups
from ltsd.methods import METHODS
from ltsd.methods.method import Measurements, Method
from ltsd.methods.step_context import StepContext, on_device
from ltsd.ranks import shared, sum_over_ranks
from ltsd.state import TrainState
from ltsd.tasks import TASKS
from ltsd.tasks.task import Task


@dataclass(frozen=True)
class Budget:
    """The attack's limits in an epoch. `eps` and `step_size` are [C], one for each class, in units of the image range;
    `awp_gamma` is the relative size of the weight perturbation.
    """

    eps: Tensor
    step_size: Tensor
    steps: int
    awp_gamma: float


@dataclass(frozen=True)
class Batch:
    """The input of a step: images [B, C, H, W] float32 in [0, 1], labels as the task has them, and the start of the
    attack, in the images' shape.
    """

    inputs: Tensor
    labels: Tensor
    start: Tensor


@dataclass(frozen=True)
class Step:
    """The result of a step: its losses, 0-d; of its rows the labels and the predicted classes, int64 [R], and which are
    right, bool [R]; and whether the images were attacked.

    All are device tensors, so that nothing waits for them.
    """

    losses: dict[str, Tensor]
    labels: Tensor
    predicted: Tensor
    right: Tensor
    is_attacked: bool


def train_step(
    task: Task, method: Method, state: TrainState, batch: Batch, context: StepContext, budget: Budget
) -> Step:
    """Attack, compute the loss, update. It draws no random number. It waits for nothing, so that it can be recorded,
    unless the task's rows do: those of label maps depend on which pixels have a label.
    """
    state.frozen.refresh()
    frozen = shared(state.frozen)
    targets = task.targets(frozen, batch.inputs, batch.labels)
    inputs, adv_inputs = batch.inputs, attacked(task, method, frozen, batch, targets, context, budget)
    student, labels = task.rows(shared(state.student), targets)
    if context.teacher is not None:
        context = replace(context, teacher=task.rows(context.teacher, targets)[0])

    def objective() -> tuple[Tensor, Measurements]:
        extra = extra_means(task, student, adv_inputs)  # asked first: it may leave its answers to the method
        loss, measurements = method.objective(student, inputs, adv_inputs, labels, context)
        return sum(extra.values(), loss), measurements | extra

    state.optimizer.zero_grad()
    with perturbed_weights(state.student, lambda: objective()[0], gamma=budget.awp_gamma):
        loss, measurements = objective()
        loss.backward()  # type: ignore[no-untyped-call]
    sum_over_ranks(weight.grad for weight in state.student.parameters())
    state.update()
    logits = measurements.pop("logits").detach()
    losses = {"loss": loss.detach()} | {name: value.detach() for name, value in measurements.items()}
    return Step(losses, labels, logits.argmax(1), is_right(logits, labels), adv_inputs is not inputs)


def extra_means(task: Task, student: nn.Module, adv_inputs: Tensor) -> Measurements:
    """Return the mean of the task's own losses by name; nothing if it has none."""
    if task.extra is None:
        return {}
    losses = task.extra.losses(student, adv_inputs)
    return {task.extra.name: losses.sum() / max(1, len(losses))}


def attacked(
    task: Task, method: Method, student: nn.Module, batch: Batch, targets: Tensor, context: StepContext, budget: Budget
) -> Tensor:
    """Return the adversarial inputs [B, C, H, W] of the method; the inputs themselves if it does not attack."""
    answering, labels = task.rows(student, targets)
    adversary = method.adversary(answering, batch.inputs, labels, context)
    if adversary is None:
        return batch.inputs
    if task.extra is not None:
        adversary = _with_extra(adversary, partial(task.extra.losses, answering))
    eps, step_size = (task.radius(by_class, batch.labels) for by_class in (budget.eps, budget.step_size))
    return pgd(
        adversary, batch.inputs, domain=task.domain, eps=eps, step_size=step_size, steps=budget.steps, start=batch.start
    )


def _with_extra(adversary: Objective, extra_losses: Callable[[Tensor], Tensor]) -> Objective:
    """Return the sum of both, the second asked first: it may leave its answers to the first."""
    return lambda adv_inputs: extra_losses(adv_inputs).sum() + adversary(adv_inputs)


def batch_of(
    task: Task, method: Method, inputs: Tensor, labels: Tensor, budget: Budget, generator: torch.Generator
) -> Batch:
    """Return a batch with the start of its attack, drawn as the method wants it."""
    if method.start == "gaussian":
        return Batch(inputs, labels, task.domain.gaussian(inputs, generator=generator))
    start = task.domain.uniform(inputs, eps=task.radius(budget.eps, labels), generator=generator)
    return Batch(inputs, labels, start)


def context_of(
    config: Config,
    class_counts: list[int],
    epoch: int,
    predicted: Tensor | None,
    teacher: nn.Module | None,
    device: torch.device,
    class_weights: Tensor | None = None,
) -> StepContext:
    """Return the context of an epoch's steps; epochs count from 0."""
    of_classes = torch.tensor(class_counts, dtype=torch.float32, device=device).clamp_min(1)
    counts = TASKS[config.task].row_counts(of_classes)
    tail = torch.zeros_like(counts, dtype=torch.bool)
    # The balanced images of a teacher may have no class with few of them.
    tail[class_groups(class_counts, config.data.groups).get("tail", [])] = True
    progress = epoch / config.epochs
    return StepContext(
        log_counts=counts.log(),
        tail=tail,
        predicted=counts if predicted is None else predicted,
        progress=torch.tensor(progress, device=device),
        softmax_tau=torch.tensor(config.balance.softmax_tau, device=device),
        class_weights=class_weights,
        own=on_device(config.own, device),
        phase=METHODS[config.method].phase(config.own, progress),
        teacher=teacher,
    )


def budget_of(config: Config, class_counts: list[int], epoch: int, device: torch.device) -> Budget:
    """Return the attack's limits in an epoch, counted from 0; with RobustLT they grow from nothing over the ramp."""
    attack, robustlt = config.attack, config.robustlt
    counts = torch.tensor(class_counts, dtype=torch.float32, device=device).clamp_min(1)
    eps = class_budgets(counts, eps=attack.eps, strength=robustlt.strength)
    if robustlt.strength and robustlt.ramp:
        eps = eps * min(1.0, epoch / (robustlt.ramp * config.epochs))
    return Budget(eps, eps * (attack.resolved_step_size / attack.eps), attack.steps, config.awp.gamma)
