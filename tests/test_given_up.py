"""Jobs that Ray Tune gives up, though they have not failed, are handed out again."""

from dataclasses import replace
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution

from ltsd.config import Config
from ltsd.data import Splits
from sweeps.dispatch.dispatcher import Dispatcher
from sweeps.dispatch.plan import Plan
from sweeps.journal.exchange import SharedFolder
from sweeps.journal.jobs import BEGINS, Job, Report
from sweeps.journal.record import Record
from sweeps.machines.machine import OwnMachine
from sweeps.settings.flags import Settings
from sweeps.study.search import Search
from sweeps.study.searcher import Study
from sweeps.worker.teachers import TeacherStore


@pytest.fixture
def dispatched(tmp_path: Path, small: Config, splits: Splits) -> tuple[Dispatcher, Record]:
    """Two trials of AT-BSL and a final run of AT, one job at a time."""
    asked = Settings(storage=str(tmp_path), name="night", trials=2, confirm=1, final_seeds=1, objectives="robust")
    settings = replace(asked, final_attack="none", reference_attack="none", references="at", concurrency=1)
    settings.folder.mkdir()
    record = Record.open(settings.folder)
    config = small.override({"method": "at-bsl"})
    study = Study(record, 0, {"optim.lr": FloatDistribution(0.05, 0.2, log=True)}, settings.maximised)
    machines, exchange, store = OwnMachine(settings), SharedFolder(), TeacherStore(tmp_path, splits)
    plan = Plan(settings, config, [Search(config, config, study)], record, store, machines, exchange)
    return Dispatcher(plan, record, [study], [], machines, exchange, []), record


def test_a_job_that_ray_gives_up_while_it_waits_for_a_worker_goes_on_after_its_last_epoch(
    dispatched: tuple[Dispatcher, Record],
) -> None:
    dispatcher, record = dispatched
    key = Job.of(dispatcher.suggest("one")).key
    dispatcher.reported("one", Report(0, BEGINS, host="10.0.0.1"))
    dispatcher.reported("one", Report(1, values={"train_loss": 1.0}))
    dispatcher.on_trial_complete("one", error=True)
    assert record.jobs[key].outcome is None
    assert Job.of(dispatcher.suggest("two")).key == key
    known = record.jobs[key].epochs[1]
    assert dispatcher.reported("two", Report(1, BEGINS, past=(known,), host="10.0.0.2"))
    assert record.jobs[key].hosts == ["10.0.0.1", "10.0.0.2"]
    assert record.jobs[key].last_epoch == 1
