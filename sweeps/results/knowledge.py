"""Points known before a sweep starts: the best of earlier sweeps and of files, moved into the new space."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from ltsd.config import Config
from ltsd.errors import UserError
from ltsd.knobs import Value, nearest, walk
from sweeps.journal.record import Record
from sweeps.results import confirm
from sweeps.results.confirm import DEFAULTS, Choice
from sweeps.settings.groups import TEACHER_GAMMA
from sweeps.settings.sweep import Sweep

POINTS = 3
"""How many confirmed points of an earlier sweep are tried, the best ones."""
FORM = "give JSON, a list of {knob: value}"
Point = Mapping[str, Value]


def points_known(sweep: Sweep, space: Mapping[str, BaseDistribution], defaults: Point) -> list[dict[str, Value]]:
    """Return the points that `--start-from` names, moved into the space.

    A knob with a relative range keeps its ratio to the defaults, which may differ on other data; other knobs keep their
    values. Values outside the range move to the nearest one inside. Missing knobs get the defaults.

    Raises:
        UserError: a sweep or file does not exist, has no points, or has none of the knobs that are searched now.
    """
    found = []
    for source in filter(None, map(str.strip, (sweep.settings.start_from or "").split(","))):
        for point, old in _points_of(sweep, source):
            known = {name: value for name, value in point.items() if name in space}
            if not known:
                raise UserError(
                    f"--start-from {source}: it has points of {', '.join(point)}, and searched are {', '.join(space)}; "
                    f"name another sweep, or the groups that it searched by --search"
                )
            moved = {name: _moved(name, value, old.get(name), defaults[name]) for name, value in known.items()}
            found.append(dict(defaults) | {name: _inside(space[name], value) for name, value in moved.items()})
    return found


def _points_of(sweep: Sweep, source: str) -> Iterator[tuple[Point, Point]]:
    """Yield the points of a source, each with the defaults that it is relative to."""
    if source.endswith(".json"):
        for point in _points_in(Path(source)):
            yield point, {}
        return
    earlier = Sweep.resumed({"name": source, "storage": sweep.settings.storage}, {}, remedy="name one by --start-from")
    record = Record.read(earlier.settings.folder)
    choice = Choice.of(record, earlier.objectives, earlier.settings.preference)
    means = {number: confirm.mean(scores) for number, scores in confirm.confirmed(choice.found).items()}
    best = sorted(means, key=lambda number: choice.preference.key(means[number], means.get(DEFAULTS, ())), reverse=True)
    best = [number for number in best if number != DEFAULTS][:POINTS]
    if not best:
        raise UserError(f"--start-from {source}: none of its trials was confirmed; let it end first, with --resume")
    for number in best:
        yield record.proposals()[number], record.proposals().get(DEFAULTS, {})


def _points_in(path: Path) -> list[Point]:
    try:
        content: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"--start-from {path}: cannot be read ({error}); give JSON, a list of {{knob: value}}"
        ) from None
    points = content if isinstance(content, list) else [content]
    known = Config().flatten()
    for point in points:
        if not isinstance(point, dict) or not point:
            raise UserError(f"--start-from {path}: {point!r} is no point; {FORM}")
        for name in point:
            if name not in known:
                raise UserError(f"--start-from {path}: no knob is named {name!r}{nearest(name, known)}")
    return points


def _moved(name: str, value: Value, old: Value, new: Value) -> Value:
    """Scale a value from an old default to a new one, if the knob is relative."""
    if name in RELATIVE and isinstance(value, int | float) and isinstance(old, int | float) and old:
        assert isinstance(new, int | float)
        return value / old * new
    return value


def _inside(among: BaseDistribution, value: Value) -> Value:
    """Return the nearest value of a distribution."""
    if not isinstance(value, int | float):
        raise UserError(f"--start-from: {value!r} is no number, as every knob that is searched is")
    if isinstance(among, CategoricalDistribution):
        return min((choice for choice in among.choices if choice is not None), key=lambda c: abs(float(c) - value))
    low, high = among.low, among.high  # type: ignore[attr-defined]
    return float(min(max(value, low), high))


RELATIVE = {
    TEACHER_GAMMA,
    *(name for name, _, _, item in walk(Config()) if getattr(item.metadata["search"], "relative", False)),
}
