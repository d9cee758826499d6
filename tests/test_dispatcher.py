"""What becomes of what workers report, without Ray: on record first, once, and whatever dies in between."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dispatching import EPOCHS, HOST, Process, Room, reports, sweep_in
from ray import tune

from ltsd.config import Config
from ltsd.data import Splits
from sweeps.dispatch import dispatcher, running, tuner
from sweeps.dispatch.running import DEATHS
from sweeps.dispatch.tuner import run_jobs
from sweeps.journal.exchange import SharedFolder
from sweeps.journal.jobs import BEGINS, Job, Kind, Report
from sweeps.journal.record import JobRecord, Record
from sweeps.machines.machine import OwnMachine

ROBUST = "val/robust_acc"


def epoch(number: int, score: float = 0.5) -> Report:
    return Report(number, values={ROBUST: score, "val/tail_robust_acc": score})


def begins(*past: Report, host: str = HOST) -> Report:
    return Report(len(past), BEGINS, past=past, host=host)


@pytest.fixture
def opened(storage: Path, small: Config, splits: Splits) -> Callable[..., Process]:
    """Opens a sweep; a second time, as the next process does."""

    def of(jobs: int = 1, rungs: Any = (), listeners: Any = (), **settings: Any) -> Process:
        knobs = {"method": "at-bsl"} if "method" not in settings else {"method": settings.pop("method")}
        return Process(sweep_in(storage, small, knobs, **settings), splits, Room(jobs), rungs, listeners)

    return of


def first_of(kind: Kind, process: Process) -> tuple[str, Job]:
    """Run jobs until one of a kind is handed out; return Ray's name for it, and the job."""
    name, job = process.ask()
    while job is not None and job.kind != kind:
        for report in reports(job):
            process.dispatcher.reported(name, report)
        process.dispatcher.on_trial_complete(name)
        name, job = process.ask()
    assert job is not None
    return name, job


WHOLE = (epoch(1), epoch(2))
CONFIRMED, EXAMINED = (Report(EPOCHS, phase, values={"x": 0.5}, exam={}) for phase in ("confirmed", "examined"))
ENDINGS: list[tuple[Kind, tuple[Report, ...], str, str]] = [
    ("trial", (begins(), *WHOLE), "done", ""),
    ("trial", (begins(*WHOLE),), "done", ""),  # its last worker died after the last epoch
    ("trial", (begins(), epoch(1)), "failed", "it ended after epoch 1 of 2"),
    ("trial", (begins(),), "failed", "it ended after epoch 0 of 2"),
    ("trial", (), "failed", "it ended after epoch 0 of 2"),
    ("trial", (Report(0, failure="no memory"),), "failed", "no memory"),
    ("trial", (begins(), epoch(1), Report(0, failure="it diverged")), "failed", "it diverged"),
    *(
        ("trial", (begins(), epoch(1), epoch(2, none)), "failed", f"its last {ROBUST} is {none}, which cannot be")
        for none in (math.nan, math.inf)
    ),
    ("teacher", (begins(), epoch(1)), "done", ""),
    ("teacher", (Report(1, "reused"),), "reused", ""),
    ("teacher", (begins(),), "failed", "it ended after epoch 0 of 1"),
    ("confirm", (begins(*WHOLE), CONFIRMED), "done", ""),
    ("confirm", (begins(*WHOLE),), "failed", "it ended after epoch 2 of 2"),
    ("final", (begins(), *WHOLE, Report(EPOCHS, "PGD-20"), EXAMINED), "done", ""),
    ("final", (begins(), *WHOLE, Report(EPOCHS, "PGD-20")), "failed", "it ended after epoch 2 of 2"),
    ("final", (begins(*WHOLE), EXAMINED), "done", ""),
]


