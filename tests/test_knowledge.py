"""Points of earlier sweeps and of files, moved into the space of a new sweep."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from ltsd.config import Config
from ltsd.errors import UserError
from ltsd.knobs import Value
from sweeps.journal.jobs import Job, Report
from sweeps.journal.record import Record
from sweeps.results.knowledge import points_known
from sweeps.settings.sweep import Sweep

SPACE: dict[str, BaseDistribution] = {
    "distill.temperature": FloatDistribution(0.5, 8.0, log=True),
    "balance.teacher_gamma": CategoricalDistribution([1.0, 12.5, 25.0, 50.0]),
    "optim.lr": FloatDistribution(0.01, 0.15, log=True),
    "optim.batch_size": CategoricalDistribution([16, 32, 64]),
}
DEFAULTS: dict[str, Value] = {
    "distill.temperature": 1.0,
    "balance.teacher_gamma": 25.0,
    "optim.lr": 0.05,
    "optim.batch_size": 64,
}
EARLIER: dict[int, dict[str, Value]] = {
    0: {"distill.temperature": 1.0, "balance.teacher_gamma": 10.0, "optim.lr": 0.1, "optim.batch_size": 128},
    1: {"distill.temperature": 3.0, "balance.teacher_gamma": 20.0, "optim.lr": 0.2, "optim.batch_size": 32},
    2: {"distill.temperature": 9.0, "balance.teacher_gamma": 1.0, "optim.lr": 0.9, "optim.batch_size": 64},
    3: {"distill.temperature": 2.0, "balance.teacher_gamma": 5.0, "optim.lr": 0.1, "optim.batch_size": 128},
}
SCORES = {0: 0.9, 1: 0.6, 2: 0.7, 3: 0.5}


def earlier(storage: Path, confirmed: bool = True) -> None:
    """A sweep on data whose imbalance ratio is 20 and whose batches have 128 images."""
    sweep = Sweep.new({"name": "before", "storage": str(storage)}, {})
    with sweep.claimed():
        sweep.keep()
    record = Record.open(storage / "before")
    for number, params in EARLIER.items():
        record.proposed(number, params)
        job = Job("confirm", f"confirm-{number:04d}-s0", Config(), "train", "runs")
        record.started(job, 0)
        if confirmed:
            scores = {"confirm/robust_acc": SCORES[number], "confirm/tail_robust_acc": 0.5}
            record.reported(job, Report(1, "confirmed", values=scores))


def asking(storage: Path, source: str) -> Sweep:
    sweep = Sweep.new({"name": "now", "storage": str(storage)}, {})
    return replace(sweep, settings=replace(sweep.settings, start_from=source))


def test_the_best_confirmed_points_keep_their_ratio_to_the_defaults_inside_the_space(tmp_path: Path) -> None:
    earlier(tmp_path)
    assert points_known(asking(tmp_path, "before"), SPACE, DEFAULTS) == [
        {"distill.temperature": 8.0, "balance.teacher_gamma": 1.0, "optim.lr": 0.15, "optim.batch_size": 32},
        {"distill.temperature": 3.0, "balance.teacher_gamma": 50.0, "optim.lr": 0.1, "optim.batch_size": 16},
        {"distill.temperature": 2.0, "balance.teacher_gamma": 12.5, "optim.lr": 0.05, "optim.batch_size": 64},
    ]


def test_points_of_a_file_are_as_they_are_written_and_the_defaults_beside(tmp_path: Path) -> None:
    path = tmp_path / "points.json"
    path.write_text(json.dumps([{"optim.lr": 0.02, "awp.gamma": 0.005}, {"optim.batch_size": 32}]))
    assert points_known(asking(tmp_path, str(path)), SPACE, DEFAULTS) == [
        DEFAULTS | {"optim.lr": 0.02},
        DEFAULTS | {"optim.batch_size": 32},
    ]
    assert points_known(asking(tmp_path, ""), SPACE, DEFAULTS) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[", "cannot be read"),
        ("[1]", "1 is no point; give JSON, a list of {knob: value}"),
        ('[{"optim.rl": 0.1}]', "no knob is named 'optim.rl'; did you mean 'optim.lr'?"),
        ('[{"optim.lr": "high"}]', "'high' is no number"),
        ('[{"awp.gamma": 0.005}]', "it has points of awp.gamma, and searched are distill.temperature"),
    ],
)
def test_a_file_that_holds_no_points_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "points.json"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(told)):
        points_known(asking(tmp_path, str(path)), SPACE, DEFAULTS)


def test_a_sweep_that_is_not_there_or_confirmed_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no sweep in .*befoer; name one by --start-from"):
        points_known(asking(tmp_path, "befoer"), SPACE, DEFAULTS)
    earlier(tmp_path, confirmed=False)
    with pytest.raises(UserError, match="--start-from before: none of its trials was confirmed"):
        points_known(asking(tmp_path, "before"), SPACE, DEFAULTS)
