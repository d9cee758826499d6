"""The training loop: a generator that yields one frozen EpochMetrics per epoch, and resumes to the same bits."""

import math
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ltsd.attacks.losses import cross_entropy, cw_margin, scaled_cross_entropy
from ltsd.config import Config
from ltsd.cuda_graphs import Stepper, stepper_for
from ltsd.data.batches import Split, epoch_batches
from ltsd.errors import UserError
from ltsd.evaluation.evaluate import (
    Accuracy,
    clean_correctness,
    pgd_correctness,
    standing_correctness,
    unanswered,
    validation_metrics,
)
from ltsd.methods import METHODS
from ltsd.models.frozen import Frozen, frozen
from ltsd.state import EpochMetrics, TrainState, stream
from ltsd.step import Step, batch_of, budget_of, context_of

VALIDATION_SEED = 1
FULL_STEPS = 20
VALIDATION_LOSSES = {"pgd": cross_entropy, "cw": cw_margin, "lsa": scaled_cross_entropy}
"""What the attacks of a validation maximise, in turn; measured in benchmarks/results/scores.md."""
REMEDY = "lower optim.lr (of a teacher: teacher.lr) and start anew"


class DivergedError(UserError, ArithmeticError):
    """A loss, a weight, a BatchNorm statistic, an averaged weight or an answer is not finite."""


def train(
    config: Config, state: TrainState, data: Split, val: Split | None, teacher: nn.Module | None
) -> Iterator[EpochMetrics]:
    """Train from the state's epoch to `config.epochs`; the state is complete, and can be saved, at every yield.

    Args:
        config: method, epochs, hyperparameters.
        state: changed in place.
        data: training images, on the state's device.
        val: validation images, scored every `config.evaluate.every` epochs and after the last; None for never.
        teacher: the balanced self-teacher, for methods that need one.

    Yields:
        The metrics of each epoch.

    Raises:
        DivergedError: the state, a loss, or an answer to a validation image is not finite; without `val`, an answer
            to a training image after the last epoch.
    """
    _check_finite(config, state, len(state.history))
    counts = data.class_counts()
    if teacher is not None:
        teacher = frozen(teacher.eval().requires_grad_(False), state.student.features.dtype)
    stepper = stepper_for(config, data, teacher)
    # One for all epochs: its memory is not free as soon as it is unused.
    validated = None if val is None else Frozen(state.model)
    state.student.train()
    for epoch in range(len(state.history), config.epochs):
        started = time.perf_counter()
        tally = train_epoch(config, stepper, state, data, teacher)
        values = tally.means()
        _check_finite(config, state, epoch + 1, tally.diverged())
        per_class: dict[str, list[float]] = {}
        if val is not None and validated is not None and _is_validated(config, epoch):
            validated.refresh()
            measured, per_class = validate(config, validated, val, counts, "val")
            values |= measured
        elif epoch + 1 == config.epochs:
            _check_answers(state.model, data)
        values["train/lr"] = learning_rate(config.optim.lr, epoch, config.epochs)
        state.predicted = tally.predicted
        state.history.append(EpochMetrics(epoch + 1, time.perf_counter() - started, values, per_class))
        yield state.history[-1]


def train_epoch(config: Config, stepper: Stepper, state: TrainState, data: Split, teacher: nn.Module | None) -> "Tally":
    """Run the next epoch on all training images; return its measurements."""
    epoch, device, method = len(state.history), data.rows.device, METHODS[config.method]
    generator = torch.Generator(device).manual_seed(stream(config.seed, epoch))
    counts = data.class_counts()
    context = context_of(config, counts, epoch, state.predicted, teacher, device)
    budget = budget_of(config, counts, epoch, device)
    tally = Tally(data.num_classes, device)
    with stepper.at(state, teacher) as working:
        working.begin_epoch(learning_rate(config.optim.lr, epoch, config.epochs))
        for inputs, labels in epoch_batches(data, config.optim.batch_size, config.data.augmentation, generator):
            working.begin_step(config.optim.ema_decay)
            batch = batch_of(method, inputs, labels, budget, generator)
            tally.add(stepper.step(batch, context, budget), labels)
    return tally


