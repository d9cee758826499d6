"""One training step: attack, loss, update; and what surrounds the steps of an epoch."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ltsd.attacks.budget import class_budgets
from ltsd.attacks.pgd import gaussian_start, pgd, uniform_start
from ltsd.attacks.weights import perturbed_weights
from ltsd.config import Config
from ltsd.data.longtail import class_groups
from ltsd.methods.method import Measurements, Method
from ltsd.methods.setting import Setting
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
class Step:
    """What a step did: its losses, 0-d, what the model said, int64 [B], and whether the images were attacked.

    Device tensors, so that nothing waits for them.
    """

    losses: dict[str, Tensor]
    predicted: Tensor
    is_attacked: bool


def train_step(
    method: Method,
    state: TrainState,
    inputs: Tensor,
    labels: Tensor,
    setting: Setting,
    budget: Budget,
    generator: torch.Generator,
) -> Step:
    """Attack, loss, step, on a batch [B, C, H, W]."""
    student = state.student
    adv_inputs = attacked(method, state.frozen, inputs, labels, setting, budget, generator)
    is_attacked = adv_inputs is not inputs

    def objective() -> tuple[Tensor, Measurements]:
        return method.objective(student, inputs, adv_inputs, labels, setting)

    state.optimizer.zero_grad()
    with perturbed_weights(student, lambda: objective()[0], gamma=budget.awp_gamma):
        loss, measurements = objective()
        loss.backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()
    predicted = measurements.pop("logits").argmax(1)
    losses = {"loss": loss.detach()} | {name: value.detach() for name, value in measurements.items()}
    return Step(losses, predicted, is_attacked)


def attacked(
    method: Method,
    student: Frozen,
    inputs: Tensor,
    labels: Tensor,
    setting: Setting,
    budget: Budget,
    generator: torch.Generator,
) -> Tensor:
    """The adversarial inputs [B, C, H, W] that the method trains on; the inputs themselves where it does not attack."""
    eps, step_size = (radius[labels].view(-1, 1, 1, 1) for radius in (budget.eps, budget.step_size))
    student.refresh()
    adversary = method.adversary(student, inputs, labels, setting)
    if adversary is None:
        return inputs
    if method.start == "gaussian":
        start = gaussian_start(inputs, generator=generator)
    else:
        start = uniform_start(inputs, eps=eps, generator=generator)
    return pgd(adversary, inputs, eps=eps, step_size=step_size, steps=budget.steps, start=start)


def setting_of(
    config: Config,
    class_counts: list[int],
    epoch: int,
    predicted: Tensor | None,
    teacher: nn.Module | None,
    device: torch.device,
) -> Setting:
    """What surrounds the batches of an epoch, which counts from 0."""
    counts = torch.tensor(class_counts, dtype=torch.float32, device=device).clamp_min(1)
    tail = torch.zeros_like(counts, dtype=torch.bool)
    tail[list(class_groups(class_counts)["tail"])] = True
    return Setting(
        log_counts=counts.log(),
        tail=tail,
        predicted=counts if predicted is None else predicted,
        progress=epoch / config.epochs,
        softmax_tau=config.balance.softmax_tau,
        own=config.own,
        teacher=teacher,
    )


def budget_of(config: Config, class_counts: list[int], epoch: int, device: torch.device) -> Budget:
    """What the attack may do in an epoch, which counts from 0; under RobustLT it grows from nothing over the ramp."""
    attack, robustlt = config.attack, config.robustlt
    counts = torch.tensor(class_counts, dtype=torch.float32, device=device).clamp_min(1)
    eps = class_budgets(counts, eps=attack.eps, strength=robustlt.strength)
    if robustlt.strength and robustlt.ramp:
        eps = eps * min(1.0, epoch / (robustlt.ramp * config.epochs))
    return Budget(eps, eps * (attack.step / attack.eps), attack.steps, config.awp.gamma)
