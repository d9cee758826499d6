"""The training loop: a generator that yields one frozen EpochMetrics per epoch, and resumes to the same bits."""

import hashlib
import math
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from ltsd.attacks.pgd import pgd, uniform_start
from ltsd.checkpoint import CheckpointError
from ltsd.config import AttackConfig, Config
from ltsd.data.batches import Split, epoch_batches
from ltsd.errors import UserError
from ltsd.evaluate import Accuracy, clean_verdicts, eval_mode, pgd_verdicts, validation_metrics
from ltsd.methods import METHODS, Method
from ltsd.methods.setting import Setting
from ltsd.models import build_model

VALIDATION_SEED = 1


class DivergedError(UserError, ArithmeticError):
    """The loss of an epoch, or a weight after it, is not finite."""


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch measured. `epoch` counts from 1; `values` has the project's metric names.

    `per_class` holds clean and robust recalls where the epoch was validated.
    """

    epoch: int
    seconds: float
    values: dict[str, float]
    per_class: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class TrainState:
    """Everything that training changes: the whole of it is saved, so that resuming loses nothing.

    Random numbers need no state: each epoch draws its own from (seed, epoch).
    """

    student: nn.Module
    optimizer: torch.optim.SGD
    average: nn.Module | None
    history: list[EpochMetrics]
    steps: int = 0

    @classmethod
    def fresh(cls, config: Config, channels: int, num_classes: int, device: torch.device) -> Self:
        """New weights, drawn from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream(config.seed, "weights"))
            student = build_model(config.model, channels, num_classes).to(device)
        optim = config.optim
        optimizer = torch.optim.SGD(
            student.parameters(), optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay
        )
        average = deepcopy(student).requires_grad_(False).eval() if optim.ema_decay > 0 else None
        return cls(student, optimizer, average, [])

    @property
    def model(self) -> nn.Module:
        """The model that is evaluated and kept: the averaged weights where there are any."""
        return self.student if self.average is None else self.average

    def content(self) -> dict[str, Any]:
        """The state as nested dicts of tensors and plain values, for a checkpoint."""
        return {
            "student": self.student.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": [asdict(metrics) for metrics in self.history],
            "steps": self.steps,
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            CheckpointError: it is of another architecture.
        """
        try:
            self.student.load_state_dict(content["student"])
            if self.average is not None:
                self.average.load_state_dict(content["average"])
            self.optimizer.load_state_dict(content["optimizer"])
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"the checkpoint is of another architecture ({str(error).splitlines()[0]})"
            ) from error
        self.history = [EpochMetrics(**metrics) for metrics in content["history"]]
        self.steps = content["steps"]

    def update_average(self, decay: float) -> None:
        """Move the averaged weights towards the student's; early steps average over what there is so far."""
        if self.average is None:
            return
        self.steps += 1
        weight = 1 - min(decay, (1 + self.steps) / (10 + self.steps))
        for mean, value in zip(self.average.state_dict().values(), self.student.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, weight)
            else:
                mean.copy_(value)


def train(
    config: Config, state: TrainState, data: Split, val: Split | None, teacher: nn.Module | None
) -> Iterator[EpochMetrics]:
    """Train from where `state` is to `config.epochs`; `state` is whole, and may be saved, at every yield.

    Args:
        config: method, epochs, hyperparameters.
        state: changed in place.
        data: training images, on the state's device.
        val: validated every `config.evaluate.every` epochs and after the last; None: never.
        teacher: the balanced self-teacher, for methods that need one.

    Raises:
        DivergedError: the loss is not finite.
    """
    method = METHODS[config.method]
    device = data.rows.device
    counts = data.class_counts()
    log_counts = torch.tensor(counts, dtype=torch.float32, device=device).clamp_min(1).log()
    if teacher is not None:
        teacher = teacher.eval().requires_grad_(False)
    state.student.train()
    for epoch in range(len(state.history), config.epochs):
        started = time.perf_counter()
        generator = torch.Generator(device).manual_seed(stream(config.seed, epoch))
        state.optimizer.param_groups[0]["lr"] = learning_rate(config.optim.lr, epoch, config.epochs)
        setting = _setting(config, log_counts, epoch / config.epochs, teacher)
        tally = Tally(data.num_classes, device)
        for inputs, labels in epoch_batches(data, config.optim.batch_size, config.data.augmentation, generator):
            losses, right = train_step(method, state, inputs, labels, setting, config.attack, generator)
            state.update_average(config.optim.ema_decay)
            tally.add(losses, right, labels)
        values = tally.means("clean_acc" if method.adversary is None else "robust_acc")
        if diverged := tally.diverged() or _diverged(state.student):
            raise DivergedError(f"epoch {epoch + 1} of {config.epochs} diverged: {diverged}; lower optim.lr")
        per_class: dict[str, list[float]] = {}
        if val is not None and _is_validated(config, epoch):
            validated, per_class = validate(config, state.model, val, counts, "val")
            values |= validated
        values["train/lr"] = state.optimizer.param_groups[0]["lr"]
        state.history.append(EpochMetrics(epoch + 1, time.perf_counter() - started, values, per_class))
        yield state.history[-1]


def train_step(
    method: Method,
    state: TrainState,
    inputs: Tensor,
    labels: Tensor,
    setting: Setting,
    attack: AttackConfig,
    generator: torch.Generator,
) -> tuple[dict[str, Tensor], Tensor]:
    """Attack, loss, step, on a batch [B, C, H, W].

    Returns:
        The losses, 0-d, and which examples were right, bool [B]: device tensors, so that nothing waits for them.
    """
    student, adv_inputs = state.student, inputs
    if method.adversary is not None:
        with eval_mode(student):
            adv_inputs = pgd(
                method.adversary(student, inputs, labels, setting),
                inputs,
                eps=attack.eps,
                step_size=attack.step,
                steps=attack.steps,
                start=uniform_start(inputs, eps=attack.eps, generator=generator),
            )
    loss, measurements = method.objective(student, inputs, adv_inputs, labels, setting)
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()
    right = measurements.pop("logits").argmax(1) == labels
    return {"loss": loss.detach()} | {name: value.detach() for name, value in measurements.items()}, right


class Tally:
    """What the batches of an epoch measured, kept on the device and read once, at its end."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._losses: dict[str, list[Tensor]] = {}
        self._right = torch.zeros(num_classes, device=device)
        self._seen = torch.zeros(num_classes, device=device)

    def add(self, losses: dict[str, Tensor], right: Tensor, labels: Tensor) -> None:
        """Add a batch: its losses, 0-d, and right, bool [B], for labels [B]."""
        for name, value in losses.items():
            self._losses.setdefault(name, []).append(value)
        self._right.index_add_(0, labels, right.float())
        self._seen.index_add_(0, labels, torch.ones_like(right, dtype=torch.float32))

    def means(self, accuracy: str) -> dict[str, float]:
        """`train/*`: mean losses over batches, and mean recall over the classes that were seen."""
        means = {f"train/{name}": float(torch.stack(values).mean()) for name, values in self._losses.items()}
        seen = self._seen > 0
        return means | {f"train/{accuracy}": float((self._right[seen] / self._seen[seen]).mean())}

    def diverged(self) -> str:
        """The first batch whose loss is not finite, in words; "" for none."""
        losses = torch.stack(self._losses["loss"]).tolist()
        wrong = next((batch for batch, loss in enumerate(losses) if not math.isfinite(loss)), None)
        return "" if wrong is None else f"the loss of batch {wrong + 1} of {len(losses)} is {losses[wrong]}"


def validate(
    config: Config, model: nn.Module, split: Split, class_counts: list[int], prefix: str
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The metrics `<prefix>/*` of a split under PGD of `evaluate.steps`, and FGSM beside it, which tells catastrophic
    overfitting; and the recalls behind them. The same random starts every time.
    """
    attack = config.attack
    clean = Accuracy.of(clean_verdicts(model, split), class_counts)
    fgsm = pgd_verdicts(model, split, eps=attack.eps, step_size=attack.eps, steps=1, seed=None)
    verdicts = pgd_verdicts(
        model, split, eps=attack.eps, step_size=attack.step, steps=config.evaluate.steps, seed=VALIDATION_SEED
    )
    robust = Accuracy.of(verdicts, class_counts)
    per_class = {"clean": list(clean.per_class), "robust": list(robust.per_class)}
    values = validation_metrics(prefix, clean, robust)
    return values | {f"{prefix}/fgsm_acc": Accuracy.of(fgsm, class_counts).balanced}, per_class


def learning_rate(base: float, epoch: int, epochs: int) -> float:
    """`base`, a tenth of it from 75% of the epochs on, a hundredth from 90%; a closed form of the epoch."""
    return base * 0.1 ** ((epoch >= 0.75 * epochs) + (epoch >= 0.9 * epochs))


def stream(seed: int, name: str | int) -> int:
    """The seed of one stream of random numbers, as good as independent of every other stream's."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7])


def _diverged(model: nn.Module) -> str:
    finite = torch.stack([parameter.isfinite().all() for parameter in model.parameters()])
    return "" if bool(finite.all()) else "a weight is not finite after its last batch"


def _is_validated(config: Config, epoch: int) -> bool:
    return (epoch + 1) % config.evaluate.every == 0 or epoch + 1 == config.epochs


def _setting(config: Config, log_counts: Tensor, progress: float, teacher: nn.Module | None) -> Setting:
    return Setting(
        log_counts=log_counts,
        progress=progress,
        softmax_tau=config.balance.softmax_tau,
        temperature=config.distill.temperature,
        kl_weight=config.distill.kl_weight,
        igdm_weight=config.distill.igdm_weight,
        teacher=teacher,
    )
