"""The objectives of a sweep, and the user's preference among the points of the front."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from ltsd.errors import UserError
from ltsd.knobs import nearest

MEASURED: Mapping[str, str] = {
    "robust": "robust",
    "tail": "tail_robust",
    "clean": "clean",
    "tail-clean": "tail_clean",
    "worst-class": "worst_class_robust",
}
"""The possible objectives, each with the first part of its metric's name; the measure of the task follows. All are
fractions in [0, 1].
"""

Scores = tuple[float, ...]
FIRST = 3.0
"""The weight of the first objective where the user states none; each other one has 1."""


@dataclass(frozen=True)
class Objectives:
    """The numbers that a sweep maximises, by name, in the user's order. `measure` is the last word of their metrics."""

    names: tuple[str, ...]
    measure: str = "acc"

    @classmethod
    def named(cls, text: str, measure: str = "acc") -> Self:
        """Read a comma-separated list of objectives.

        Raises:
            UserError: the list is empty, or one is unknown or repeated.
        """
        names = tuple(part.strip() for part in text.split(",") if part.strip())
        for name in names:
            if name not in MEASURED:
                known = ", ".join(MEASURED)
                raise UserError(f"--objectives {text}: {name!r} is not measured; {known} are{nearest(name, MEASURED)}")
        if not names or len(set(names)) < len(names):
            raise UserError(f"--objectives {text!r}: must name one or more of {', '.join(MEASURED)}, each once")
        return cls(names, measure)

    def metric(self, name: str) -> str:
        """Return the metric of an objective, without its split."""
        return f"{MEASURED[name]}_{self.measure}"

    def of(self, values: Mapping[str, float], prefix: str = "val") -> Scores | None:
        """Return the scores among the metrics `<prefix>/*`; None if one is missing or not finite."""
        scores = tuple(values.get(f"{prefix}/{self.metric(name)}", math.nan) for name in self.names)
        return scores if all(map(math.isfinite, scores)) else None

    def told(self, scores: Sequence[float]) -> str:
        """Return scores in words."""
        return ", ".join(f"{name} {100 * score:.1f}%" for name, score in zip(self.names, scores, strict=True))


@dataclass(frozen=True)
class Preference:
    """The point that the user prefers among several: of those that reach all `bounds`, the one with the highest
    weighted mean.

    `bounds` and `weights` have one number for each objective; -inf is no bound. `is_stated` is whether the user gave
    the preference.
    """

    bounds: Scores
    weights: Scores
    is_stated: bool = False

    @classmethod
    def read(cls, text: str | None, objectives: Objectives) -> Self:
        """Read bounds, such as `tail>=0.6`, and weights, such as `robust+2*tail`, separated by commas.

        Without weights, the first objective has the weight `FIRST` and each other one 1: the score of a few rare
        classes varies more, and would outweigh that of all classes.

        Raises:
            UserError: it cannot be read, or names something that is not maximised.
        """
        bounds, weights = dict.fromkeys(objectives.names, -math.inf), dict[str, float]()
        for part in filter(None, map(str.strip, (text or "").split(","))):
            name, is_bound, bound = map(str.strip, part.partition(">="))
            if is_bound:
                bounds[_objective(name, text, objectives)] = _fraction(bound, text)
            else:
                for term in part.split("+"):
                    weight, _, name = term.rpartition("*")
                    weights[_objective(name.strip(), text, objectives)] = _number(weight.strip() or "1", text)
        usual = weights or {name: 1.0 if k else FIRST for k, name in enumerate(objectives.names)}
        weighed = tuple(usual.get(name, 0.0) for name in objectives.names)
        if not any(weighed):
            raise UserError(f"--prefer {text}: some weight must be above 0")
        return cls(tuple(bounds[name] for name in objectives.names), weighed, bool(text))

    def worth(self, scores: Sequence[float]) -> float:
        """Return the weighted mean of scores."""
        total = sum(weight * score for weight, score in zip(self.weights, scores, strict=True))
        return total / sum(self.weights)

    def key(self, scores: Sequence[float], defaults: Sequence[float]) -> tuple[bool, float]:
        """Return the sort key of a point: first whether it reaches the bounds or, without a stated preference, is
        nowhere below the defaults; then the weighted mean. Points without scores come last; () are unknown defaults.
        """
        if not scores:
            return False, -math.inf
        is_safe = self.is_stated or all(ours >= theirs for ours, theirs in zip(scores, defaults, strict=False))
        return is_safe and self.is_met(scores), self.worth(scores)

    def floors(self, defaults: Sequence[float]) -> Scores | None:
        """Return the score that a point should reach in each objective: its bound or, without a stated preference, the
        score of the defaults, which are () if unknown; None if there is nothing to reach.
        """
        if not self.is_stated:
            return tuple(defaults) or None
        return self.bounds if any(map(math.isfinite, self.bounds)) else None

    def is_met(self, scores: Sequence[float]) -> bool:
        """Return whether scores reach all bounds."""
        return all(score >= bound for score, bound in zip(scores, self.bounds, strict=True))


def _objective(name: str, text: str | None, objectives: Objectives) -> str:
    if name not in objectives.names:
        raise UserError(
            f"--prefer {text}: {name!r} is not maximised; {', '.join(objectives.names)} by --objectives"
            f"{nearest(name, objectives.names)}"
        )
    return name


def _fraction(value: str, text: str | None) -> float:
    number = _number(value, text)
    if number > 1:
        raise UserError(f"--prefer {text}: {value} is out of range: scores lie in [0, 1], write 0.6, not 60")
    return number


def _number(value: str, text: str | None) -> float:
    if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", value):
        raise UserError(f"--prefer {text}: {value!r} is no number; write bounds as tail>=0.6, weights as robust+2*tail")
    return float(value)