class Tally:
    """Measurements of an epoch's batches, kept on the device and read once, at its end.

    `predicted` [C] counts the images that were assigned to each class.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._losses: dict[str, list[Tensor]] = {}
        self._right = torch.zeros(num_classes, device=device)
        self._seen = torch.zeros(num_classes, device=device)
        self._is_attacked = False
        self.predicted = torch.zeros(num_classes, device=device)

    def add(self, step: Step, labels: Tensor) -> None:
        """Add the step of a batch with labels [B]."""
        for name, value in step.losses.items():
            self._losses.setdefault(name, []).append(value)
        self._is_attacked = step.is_attacked
        ones = torch.ones_like(labels, dtype=torch.float32)
        self._right.index_add_(0, labels, step.right.float())
        self._seen.index_add_(0, labels, ones)
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
    config: Config, model: nn.Module, split: Split, class_counts: list[int], prefix: str
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Return the metrics `<prefix>/*` of a split and their per-class recalls; random starts are the same every time.

    `robust_acc` is the worst case, image by image, of PGD with `evaluate.steps` on each of VALIDATION_LOSSES: a search
    for accuracy under PGD on cross-entropy alone finds models whose gradients mislead it. `pgd_acc` and `cw_acc` are
    the accuracies after the first and the second attack. `fgsm_acc` reveals catastrophic overfitting.

    Raises:
        DivergedError: the model answers NaN or infinity to an image.
    """
    model, attack = frozen(model), config.attack
    fgsm = pgd_correctness(model, split, eps=attack.eps, step_size=attack.eps, steps=1, seed=None)
    standing = standing_correctness(
        model,
        split,
        VALIDATION_LOSSES,
        eps=attack.eps,
        step_size=attack.resolved_step_size * max(1.0, FULL_STEPS / config.evaluate.steps),
        steps=config.evaluate.steps,
        seed=VALIDATION_SEED,
    )
    if told := unanswered([fgsm, *standing.values()], "images that it is validated on"):
        raise DivergedError(f"{told}; {REMEDY}")
    found = {name: Accuracy.of(one, class_counts) for name, one in standing.items()}
    *before, worst = VALIDATION_LOSSES
    values = validation_metrics(prefix, found["clean"], found[worst])
    values |= {f"{prefix}/{name}_acc": found[name].balanced for name in before}
    per_class = {"clean": list(found["clean"].per_class), "robust": list(found[worst].per_class)}
    return values | {f"{prefix}/fgsm_acc": Accuracy.of(fgsm, class_counts).balanced}, per_class


def learning_rate(base: float, epoch: int, epochs: int) -> float:
    """Return `base`, a tenth of it after 75% of the epochs, a hundredth after 90%."""
    return base * 0.1 ** ((epoch >= 0.75 * epochs) + (epoch >= 0.9 * epochs))


def _check_finite(config: Config, state: TrainState, epoch: int, loss: str = "") -> None:
    """Check that the state is finite after an epoch, and its losses: `loss` describes one that is not."""
    if found := state.not_finite():
        found = f"{found} is not finite after its last batch"
    if loss or found:
        raise DivergedError(f"epoch {epoch} of {config.epochs} diverged: {loss or found}; {REMEDY}")


def _check_answers(model: nn.Module, data: Split) -> None:
    """Check that a model without validation gives finite answers to its training images."""
    if told := unanswered([clean_correctness(model, data)], "training images"):
        raise DivergedError(f"{told}; {REMEDY}")


def _is_validated(config: Config, epoch: int) -> bool:
    return (epoch + 1) % config.evaluate.every == 0 or epoch + 1 == config.epochs
