"""The world in which sweeps are replayed.

Scores are functions of the configuration, drawn from the posterior of Gaussian processes on the principal components of
what was measured: each replay has a draw of its own, which says what the table says where the table has points, and is
as unsure as it has to be between them. On top of the draw a run has the noise of its seed, which is what the draw
leaves of the rows of about the same level, and that of the images it is scored on: a bootstrap of the reserve, the same
for all runs of a replay, so that searching among many configurations is as optimistic as it is. Curves are those of the
nearest row, shifted to the last score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from replays.landscape import Costs, Landscape
from replays.table import RESERVE, Array, Table, weights
from sweeps.results.confirm import SEEDS
from sweeps.settings.groups import group_of

ALIKE = 20
"""Rows of about the same level, a residual of which is the noise of a run."""
VALIDATED = 25
"""Validation images of each class."""


@dataclass(frozen=True)
class World:
    """The table, the landscape that its rows are of, and what each replay's images do to each row's scores:
    `luck` [replays, (validation, reserve), N, (all classes, tail)]; what each replay's draw says of all whose scores
    are known: `truths` [rows, replays, SCORES].
    """

    table: Table
    landscape: Landscape
    costs: Costs
    luck: Array
    truths: Array

    @classmethod
    def made(cls, table: Table, replays: int, seed: int) -> "World":
        """With so many draws."""
        random = np.random.default_rng(seed)
        landscape = Landscape.fitted(table, replays, random)
        groups = (np.unique(table.labels), table.tail)
        whole = np.stack([weights(table.labels, classes) for classes in groups])
        drawn = np.stack([_bootstrap(table.labels, groups, random) for _ in range(replays)])
        luck = np.moveaxis((drawn - whole) @ table.right.T, 2, 3)
        return cls(table, landscape, Costs(table), luck, landscape.at(table.sampled[1], slice(None)))

    @property
    def defaults(self) -> Array:
        """Their point."""
        return self.table.points[self.table.distinct[0]]


def searched(space: Mapping[str, Any], groups: Sequence[str]) -> dict[str, Any]:
    """What of the space is in some groups."""
    return {name: among for name, among in space.items() if group_of(name) in groups}


def _bootstrap(labels: Array, groups: Sequence[Sequence[int]], random: np.random.Generator) -> Array:
    """Weights [2, 2, R] of images drawn class by class: of the validation images, which are the first, and of all."""
    drawn = {c: random.choice(np.flatnonzero(labels == c), (labels == c).sum()) for c in groups[0]}
    found = np.zeros((2, len(groups), len(labels)))
    for (i, part), (j, classes) in ((a, b) for a in enumerate((VALIDATED, None)) for b in enumerate(groups)):
        for c in classes:
            images = drawn[c][:part]
            np.add.at(found[i, j], images, 1 / (len(images) * len(classes)))
    return found


@dataclass(frozen=True)
class Run:
    """A trial: its curve [E, 2] on the validation images, its score [2] on the reserve, what is true of it [SCORES]."""

    point: Array
    curve: Array
    reserve: Array
    truth: Array
    seconds: float
    teacher_seconds: float


class Replay:
    """One draw of the world, with its images; runs in it are random."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.random = np.random.default_rng([number, 1])
        self._number = number
        self._luck = world.luck[number]
        rows = world.truths[:, number]
        self._order = np.argsort(rows[:, 0])
        self._levels = rows[self._order, 0]
        self._residuals = (world.table.sampled[2] - rows)[:, RESERVE]

    def truth(self, point: Array) -> Array:
        """The scores [SCORES] of a configuration, the mean over seeds."""
        return self.world.landscape.at(point[None], self._number)[0]

    def run(self, point: Array) -> Run:
        """Train a configuration on the first seed."""
        table, truth = self.world.table, self.truth(point)
        row = self._near(point)[0]
        score = truth[RESERVE] + self._noise(truth[0])
        curve = table.curves[row] - table.curves[row, -1] + score + self._luck[0, row]
        seconds, teacher = self.world.costs.at(point[None])[0]
        return Run(point, curve, score + self._luck[1, row], truth, float(seconds), float(teacher))

    def again(self, run: Run, seed: int) -> Array:
        """The score [2] on the reserve of the same configuration, trained on another seed."""
        row = self._near(run.point)[seed]
        return run.truth[RESERVE] + self._noise(run.truth[0]) + self._luck[1, row]

    def _noise(self, level: float) -> Array:
        place = np.searchsorted(self._levels, level) + self.random.integers(-ALIKE // 2, ALIKE // 2 + 1)
        return self._residuals[self._order[np.clip(place, 0, len(self._order) - 1)]]

    def _near(self, point: Array) -> Array:
        lengths = self.world.landscape.processes[0].lengths
        far = cdist(point[None] / lengths, self.world.table.points / lengths)[0]
        return np.argsort(far, kind="stable")[:SEEDS]
