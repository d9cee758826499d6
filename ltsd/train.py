"""The training loop: a generator that yields one frozen EpochMetrics per epoch, and resumes to the same bits."""

import math
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ltsd.answers import is_finite
from ltsd.config import Config
from ltsd.cuda_graphs import Stepper, stepper_for
from ltsd.data.batches import Split, epoch_batches
from ltsd.data.longtail import Groups, class_groups
from ltsd.errors import UserError
from ltsd.evaluation.evaluate import eval_mode, not_finite
from ltsd.methods import METHODS
from ltsd.models.frozen import Frozen, frozen
from ltsd.optimizers import learning_rate
from ltsd.ranks import shared
from ltsd.state import EpochMetrics, TrainState, stream
from ltsd.step import Step, batch_of, budget_of, context_of
from ltsd.tasks import TASKS

REMEDY = "lower optim.lr (of a teacher: teacher.lr) and start anew"


class DivergedError(UserError, ArithmeticError):
    """A loss, a weight, a BatchNorm statistic, an averaged weight or an answer is not finite."""


def train(
    config: Config,
    state: TrainState,
    data: Split,
    val: Split | None,
    teacher: nn.Module | None,
    groups: Groups | None = None,
) -> Iterator[EpochMetrics]:
    """Train from the state's epoch to `config.epochs`; the state is complete, and can be saved, at every yield.

    Args:
        config: method, epochs, hyperparameters.
        state: changed in place.
        data: training images, on the state's device.
        val: validation images, scored every `config.evaluate.every` epochs and after the last; None for never.
        teacher: the balanced self-teacher, for methods that need one.
        groups: the classes by head, medium and tail; None for those of `data`.

    Yields:
        The metrics of each epoch.

    Raises:
        DivergedError: the state, a loss, or an answer to a validation image is not finite; without `val`, an answer
            to a training image after the last epoch.
    """
    _check_finite(config, state, len(state.history))
    if groups is None:
        groups = class_groups(data.class_counts(), config.data.groups)
    if teacher is not None:
        teacher = shared(frozen(teacher.eval().requires_grad_(False), state.student.features.dtype))
    stepper = stepper_for(config, data, teacher)
    # One for all epochs: its memory is not free as soon as it is unused.
    validated = None if val is None else Frozen(state.model)
    state.student.train()
    for epoch in range(len(state.history), config.epochs):
        started = time.perf_counter()
        state.agree()
        tally = train_epoch(config, stepper, state, data, teacher)
        values = tally.means()
        _check_finite(config, state, epoch + 1, tally.diverged())
        per_class: dict[str, list[float]] = {}
        if val is not None and validated is not None and _is_validated(config, epoch):
            validated.refresh()
            measured, per_class = validate(config, shared(validated), val, groups, "val")
            values |= measured
        elif epoch + 1 == config.epochs:
            _check_answers(state.model, data, TASKS[config.task].chunk)
        values["train/lr"] = _rate(config, epoch)
        state.predicted = tally.predicted
        state.history.append(EpochMetrics(epoch + 1, time.perf_counter() - started, values, per_class))
        yield state.history[-1]


def train_epoch(config: Config, stepper: Stepper, state: TrainState, data: Split, teacher: nn.Module | None) -> "Tally":
    """Run the next epoch on all training images; return its measurements."""
    epoch, device = len(state.history), data.rows.device
    task, method = TASKS[config.task], METHODS[config.method]
    generator = torch.Generator(device).manual_seed(stream(config.seed, epoch))
    counts = data.class_counts()
    context = context_of(config, counts, epoch, state.predicted, teacher, device, data.class_weights)
    budget = budget_of(config, counts, epoch, device)
    tally = Tally(len(context.log_counts), device)
    with stepper.at(state, teacher) as working:
        working.begin_epoch(_rate(config, epoch), config.optim.backbone_lr_scale)
        for inputs, labels in epoch_batches(data, config.optim.batch_size, config.data.augmentation, generator):
            working.begin_step(config.optim.ema_decay)
            batch = batch_of(task, method, inputs, labels, budget, generator)
            tally.add(stepper.step(batch, context, budget))
    return tally


class Tally:
    """Measurements of an epoch's batches, kept on the device and read once, at its end.

    `predicted` [C] counts the rows that were assigned to each class.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._losses: dict[str, list[Tensor]] = {}
        self._right = torch.zeros(num_classes, device=device)
        self._seen = torch.zeros(num_classes, device=device)
        self._is_attacked = False
        self.predicted = torch.zeros(num_classes, device=device)

    def add(self, step: Step) -> None:
        """Add the step of a batch."""
        for name, value in step.losses.items():
            self._losses.setdefault(name, []).append(value)
        self._is_attacked = step.is_attacked
        ones = torch.ones_like(step.labels, dtype=torch.float32)
        self._right.index_add_(0, step.labels, step.right.float())
        self._seen.index_add_(0, step.labels, ones)
        self.predicted.index_add_(0, step.predicted, ones)

    def means(self) -> dict[str, float]:
        """Return `train/*`: mean losses over batches, and mean recall over the classes seen, on the trained inputs."""
        means = {f"train/{name}": float(torch.stack(values).mean()) for name, values in self._losses.items()}
        seen = self._seen > 0
        accuracy = "robust_acc" if self._is_attacked else "clean_acc"
        return means | {f"train/{accuracy}": float((self._right[seen] / self._seen[seen]).mean())}

    def diverged(self) -> str:
        """Describe the first batch whose loss is not finite; "" for none."""
        losses = torch.stack(self._losses["loss"]).tolist()
        wrong = next((batch for batch, loss in enumerate(losses) if not math.isfinite(loss)), None)
        return "" if wrong is None else f"the loss of batch {wrong + 1} of {len(losses)} is {losses[wrong]}"


def validate(
    config: Config, model: nn.Module, split: Split, groups: Groups, prefix: str
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Return the metrics `<prefix>/*` of a split and their per-class recalls; random starts are the same every time.
    `groups` are the classes by their training counts.

    Raises:
        DivergedError: the model answers NaN or infinity to an image.
    """
    scores = TASKS[config.task].validate(frozen(model), split, groups, config.attack, steps=config.evaluate.steps)
    if scores.unanswered:
        raise DivergedError(f"{scores.unanswered}; {REMEDY}")
    return {f"{prefix}/{name}": value for name, value in scores.values.items()}, dict(scores.per_class)


def _check_finite(config: Config, state: TrainState, epoch: int, loss: str = "") -> None:
    """Check that the state is finite after an epoch, and its losses: `loss` describes one that is not."""
    if found := state.not_finite():
        found = f"{found} is not finite after its last batch"
    if loss or found:
        raise DivergedError(f"epoch {epoch} of {config.epochs} diverged: {loss or found}; {REMEDY}")


def _check_answers(model: nn.Module, data: Split, chunk: int) -> None:
    """Check that a model without validation gives finite answers to its training images."""
    with eval_mode(model), torch.no_grad():
        unanswered = sum(int((~is_finite(model(inputs))).sum()) for inputs, _ in data.chunks(chunk))
    if told := not_finite(unanswered, len(data), "training images"):
        raise DivergedError(f"{told}; {REMEDY}")


def _rate(config: Config, epoch: int) -> float:
    optim = config.optim
    return learning_rate(optim.lr, epoch, config.epochs, optim.schedule, optim.warmup_epochs)


def _is_validated(config: Config, epoch: int) -> bool:
    return (epoch + 1) % config.evaluate.every == 0 or epoch + 1 == config.epochs
