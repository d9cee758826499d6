"""One training step: attack, loss, update; and what surrounds the steps of an epoch."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ltsd.answers import is_right
from ltsd.attacks.awp import perturbed_weights
from ltsd.attacks.pgd import gaussian_start, pgd, uniform_start
from ltsd.attacks.robustlt import class_budgets
from ltsd.config import Config
from ltsd.data.longtail import class_groups
from ltsd.methods import METHODS
from ltsd.methods.method import Measurements, Method
from ltsd.methods.step_context import StepContext, on_device
from ltsd.models.frozen import Frozen
from ltsd.state import TrainState


@dataclass(frozen=True)
class Budget:
    """What the attack of an epoch may do. `eps` and `step_size` are [C], a class each, in units of the image range;
    `awp_gamma` is the relative size of the perturbation of the weights.
    """

    eps: Tensor
    step_size: Tensor
    steps: int
    awp_gamma: float


@dataclass(frozen=True)
class Batch:
    """What a step takes: images [B, C, H, W] float32 in [0, 1], labels int64 [B], and where their attack starts, of the
    images' shape.
    """

    inputs: Tensor
    labels: Tensor
    start: Tensor


@dataclass(frozen=True)
class Step:
    """What a step did: its losses, 0-d, what the model said, int64 [B], whether that was right, bool [B], and whether
    the images were attacked.

    Device tensors, so that nothing waits for them.
    """

    losses: dict[str, Tensor]
    predicted: Tensor
    right: Tensor
    is_attacked: bool


def train_step(method: Method, state: TrainState, batch: Batch, context: StepContext, budget: Budget) -> Step:
    """Attack, loss, step. It draws nothing and waits for nothing, so that it can be recorded and replayed."""
    student, inputs, labels = state.student, batch.inputs, batch.labels
    adv_inputs = attacked(method, state.frozen, batch, context, budget)

    def objective() -> tuple[Tensor, Measurements]:
        return method.objective(student, inputs, adv_inputs, labels, context)

    state.optimizer.zero_grad()
    with perturbed_weights(student, lambda: objective()[0], gamma=budget.awp_gamma):
        loss, measurements = objective()
        loss.backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()
    state.update_average()
    logits = measurements.pop("logits").detach()
    losses = {"loss": loss.detach()} | {name: value.detach() for name, value in measurements.items()}
    return Step(losses, logits.argmax(1), is_right(logits, labels), adv_inputs is not inputs)


def attacked(method: Method, student: Frozen, batch: Batch, context: StepContext, budget: Budget) -> Tensor:
    """The adversarial inputs [B, C, H, W] that the method trains on; the inputs themselves where it does not attack."""
    student.refresh()
    adversary = method.adversary(student, batch.inputs, batch.labels, context)
    if adversary is None:
        return batch.inputs
    eps, step_size = (_by_example(radius, batch.labels) for radius in (budget.eps, budget.step_size))
    return pgd(adversary, batch.inputs, eps=eps, step_size=step_size, steps=budget.steps, start=batch.start)


def batch_of(method: Method, inputs: Tensor, labels: Tensor, budget: Budget, generator: torch.Generator) -> Batch:
    """Images and labels, and a start for their attack, drawn as the method wants it."""
    if method.start == "gaussian":
        return Batch(inputs, labels, gaussian_start(inputs, generator=generator))
    return Batch(inputs, labels, uniform_start(inputs, eps=_by_example(budget.eps, labels), generator=generator))


def _by_example(radius: Tensor, labels: Tensor) -> Tensor:
    return radius[labels].view(-1, 1, 1, 1)


def context_of(
    config: Config,
    class_counts: list[int],
    epoch: int,
    predicted: Tensor | None,
    teacher: nn.Module | None,
    device: torch.device,
) -> StepContext:
    """What surrounds the batches of an epoch, which counts from 0."""
    counts = torch.tensor(class_counts, dtype=torch.float32, device=device).clamp_min(1)
    tail = torch.zeros_like(counts, dtype=torch.bool)
    tail[list(class_groups(class_counts)["tail"])] = True
    progress = epoch / config.epochs
    return StepContext(
        log_counts=counts.log(),
        tail=tail,
        predicted=counts if predicted is None else predicted,
        progress=torch.tensor(progress, device=device),
        softmax_tau=torch.tensor(config.balance.softmax_tau, device=device),
        own=on_device(config.own, device),
        phase=METHODS[config.method].phase(config.own, progress),
        teacher=teacher,
    )


def budget_of(config: Config, class_counts: list[int], epoch: int, device: torch.device) -> Budget:
    """What the attack may do in an epoch, which counts from 0; under RobustLT it grows from nothing over the ramp."""
    attack, robustlt = config.attack, config.robustlt
    counts = torch.tensor(class_counts, dtype=torch.float32, device=device).clamp_min(1)
    eps = class_budgets(counts, eps=attack.eps, strength=robustlt.strength)
    if robustlt.strength and robustlt.ramp:
        eps = eps * min(1.0, epoch / (robustlt.ramp * config.epochs))
    return Budget(eps, eps * (attack.resolved_step_size / attack.eps), attack.steps, config.awp.gamma)
