"""The table of `benchmarks/tabular.py` in numbers: configurations are points of the unit cube."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution

from ltsd.data.longtail import class_groups

Array = NDArray[Any]
SCORES = ("reserve", "reserve, tail", "test", "test, tail", "reserve, clean", "reserve, tail clean")
RESERVE, TEST, CLEAN = slice(0, 2), slice(2, 4), slice(4, 6)


@dataclass(frozen=True)
class Table:
    """The rows: `points` [N, D] in the unit cube, `curves` [N, E, 2] of validation scores (all classes, tail) at
    `epochs`, `right` [N, R] of the reserve's images under all attacks, which have `labels` [R].

    `sampled` are what is known of the scores, of these rows and of others: configuration, point and SCORES.
    """

    space: Mapping[str, BaseDistribution]
    configurations: Array
    points: Array
    sampled: tuple[Array, Array, Array]
    curves: Array
    epochs: tuple[int, ...]
    right: Array
    labels: Array
    tail: tuple[int, ...]
    seconds: Array
    teacher_seconds: Array

    @classmethod
    def read(
        cls,
        path: Path,
        space: Mapping[str, BaseDistribution],
        labels: Mapping[str, Array],
        counts: Sequence[int],
        others: Sequence[tuple[int, Mapping[str, Any], Sequence[float]]] = (),
    ) -> "Table":
        """From the Parquet file.

        Args:
            labels: of the images of `reserve` and `test`, in order; `counts`: training images by class.
            others: configurations that only scores are known of: a number, a point of the space, SCORES.
        """
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        rows = [row for row in rows if row["steps"] == max(row["steps"] for row in rows)]
        tail = tuple(class_groups(counts)["tail"])
        columns = []
        for name in ("reserve/lsa", "test/APGD-CE+T", "reserve/clean"):
            of_images = labels[name.partition("/")[0]]
            right = unpacked([row[name] for row in rows], len(of_images))
            columns += [right @ weights(of_images, classes) for classes in (range(len(counts)), tail)]
        configurations, points = np.array([row["configuration"] for row in rows]), [encoded(row, space) for row in rows]
        sampled = (
            np.array([*configurations, *(-1 - number for number, _, _ in others)]),
            np.array([*points, *(encoded(params, space) for _, params, _ in others)]),
            np.array([*np.stack(columns, 1), *(scores for _, _, scores in others)]),
        )
        return cls(
            space,
            configurations,
            np.array(points),
            sampled,
            np.array([list(zip(row["val/robust_acc"], row["val/tail_robust_acc"], strict=True)) for row in rows]),
            tuple(rows[0]["epochs"]),
            unpacked([row["reserve/lsa"] for row in rows], len(labels["reserve"])),
            labels["reserve"],
            tail,
            np.array([row["seconds"] for row in rows]),
            np.array([row["teacher_seconds"] for row in rows]),
        )

    @cached_property
    def distinct(self) -> Array:
        """A row of every configuration, the defaults first."""
        return np.unique(self.configurations, return_index=True)[1]


def unpacked(packed: Sequence[bytes], count: int) -> Array:
    """Bits [N, count] as numbers."""
    return np.stack([np.unpackbits(np.frombuffer(one, np.uint8))[:count] for one in packed]).astype(np.float32)


def weights(labels: Array, classes: Sequence[int]) -> Array:
    """The weight of each image in the mean recall of some classes."""
    return sum(((labels == c) / ((labels == c).sum() * len(classes)) for c in classes), np.zeros(len(labels)))


def encoded(params: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> list[float]:
    """A configuration as a point of the unit cube: on the scale of the range, the place among the choices."""
    return [_unit(params[name], among) for name, among in space.items()]


def _unit(value: Any, among: Any) -> float:
    if isinstance(among, CategoricalDistribution):
        return among.choices.index(value) / max(1, len(among.choices) - 1)
    low, high = np.log([among.low, among.high]) if among.log else (among.low, among.high)
    return float(((np.log(value) if among.log else value) - low) / (high - low))


def decoded(point: Array, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """The configuration of a point."""
    return {name: _value(float(unit), among) for unit, (name, among) in zip(point, space.items(), strict=True)}


def _value(unit: float, among: Any) -> Any:
    if isinstance(among, CategoricalDistribution):
        return among.choices[round(unit * max(1, len(among.choices) - 1))]
    if among.log:
        return float(np.clip(among.low * (among.high / among.low) ** unit, among.low, among.high))
    return among.low + unit * (among.high - among.low)
