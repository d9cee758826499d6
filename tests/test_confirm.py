"""Who becomes the finalist."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, create_trial

from ltsd.config import Config
from sweeps.journal.jobs import Job, Report, rank
from sweeps.journal.record import Record
from sweeps.results.confirm import chosen, contenders, ends, scores
from sweeps.settings.objectives import Objectives, Preference
from sweeps.tracking.points import best_and_final, expected

SCORE = "val/robust_acc"

NAN = math.nan


ROBUST, BOTH = Objectives(("robust",)), Objectives(("robust", "tail"))
ANY = Preference.read(None, BOTH)


def one(*values: float) -> list[tuple[float, ...]]:
    """The scores of a trial in one objective, a seed each."""
    return [(value,) for value in values]


@pytest.mark.parametrize(
    ("scores", "finalist"),
    [
        ({}, None),
        ({3: one(0.7, 0.6, 0.65)}, 3),
        ({0: one(0.70, 0.72, 0.74), 5: one(0.80, 0.81, 0.82)}, 5),
        ({0: one(0.716, 0.758, 0.747), 10: one(0.741, 0.743, 0.752)}, 0),
        ({0: one(0.75, 0.76, 0.77), 2: one(0.70, 0.71, 0.72)}, 0),
        ({4: one(0.70, 0.71, 0.72), 2: one(0.71, 0.72, 0.73)}, 2),
        ({0: one(0.70, 0.72, 0.74), 5: one(0.76)}, 0),
        ({0: one(0.70, 0.72, 0.74), 5: one(0.80, 0.82)}, 0),
        ({0: one(0.70), 5: one(0.76)}, 0),
        ({3: one(0.70), 5: one(0.76)}, 5),
    ],
)
def test_the_defaults_give_way_only_to_a_lead_beyond_its_standard_error(
    scores: dict[int, list[tuple[float, ...]]], finalist: int | None
) -> None:
    assert chosen(scores, Preference.read(None, ROBUST)) == finalist


def steady(robust: float, tail: float) -> list[tuple[float, ...]]:
    """Three seeds around two means, with a standard deviation of one point."""
    return [(robust + noise, tail + noise) for noise in (-0.01, 0.0, 0.01)]


DEFAULT = steady(0.70, 0.45)


@pytest.mark.parametrize(
    ("others", "prefer", "finalist"),
    [
        ({1: steady(0.73, 0.46), 2: steady(0.71, 0.53)}, None, 2),  # more of three times the first and once the second
        ({1: steady(0.73, 0.46), 2: steady(0.71, 0.51)}, None, 1),
        ({1: steady(0.73, 0.46), 2: steady(0.695, 0.60)}, None, 1),  # 2 is below the defaults, if within the error
        ({2: steady(0.695, 0.60)}, None, 2),
        ({1: steady(0.73, 0.40), 2: steady(0.705, 0.46)}, None, 2),  # 1 falls behind in the tail
        ({1: steady(0.80, 0.40)}, None, 0),
        ({1: steady(0.70, 0.52)}, None, 1),  # no worse in one, better in the other
        ({1: steady(0.705, 0.455)}, None, 0),  # within the error in both
        ({1: steady(0.73, 0.44), 2: steady(0.71, 0.52)}, "robust", 1),
        ({1: steady(0.65, 0.62), 2: steady(0.75, 0.50)}, "tail>=0.6", 1),
        ({1: steady(0.65, 0.62), 2: steady(0.60, 0.66)}, "robust, tail>=0.6", 1),
        ({1: steady(0.65, 0.62), 2: steady(0.75, 0.50)}, "tail>=0.7", 2),  # none does: the usual weights
        ({1: steady(0.65, 0.62), 2: steady(0.75, 0.50)}, "3*robust+tail", 2),
        ({1: steady(0.70, 0.45)}, "tail", 0),
    ],
)
def test_the_finalist_is_the_point_that_is_preferred(
    others: dict[int, list[tuple[float, ...]]], prefer: str | None, finalist: int
) -> None:
    assert chosen({0: DEFAULT, **others}, Preference.read(prefer, BOTH)) == finalist


def complete(*values: tuple[float, ...]) -> list[FrozenTrial]:
    trials = [create_trial(values=list(of_trial)) for of_trial in values]
    for number, trial in enumerate(trials):
        trial.number = number
    return trials


def test_the_race_halves_the_field_at_every_seed_and_the_defaults_run_along() -> None:
    trials = complete((0.1, 0.1), *((0.5 + number / 100, 0.5) for number in range(1, 9)))
    found = dict[int, list[tuple[float, ...]]]()

    def numbers(turn: int) -> list[int]:
        return [trial.number for trial in contenders(trials, found, 5, turn, ANY)]

    assert numbers(0) == [8, 7, 6, 5, 4, 0]
    found |= {8: [(0.1, 0.1)], 7: [(0.65, 0.7)], 6: [(0.66, 0.6)], 5: [(0.6, 0.5)], 0: [(0.9, 0.9)]}  # 4 has failed
    assert numbers(1) == [7, 6, 5, 0]
    found[5] = [(0.6, 0.5), (0.9, 0.9)]
    found[6] = [(0.7, 0.5), (0.2, 0.2)]
    assert numbers(2) == [5, 7, 0]
    assert numbers(1) == [7, 6, 5, 0], "the turns before stay as they were"


def test_ends_of_the_front_are_confirmed_trials_that_lead_the_finalist_beyond_the_error() -> None:
    found = {0: DEFAULT, 1: steady(0.73, 0.44), 2: steady(0.71, 0.52), 3: [(0.9, 0.9)], 4: steady(0.735, 0.40)}
    assert ends(found, 2, BOTH) == {"robust": 4}
    assert ends(found, 1, BOTH) == {"tail": 2}, "4 leads 1 within the error"
    assert ends({0: DEFAULT, 1: steady(0.6, 0.4)}, 0, BOTH) == {}
    assert ends({}, None, BOTH) == {}


@given(st.lists(st.floats(-1, 1) | st.sampled_from([NAN, None]), min_size=1, max_size=12))
def test_a_score_that_is_missing_or_no_number_ranks_below_every_other(found: list[float | None]) -> None:
    finite = [score for score in found if score is not None and math.isfinite(score)]
    assert sorted(found, key=rank, reverse=True)[: len(finite)] == sorted(finite, reverse=True)


def test_a_confirmation_without_a_number_counts_as_none(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    for key, score in (("0000-s0", 0.5), ("0000-s1", NAN), ("0001-s0", NAN), ("0002-s0", 0.4)):
        job = Job("confirm", f"confirm-{key}", Config(), "train", str(tmp_path))
        record.started(job, 0)
        record.reported(job, Report(1, "confirmed", values={"confirm/robust_acc": score}))
    assert scores(record, ROBUST) == {0: [(0.5,)], 2: [(0.4,)]}


def test_the_best_epoch_is_one_with_a_number_and_what_is_not_finite_is_no_measurement(tmp_path: Path) -> None:
    record, job = Record.open(tmp_path), Job("trial", "trial-0000", Config(), "train", str(tmp_path))
    record.started(job, 0)
    for epoch, score in enumerate((NAN, 0.5, 0.75, 0.25), 1):
        record.reported(job, Report(epoch, values={SCORE: score, "train/kl_loss": math.inf}))
    record.ended(job, "done", "")
    told = {point.name: point.value for point in best_and_final(record.jobs[job.key])}
    assert told == {"best/epoch": 3, "best/robust_acc": 0.75, "final/robust_acc": 0.25}
    assert {(point.name, point.step) for point in expected(record.jobs[job.key])} == {
        *((SCORE, epoch) for epoch in (2, 3, 4)),
        *((name, 4) for name in told),
    }
