"""What a knob is: a dataclass field that knows its help text and its range, and the walk over a tree of them."""

import dataclasses
import difflib
import functools
import math
import sys
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ltsd.errors import UserError

Value = str | int | float | bool | None
C = TypeVar("C")
TIMES = " times the default"


@dataclass(frozen=True)
class Range:
    """What a sweep tries of a knob, unless the user fixes it: from `low` to `high`, both included.

    `log`: evenly on the logarithm; `relative`: both are multiples of the default of the data set.
    """

    low: float
    high: float
    log: bool = False
    relative: bool = False

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{TIMES if self.relative else ''}"


@dataclass(frozen=True)
class Choices:
    """What a sweep tries of a knob, unless the user fixes it: one of `values`.

    `relative`: they are multiples of the default of the data set, rounded where that is a whole number, and none that
    is smaller than the default is below `least`.
    """

    values: tuple[float, ...]
    relative: bool = False
    least: int = 2

    def __str__(self) -> str:
        return f"{', '.join(f'{value:g}' for value in self.values)}{TIMES if self.relative else ''}"


def knob(
    default: Any,
    text: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    multiple_of: int | None = None,
    choices: tuple[str, ...] = (),
    word: str = "",
    unset: str = "",
    remedy: str = "",
    search: Range | Choices | None = None,
) -> Any:
    """A dataclass field that knows its help text and its range, both shown to the user, and what a sweep tries.

    `word` is what may stand in place of a number; `unset` is what holds where the value is None. Of `choices`, one that
    ends in `/NAME` stands for any name there.
    """
    limits = {
        "above": above,
        "at least": at_least,
        "at most": at_most,
        "below": below,
        "a multiple of": multiple_of,
    }
    metadata = {"help": text, "limits": limits, "choices": choices, "word": word, "unset": unset, "remedy": remedy}
    return field(default=default, metadata={**metadata, "search": search})


def walk(config: Any, prefix: str = "") -> Iterable[tuple[str, Any, Any, dataclasses.Field[Any]]]:
    """Every knob of a (nested) config dataclass as (dotted name, value, type, field)."""
    hints = _hints(type(config))  # type: ignore[arg-type]
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from walk(value, _prefix(prefix, item))
        else:
            yield sys.intern(f"{prefix}{item.name}"), value, hints[item.name], item


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _prefix(prefix: str, item: dataclasses.Field[Any]) -> str:
    """What the names inside a group begin with; the groups of a transparent one are named as if it were not there."""
    return prefix if item.metadata.get("transparent") else f"{prefix}{item.name}."


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with the closest known name, or nothing where none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def override(config: C, dotted: Mapping[str, Value], prefix: str = "") -> C:
    """A (nested) config dataclass with some knobs set, each checked; unknown names are passed over.

    Groups in which nothing changes are the same objects as before: a sweep keeps thousands of configurations.
    """
    hints = _hints(type(config))  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        name = f"{prefix}{item.name}"
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            wanted = override(value, dotted, _prefix(prefix, item))
        else:
            wanted = checked(name, dotted[name], hints[item.name], item) if name in dotted else value
        if wanted is not value and wanted != value:
            changes[item.name] = wanted
    return dataclasses.replace(config, **changes) if changes else config  # type: ignore[type-var]


def checked(name: str, value: Any, hint: Any, item: dataclasses.Field[Any]) -> Any:
    """`value` as the field's type and within its range; a whole float passes for an int field.

    Raises:
        UserError: naming the knob, the value, what is allowed and, where one is known, the remedy.
    """
    kinds = typing.get_args(hint) or (hint,)
    if (value is None and type(None) in kinds) or (value and value == item.metadata["word"]):
        return value
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e300 else math.inf
    if int in kinds and isinstance(value, float) and value.is_integer():
        value = int(value)
    if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds[0]):
        raise UserError(f"{name} = {value!r} is not of type {kinds[0].__name__}")
    _check_range(name, value, item.metadata)
    return value


def admits(choice: str, value: str) -> bool:
    """Return whether a value is what one of the choices of a knob stands for."""
    start, _, last = choice.rpartition("/")
    return value == choice or bool(start and last == "NAME" and value.startswith(f"{start}/") and value != f"{start}/")


def _check_range(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    choices = metadata["choices"]
    if choices and not any(admits(choice, value) for choice in choices):
        raise UserError(f"{name} = {value!r} is not one of {', '.join(choices)}{nearest(value, choices)}")
    if isinstance(value, str | bool):
        return
    tests = {
        "above": lambda limit: value > limit,
        "at least": lambda limit: value >= limit,
        "at most": lambda limit: value <= limit,
        "below": lambda limit: value < limit,
        "a multiple of": lambda limit: value % limit == 0,
    }
    limits = {word: limit for word, limit in metadata["limits"].items() if limit is not None}
    if math.isfinite(value) and all(tests[word](limit) for word, limit in limits.items()):
        return
    allowed = " and ".join(f"{word} {limit}" for word, limit in limits.items()) or "finite"
    remedy = f" ({metadata['remedy']})" if metadata["remedy"] else ""
    raise UserError(f"{name} = {value} is out of range: it must be {allowed}{remedy}")