@pytest.mark.parametrize(("kind", "said", "outcome", "reason"), ENDINGS)
def test_how_a_job_ended_is_what_its_workers_said_last(
    opened: Any, kind: Kind, said: tuple[Report, ...], outcome: str, reason: str
) -> None:
    process = opened(method="ltsd", trials=1)
    name, job = first_of(kind, process)
    for report in said:
        assert process.dispatcher.reported(name, report) == (not report.failure)
    process.dispatcher.on_trial_complete(name)
    known = process.record.jobs[job.key]
    assert (known.outcome, known.reason[: len(reason) or None]) == (outcome, reason)
    assert process.record.is_done(job) == (outcome != "failed")


class Reader:
    """A listener that reads the journal whenever it hears of something."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.heard = folder, list[tuple[str, int]]()

    def _hear(self, what: str, known: JobRecord, number: int) -> None:
        assert Record.read(self._folder).jobs[known.job.key] == known, f"{what} is not on record yet"
        self.heard.append((what, number))

    def started(self, known: JobRecord) -> None:
        self._hear("started", known, known.last_epoch)

    def reported(self, known: JobRecord, report: Report) -> None:
        self._hear(report.phase, known, report.epoch)

    def ended(self, known: JobRecord) -> None:
        self._hear(str(known.outcome), known, known.last_epoch)


def test_listeners_hear_of_what_is_on_record_of_every_epoch_once(opened: Any, storage: Path) -> None:
    """Also of epochs of which the driver heard nothing, since the worker died before; and not of repeated ones."""
    reader = Reader(storage / "one")
    process = opened(listeners=(reader,), trials=0, references="at")
    name, job = process.ask()
    for report in (begins(), epoch(1), begins(*WHOLE), Report(EPOCHS, "PGD-20"), begins(epoch(1)), epoch(2), EXAMINED):
        assert process.dispatcher.reported(name, report)
    process.dispatcher.on_trial_complete(name)
    assert reader.heard == [
        *(("started", 0), ("train", 1)),
        *(("started", 1), ("train", 2), ("PGD-20", 2)),
        *(("started", 2), ("examined", 2), ("done", 2)),
    ]
    assert process.record.jobs[job.key].redone == 1


def deaths(process: Process, name: str, *past: Report, count: int, host: str = HOST) -> list[bool]:
    """Let so many workers begin, one after the death of another; returns whether each may go on."""
    return [process.dispatcher.reported(name, begins(*past, host=host)) for _ in range(count)]


def test_a_job_that_kills_several_workers_in_a_row_in_one_epoch_is_given_up(opened: Any) -> None:
    process = opened(trials=1)
    name, job = process.ask()
    assert all(deaths(process, name, count=1 + DEATHS))
    assert all(deaths(process, name, epoch(1), count=1 + DEATHS)), "an epoch was trained in between"
    assert deaths(process, name, epoch(1), count=1) == [False]
    process.dispatcher.on_trial_complete(name)
    assert process.record.jobs[job.key].reason == f"{DEATHS + 1} workers in a row died after epoch 1"


def test_workers_that_die_with_their_host_do_not_count(opened: Any) -> None:
    process = opened(trials=1)
    name, _ = process.ask()
    for number in range(3 * DEATHS):
        assert deaths(process, name, count=1, host=f"10.0.0.{number}") == [True]
        process.room.gone.add(f"10.0.0.{number}")


def test_a_job_whose_workers_die_before_they_begin_is_given_up_too(opened: Any) -> None:
    process = opened(trials=1)
    name, job = process.ask()
    for _ in range(2):
        assert all(process.dispatcher.died(name) for _ in range(DEATHS))
        assert process.dispatcher.reported(name, begins())
    assert [process.dispatcher.died(name) for _ in range(DEATHS + 1)] == [True] * DEATHS + [False]
    process.dispatcher.on_trial_complete(name)
    reason = f"{DEATHS + 1} workers in a row died without a report in between"
    assert process.record.jobs[job.key].reason == reason


@pytest.mark.slow
def test_ray_hears_that_a_job_is_given_up_and_runs_the_next(
    storage: Path, small: Config, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the second death, to save the time that a worker takes to start."""

    def kill_or_report(params: dict[str, Any], **given: Any) -> None:
        if params["job.key"] == "final-natural-s0":
            os._exit(1)
        tune.report(Report(0, failure="it reports").message())

    monkeypatch.setattr(tuner, "run_job", kill_or_report)
    for module in (dispatcher, running):
        monkeypatch.setattr(module, "DEATHS", 1)
    sweep = sweep_in(storage, small, trials=0, references="natural,at", concurrency=1)
    machine = OwnMachine(sweep.settings)
    machine.start(sweep.settings.folder, splits, SharedFolder())
    try:
        process = Process(sweep, splits, machine)
        run_jobs(process.dispatcher, machine, SharedFolder(), [])
    finally:
        machine.stop()
    reasons = {key: known.reason for key, known in process.record.jobs.items()}
    died = "2 workers in a row died without a report in between"
    assert reasons == {"final-natural-s0": died, "final-at-s0": "it reports"}


