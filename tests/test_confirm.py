"""Who becomes the finalist."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltsd.config import Config
from sweeps.dispatch.running import Running
from sweeps.findings.confirm import SCORE, chosen, scores
from sweeps.journal.jobs import Job, Report, rank
from sweeps.journal.record import Record
from sweeps.study.searcher import OBJECTIVE
from sweeps.tracking.points import best_and_final, expected

NAN = math.nan


@pytest.mark.parametrize(
    ("scores", "finalist"),
    [
        ({}, None),
        ({3: [0.7, 0.6, 0.65]}, 3),
        ({0: [0.70, 0.72, 0.74], 5: [0.80, 0.81, 0.82]}, 5),
        ({0: [0.716, 0.758, 0.747], 10: [0.741, 0.743, 0.752]}, 0),
        ({0: [0.75, 0.76, 0.77], 2: [0.70, 0.71, 0.72]}, 0),
        ({4: [0.70, 0.71, 0.72], 2: [0.71, 0.72, 0.73]}, 2),
        ({0: [0.70, 0.72, 0.74], 5: [0.76]}, 0),
        ({0: [0.70, 0.72, 0.74], 5: [0.80, 0.82]}, 0),
        ({0: [0.70], 5: [0.76]}, 0),
        ({3: [0.70], 5: [0.76]}, 5),
    ],
)
def test_the_defaults_give_way_only_to_a_lead_beyond_its_standard_error(
    scores: dict[int, list[float]], finalist: int | None
) -> None:
    assert chosen(scores) == finalist


@given(st.lists(st.floats(-1, 1) | st.sampled_from([NAN, None]), min_size=1, max_size=12))
def test_a_score_that_is_missing_or_no_number_ranks_below_every_other(found: list[float | None]) -> None:
    finite = [score for score in found if score is not None and math.isfinite(score)]
    assert sorted(found, key=rank, reverse=True)[: len(finite)] == sorted(finite, reverse=True)


def test_a_confirmation_without_a_number_counts_as_none(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    for key, score in (("0000-s0", 0.5), ("0000-s1", NAN), ("0001-s0", NAN), ("0002-s0", 0.4)):
        job = Job("confirm", f"confirm-{key}", Config(), "train", str(tmp_path))
        record.started(job, 0)
        record.reported(job, Report(1, "confirmed", values={SCORE: score}))
    assert scores(record) == {0: [0.5], 2: [0.4]}


def test_the_best_epoch_is_one_with_a_number_and_what_is_not_finite_is_no_measurement(tmp_path: Path) -> None:
    record, job = Record.open(tmp_path), Job("trial", "trial-0000", Config(), "train", str(tmp_path))
    record.started(job, 0)
    for epoch, score in enumerate((NAN, 0.5, 0.75, 0.25), 1):
        record.reported(job, Report(epoch, values={OBJECTIVE: score, "train/kl_loss": math.inf}))
    record.ended(job, "done", "")
    told = {point.name: point.value for point in best_and_final(record.jobs[job.key])}
    assert told == {"best/epoch": 3, "best/robust_acc": 0.75, "final/robust_acc": 0.25}
    assert {(point.name, point.step) for point in expected(record.jobs[job.key])} == {
        *((OBJECTIVE, epoch) for epoch in (2, 3, 4)),
        *((name, 4) for name in told),
    }


@pytest.mark.parametrize(("score", "outcome"), [(0.5, "done"), (NAN, "failed"), (math.inf, "failed")])
def test_a_trial_whose_last_score_is_no_number_has_failed(score: float, outcome: str) -> None:
    config = Config()
    job = Job("trial", "trial-0000", config, "train", "runs")
    running = Running(job, last=Report(config.epochs, values={OBJECTIVE: score}))
    assert running.outcome()[0] == outcome
