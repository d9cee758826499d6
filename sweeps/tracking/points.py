"""The measurements of a job, point by point: exactly what MLflow should have."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ltsd.tasks import metric
from sweeps.journal.jobs import rank
from sweeps.journal.record import JobRecord


class Point(NamedTuple):
    """A measurement: metric, epoch, value, and the time it went on record, in milliseconds since 1970."""

    name: str
    step: int
    value: float
    at: int


def points(values: Mapping[str, float], step: int, at: int) -> Iterator[Point]:
    """Return the measurements of a step, without values that are not finite."""
    return (Point(name, step, float(value), at) for name, value in values.items() if math.isfinite(value))


def expected(known: JobRecord) -> Iterator[Point]:
    """Return every measurement that MLflow should have of a job."""
    for epoch, report in known.epochs.items():
        yield from points({**report.values, **report.usage}, epoch, known.reported[epoch])
    if known.result is not None:
        yield from points(known.result.values, known.result.epoch, known.measured)
    if known.outcome is not None:
        yield from best_and_final(known)


def wanted(known: JobRecord) -> Counter[tuple[str, int, float]]:
    """Return the expected measurements of a job as name, step and value."""
    return Counter((point.name, point.step, point.value) for point in expected(known))


def best_and_final(known: JobRecord) -> Iterator[Point]:
    """Return `best/*`, the validation metrics of the epoch with the highest robust score, and `final/*`, of the last
    epoch.
    """
    score = metric(known.job.config, "val/robust")
    validated = {epoch: report.values for epoch, report in known.epochs.items() if score in report.values}
    if not validated or known.outcome == "failed":
        return
    last, at = known.last_epoch, known.reported[known.last_epoch]
    best = max(validated, key=lambda epoch: rank(validated[epoch][score]))
    yield Point("best/epoch", last, float(best), at)
    for prefix, epoch in (("best", best), ("final", max(validated))):
        values = {name: value for name, value in validated[epoch].items() if name.startswith("val/")}
        yield from points({f"{prefix}/{name.removeprefix('val/')}": v for name, v in values.items()}, last, at)
