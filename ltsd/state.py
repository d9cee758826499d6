"""Everything that training changes, saved and restored as a whole; and the seeds of its random streams."""

import hashlib
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from ltsd.answers import first_not_finite
from ltsd.checkpoint import CheckpointError
from ltsd.config import Config
from ltsd.methods import METHODS
from ltsd.models import begin_with, build_model
from ltsd.models.frozen import Frozen
from ltsd.models.network import Network
from ltsd.optimizers import load_state, optimizer_for, rates_of, set_rates
from ltsd.precision import compute_dtype
from ltsd.ranks import copy_from_first


@dataclass(frozen=True)
class EpochMetrics:
    """The measurements of one epoch. `epoch` counts from 1; `values` has the project's metric names.

    `per_class` holds clean and robust recalls if the epoch was validated.
    """

    epoch: int
    seconds: float
    values: dict[str, float]
    per_class: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class TrainState:
    """Everything that training changes; all of it is saved, so that resuming loses nothing.

    Random numbers need no state: each epoch draws from (seed, epoch). `predicted` is as in `StepContext`; None before
    the first epoch is over. `frozen` is the student as attacks see it. `pull` is how far the next step moves the
    average towards the student, a 0-d tensor like the optimizer's learning rates; `clip_grad_norm` as in `OptimConfig`.
    """

    student: Network
    optimizer: torch.optim.Optimizer
    average: Network | None
    history: list[EpochMetrics]
    steps: int = 0
    predicted: Tensor | None = None
    clip_grad_norm: float = 0.0
    frozen: Frozen = field(init=False)
    pull: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.frozen = Frozen(self.student, self.student.features.dtype)
        self.pull = torch.zeros_like(rates_of(self.optimizer)[0])

    @classmethod
    def fresh(cls, config: Config, channels: int, num_classes: int, device: torch.device) -> Self:
        """Return a state with new weights, drawn from the seed, or those that the configuration names."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream(config.seed, "weights"))
            student = build_model(config.model, channels, num_classes, METHODS[config.method].head)
        if config.model.weights is not None:
            begin_with(student, config.model)
        student = student.to(device)
        student.features.dtype = compute_dtype(config.precision, device)
        optim = config.optim
        average = deepcopy(student).requires_grad_(False).eval() if optim.ema_decay > 0 else None
        return cls(student, optimizer_for(student, optim, device), average, [], clip_grad_norm=optim.clip_grad_norm)

    @property
    def model(self) -> Network:
        """The model that is evaluated and kept: the averaged weights if there are any."""
        return self.student if self.average is None else self.average

    def not_finite(self) -> str:
        """The first weight or BatchNorm statistic that is not finite, then that of the averages; "" for none."""
        tensors = dict(self.student.state_dict())
        if self.average is not None:
            tensors |= {f"the average of {name}": tensor for name, tensor in self.average.state_dict().items()}
        return first_not_finite(tensors)

    def content(self) -> dict[str, Any]:
        """Return the state as nested dicts of tensors and plain values, for a checkpoint."""
        return {
            "student": self.student.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": [asdict(metrics) for metrics in self.history],
            "steps": self.steps,
            "predicted": self.predicted,
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Load a saved state.

        Raises:
            CheckpointError: it has another architecture.
        """
        try:
            self.student.load_state_dict(content["student"])
            if self.average is not None:
                self.average.load_state_dict(content["average"])
            load_state(self.optimizer, content["optimizer"])
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"the checkpoint is of another architecture ({str(error).splitlines()[0]})"
            ) from error
        self.history = [EpochMetrics(**metrics) for metrics in content["history"]]
        self.steps, self.predicted = content["steps"], content["predicted"]

    @torch.no_grad()
    def take_over(self, other: Self) -> None:
        """Copy another state of the same kind into the existing tensors, without its history."""
        for place, tensor in zip(self._tensors(), other._tensors(), strict=True):
            place.copy_(tensor)
        self.steps = other.steps

    def agree(self) -> None:
        """Take over the state of the first of several ranks, so that rounding never leads them apart."""
        copy_from_first(self._tensors())

    def _tensors(self) -> Iterator[Tensor]:
        for module in (self.student, self.average):
            yield from () if module is None else module.state_dict().values()
        for weight in self.student.parameters():
            yield from self.optimizer.state[weight].values()
        yield from rates_of(self.optimizer)

    def begin_epoch(self, rate: float, backbone_scale: float) -> None:
        """Set the learning rates; see `set_rates`."""
        set_rates(self.optimizer, rate, backbone_scale)

    def begin_step(self, decay: float) -> None:
        """Count a step, and set how far it moves the average; early steps average over what there is so far."""
        self.steps += 1
        self.pull.fill_(1 - min(decay, (1 + self.steps) / (10 + self.steps)))

    def update(self) -> None:
        """Move the weights along their gradients, and the averages after them."""
        if self.clip_grad_norm:
            nn.utils.clip_grad_norm_(self.student.parameters(), self.clip_grad_norm)
        self.optimizer.step()
        self.update_average()

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the averaged weights towards the student's."""
        if self.average is None:
            return
        for mean, value in zip(self.average.state_dict().values(), self.student.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, self.pull)
            else:
                mean.copy_(value)


def stream(seed: int, name: str | int) -> int:
    """Return the seed of one random stream, in effect independent of every other stream's."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7])
