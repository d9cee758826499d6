"""The exam of every task, and what all have in common."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ltsd.evaluation.correctness import read_correctness
from ltsd.evaluation.exam import examine
from ltsd.evaluation.map_exam import examine_maps
from ltsd.evaluation.pixels_on_disk import read_counts


class Measured(Protocol):
    """A score of every class under one attack, in [0, 1]: a recall or an IoU."""

    @property
    def per_class(self) -> tuple[float, ...]:
        """The score of every class."""

    @property
    def groups(self) -> Mapping[str, Sequence[int]]:
        """Head, medium and tail."""

    @property
    def balanced(self) -> float:
        """The mean over classes."""

    def group(self, name: str) -> float:
        """Return the mean over the classes of one of `groups`."""


class Examined(Protocol):
    """The result of an exam so far: scores by attack, and sentences that doubt them."""

    @property
    def accuracies(self) -> Mapping[str, Measured]:
        """Scores by attack."""

    @property
    def doubts(self) -> tuple[str, ...]:
        """What makes the numbers doubtful, a sentence each."""

    @property
    def images(self) -> int:
        """How many test images there are."""

    def per_class(self) -> dict[str, list[float]]:
        """Return the scores of every class by attack."""

    def as_json(self) -> dict[str, Any]:
        """Return everything that is told of the exam, as plain values."""


@dataclass(frozen=True)
class Exam:
    """The exam of a task.

    `examine` is called as `ltsd.evaluation.exam.examine`; `read` reads a file that it kept, or raises a UserError;
    `score` is what its numbers are, in words.
    """

    examine: Callable[..., Iterator[tuple[str, Examined]]]
    read: Callable[[Path], object]
    score: str


EXAMS: Mapping[str, Exam] = {
    "classification": Exam(examine, read_correctness, "accuracies"),
    "segmentation": Exam(examine_maps, read_counts, "IoU"),
}
"""By task."""