@pytest.mark.slow
def test_ray_gives_the_shards_of_an_exam_to_a_worker_that_has_nothing_else(
    storage: Path, small: Config, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker of the final run waits for them here, which it does not in sweeps."""

    def attack_or_wait(params: dict[str, Any], **given: Any) -> None:
        job = Job.of(params)
        if job.kind == "shard":
            job.shards.mkdir(parents=True, exist_ok=True)
            (job.shards / job.shard).touch()
            return
        past = tuple(Report(number, values={"train/loss": 0.5}) for number in range(1, EPOCHS + 1))
        tune.report(Report(EPOCHS, BEGINS, past=past, host=HOST).message())
        tune.report(Report(EPOCHS, "AutoAttack a", left=("b", "c")).message())
        begun = time.monotonic()
        while not ((job.shards / "b").exists() and (job.shards / "c").exists()) and time.monotonic() < begun + 60:
            time.sleep(0.1)
        seconds = time.monotonic() - begun
        tune.report(Report(EPOCHS, "examined", values={"test/seconds": seconds}, exam={}).message())

    monkeypatch.setattr(tuner, "run_job", attack_or_wait)
    sweep = sweep_in(storage, small, trials=0, references="at", concurrency=2)
    machine = OwnMachine(sweep.settings)
    machine.start(sweep.settings.folder, splits, SharedFolder())
    try:
        process = Process(sweep, splits, machine)
        run_jobs(process.dispatcher, machine, SharedFolder(), [])
    finally:
        machine.stop()
    (known,) = process.record.jobs.values()
    assert (known.outcome, known.redone) == ("done", 0)
    assert known.result is not None
    assert known.result.values["test/seconds"] < 60
    assert not known.job.shards.exists()


def test_a_trial_in_the_worse_half_is_stopped_at_a_rung_and_nowhere_else(opened: Any) -> None:
    process = opened(jobs=9, rungs=[2], trials=6)
    names = [process.ask()[0] for _ in range(6)]
    for name, score in zip(names, (0.5, 0.6, 0.7, 0.8, 0.1, 0.9), strict=True):
        for report in (begins(), epoch(1, score)):
            assert process.dispatcher.reported(name, report)
        assert process.dispatcher.reported(name, epoch(2, score)) == (score != 0.1)
    process.dispatcher.on_trial_complete(names[4])
    known = process.record.jobs["trial-0004"]
    assert (known.outcome, process.studies[0].trials()[4].state.name) == ("pruned", "PRUNED")


def test_a_trial_whose_worker_died_at_a_rung_is_compared_when_the_next_one_begins(opened: Any) -> None:
    process = opened(jobs=9, rungs=[1], trials=5)
    *others, last = [process.ask()[0] for _ in range(5)]
    for name in others:
        assert process.dispatcher.reported(name, epoch(1, 0.8))
    assert process.dispatcher.reported(last, begins())
    assert not process.dispatcher.reported(last, begins(epoch(1, 0.2)))


@pytest.mark.parametrize("how", ["a worker says so", "the journal cannot be written"])
def test_a_sweep_that_halts_settles_nothing_hands_out_nothing_and_goes_on_later(opened: Any, how: str) -> None:
    process = opened(jobs=2, trials=3)
    (one, _), (other, _) = process.ask(), process.ask()
    for name in (one, other):
        assert process.dispatcher.reported(name, begins())
    if how == "a worker says so":
        assert not process.dispatcher.reported(one, Report(0, failure="No space left on device", halts=True))
    else:
        process.record._file = os.open("/dev/full", os.O_WRONLY)
        assert not process.dispatcher.reported(one, epoch(1))
    assert "No space left on device" in process.dispatcher.halted
    assert not process.dispatcher.reported(other, epoch(1)), "what cannot be recorded is not acknowledged"
    for name in (one, other):
        process.dispatcher.on_trial_complete(name)
    assert process.ask() == ("over", None)
    process.close()
    again = opened(jobs=2, trials=3)
    assert [(known.outcome, known.epochs) for known in again.record.jobs.values()] == [(None, {})] * 2
    jobs = [again.ask()[1] for _ in range(3)]
    assert [job and job.key for job in jobs] == ["trial-0000", "trial-0001", "trial-0002"]


def test_of_a_job_that_is_over_the_spare_checkpoint_goes_and_the_last_one_stays(opened: Any) -> None:
    process = opened(trials=1)
    name, job = process.ask()
    for report in reports(job):
        assert process.dispatcher.reported(name, report)
        assert job.spare.exists() == (report.epoch == EPOCHS)
    process.dispatcher.on_trial_complete(name)
    assert (job.checkpoint.exists(), job.spare.exists()) == (True, False)


def test_a_job_that_ray_gives_up_while_it_waits_for_a_worker_is_next_again_and_goes_on_after_its_last_epoch(
    opened: Callable[..., Process],
) -> None:
    process = opened()
    name, job = first_of("trial", process)
    process.dispatcher.reported(name, begins(host="10.0.0.2"))
    process.dispatcher.reported(name, epoch(1))
    process.dispatcher.on_trial_complete(name, error=True)
    assert process.record.jobs[job.key].outcome is None
    name, again = process.ask()
    assert again == job
    assert process.dispatcher.reported(name, begins(epoch(1)))
    assert process.record.jobs[job.key].hosts == ["10.0.0.2", HOST]
    assert process.record.jobs[job.key].last_epoch == 1


@pytest.mark.parametrize("how", ["fails", "dies", "is given up", "comes too late"])
def test_nothing_depends_on_a_worker_that_attacks_a_shard(opened: Any, how: str) -> None:
    process = opened(jobs=2, trials=0, references="at")
    name, job = process.ask()
    for report in (begins(), *WHOLE, Report(EPOCHS, "AutoAttack a", left=("c", "d"))):
        assert process.dispatcher.reported(name, report)
    other, shard = process.ask()
    assert (shard.kind, shard.shard, shard.checkpoint) == ("shard", "d", job.checkpoint)
    if how == "fails":
        assert not process.dispatcher.reported(other, Report(0, failure="no memory"))
    elif how == "dies":
        assert [process.dispatcher.died(other) for _ in range(DEATHS + 1)] == [True] * DEATHS + [False]
    if how != "comes too late":
        process.dispatcher.on_trial_complete(other, error=how == "is given up")
        assert process.ask()[1] == job.for_shard("c"), "none is given twice"
    assert process.dispatcher.reported(name, EXAMINED)
    process.dispatcher.on_trial_complete(name)
    shard.shards.mkdir(parents=True)
    process.dispatcher.on_trial_complete(other if how == "comes too late" else "ray-3")
    assert not shard.shards.exists()
    assert process.ask() == ("over", None)
    assert [known.outcome for known in process.record.jobs.values()] == ["done"]
