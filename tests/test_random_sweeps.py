"""Sweeps at random, without Ray: jobs end in any order, fail, kill their workers, and the sweep is broken off."""

import itertools
import json
import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dispatching import ENDS, Fate, Process, Room, reports, sweep_in
from hypothesis import given, settings
from hypothesis import strategies as st

from ltsd.config import Config
from ltsd.data import Splits
from sweeps.dispatch.running import DEATHS
from sweeps.journal.jobs import Job, Report
from sweeps.journal.record import JobRecord, Record
from sweeps.settings.sweep import JOURNAL_FILE, Sweep

ENDLESS = 5_000
"""More steps than any of these sweeps takes."""
SWEEPS: Mapping[str, Mapping[str, Any]] = {
    "one search": {"trials": 4, "confirm": 2, "final_seeds": 2},
    "tuned rivals": {"trials": 3, "confirm": 1, "compare": "tuned", "references": "ltsd,at-bsl,ltsd+robustlt"},
    "no search": {"trials": 0, "references": "ltsd,at,ltsd+clean-teacher", "final_seeds": 2},
}


class Worker:
    """A worker with its job, and what it reports of it."""

    def __init__(self, job: Job, fate: str) -> None:
        self.job, self._fate, self.deaths = job, fate, 0
        self.told = self._begun()

    def _begun(self) -> Iterator[Report]:
        said = {"kills its workers": 1, "lets no worker begin": 0}.get(self._fate)
        return itertools.islice(reports(self.job, self._fate), said)

    def is_dead(self, is_silent: bool) -> bool:
        return is_silent and self._fate in ("kills its workers", "lets no worker begin")

    def replace(self) -> None:
        """Begin again, in another process."""
        self.deaths += 1
        self.told = self._begun()


class Pool:
    """Workers as Ray runs them, in an order that is drawn. Some die, also before their last report is heard."""

    def __init__(self, process: Process, draw: random.Random, fate: Fate, mortality: float) -> None:
        self._process, self._draw, self._fate, self._mortality = process, draw, fate, mortality
        self._live: dict[str, Worker] = {}
        self.handed: list[Job] = []

    def is_over_after(self, steps: int) -> bool:
        """Go so many steps; return whether the sweep ended before."""
        return any(self._is_over() for _ in range(steps))

    def _is_over(self) -> bool:
        at_work = list(self._live)[: self._process.room.jobs]
        if at_work and self._draw.random() < 0.7:
            self._go_on(self._draw.choice(at_work))
            return False
        name, job = self._process.ask()
        if job is not None:
            live = [worker.job for worker in self._live.values()]
            assert job.title not in {one.title for one in live}, f"{job.title} is handed out twice"
            self._live[name] = Worker(job, self._fate(job))
            if job.kind != "shard":
                self.handed.append(job)
            else:
                assert job.key in {one.key for one in live if one.kind == "final"}, f"{job.title} is of no exam"
                assert len(live) < self._process.room.jobs, "a worker that is not idle helps"
        assert self._live or name == "over", "nothing runs, and nothing is next"
        assert not (self._live and name == "over"), "the sweep ends while jobs run"
        return name == "over"

    def _go_on(self, name: str) -> None:
        worker, dispatcher = self._live[name], self._process.dispatcher
        report = next(worker.told, None)
        if worker.is_dead(report is None) or (worker.deaths < DEATHS and self._draw.random() < self._mortality):
            goes_on = dispatcher.died(name)
            worker.replace()
        else:
            goes_on = report is not None and dispatcher.reported(name, report)
        if not goes_on:
            del self._live[name]
            dispatcher.on_trial_complete(name)


def fated(seed: int, rate: float) -> Fate:
    """Let a share of the jobs end badly, the same ones in every order."""

    def fate(job: Job) -> str:
        draw = random.Random(f"{seed} {job.key}")
        return draw.choice(ENDS) if draw.random() < rate else ""

    return fate


def run(
    sweep: Sweep, splits: Splits, fate: Fate, draw: random.Random, rungs: tuple[int, ...], breaks: int, mortality: float
) -> Record:
    """Run a sweep to its end; it is broken off so many times, and each process has another room."""
    for left in reversed(range(breaks + 1)):
        process = Process(sweep, splits, Room(draw.randint(1, 4)), rungs)
        pool = Pool(process, draw, fate, mortality)
        is_over = pool.is_over_after(draw.randint(1, 60) if left else ENDLESS)
        process.close()
        assert not process.done_before & {job.key for job in pool.handed}, "what is done is handed out again"
        if is_over:
            hold_to_the_plan(process, pool.handed)
            assert not list(sweep.settings.folder.glob("correctness/*.shards")), "shards are left"
            break
    assert is_over, "the sweep does not end"
    return Record.read(sweep.settings.folder)


def hold_to_the_plan(process: Process, handed: list[Job]) -> None:
    """A process that came to the end has handed out each job once and has told how many final runs it makes."""
    record, keys = process.record, [job.key for job in handed]
    twice = [record.jobs[key] for key in keys if keys.count(key) > 1]
    assert all((known.job.kind, known.outcome) == ("teacher", "failed") for known in twice)
    assert not process.dispatcher.halted
    finals = {known.job.key for known in record.of_kind("final")}
    assert process.plan.final_runs == len(finals - process.done_before)
    for study in process.studies:
        assert len(study.finished()) == study.asked


def hold_to_the_fates(record: Record, folder: Path, fate: Fate) -> None:
    """Every job has its end, a good one once and for all; students of a teacher that failed never ran."""
    teachers = {known.job.teacher: known for known in record.of_kind("teacher")}
    for key, ends in ends_of_jobs(folder).items():
        known, teacher = record.jobs[key], teachers.get(record.jobs[key].job.teacher)
        assert known.outcome is not None
        assert set(ends[:-1]) <= {"failed"}, f"{key} went on after its end: {ends}"
        assert known.job.kind != "trial" or len(ends) == 1
        if known.outcome == "done":
            assert sorted(known.epochs) == list(range(1, known.job.config.epochs + 1))
        if known is not teacher and teacher is not None and teacher.outcome == "failed":
            assert (known.outcome, known.epochs) == ("failed", {})
            assert known.reason == f"its teacher failed ({teacher.reason})"
        elif known.outcome != "pruned":
            assert (known.outcome == "failed") == is_bad(known.job, fate), f"{key} {known.outcome}: {known.reason}"


def ends_of_jobs(folder: Path) -> dict[str, list[str]]:
    """The outcomes of each job by the journal, in order."""
    events = [json.loads(line[9:]) for line in (folder / JOURNAL_FILE).read_text().splitlines()]
    ends: dict[str, list[str]] = {event["job"]: [] for event in events if event["what"] == "started"}
    for event in events:
        if event["what"] == "ended":
            ends[event["job"]].append(event["outcome"])
    return ends


def is_bad(job: Job, fate: Fate) -> bool:
    """Whether a job fails that has its teacher; a number is only asked of a trial."""
    return fate(job) not in ("", *(["has no number"] if job.kind != "trial" else []))


def told(known: JobRecord) -> tuple[Any, ...]:
    """What a job was, whether it ended well, and what was measured; of a teacher no driver may have heard the last."""
    job, is_well = known.job, known.outcome != "failed"
    told = repr([{epoch: one.values for epoch, one in known.epochs.items()}, known.result and known.result.values])
    measured = told if is_well and job.kind != "teacher" else ""
    return job.config, job.part, job.exam, job.row, Path(job.teacher).name, is_well, measured


@contextmanager
def swept(memory: Path, small: Config, kind: str, **changed: Any) -> Iterator[Sweep]:
    """A sweep, which is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield sweep_in(Path(folder), small, **SWEEPS[kind] | changed)


@settings(max_examples=6)
@given(
    kind=st.sampled_from(list(SWEEPS)),
    bad=st.sampled_from([0.0, 0.1, 0.4]),
    breaks=st.integers(0, 4),
    mortality=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 10_000),
)
def test_in_whatever_order_jobs_end_they_are_those_of_a_sweep_in_peace(
    memory: Path, small: Config, splits: Splits, kind: str, bad: float, breaks: int, mortality: float, seed: int
) -> None:
    found, fate = [], fated(seed, bad)
    for interference in ((0, 0.0), (breaks, mortality)):
        with swept(memory, small, kind) as sweep:
            record = run(sweep, splits, fate, random.Random(seed), (), *interference)
            hold_to_the_fates(record, sweep.settings.folder, fate)
            found.append({key: told(known) for key, known in record.jobs.items()})
    assert found[0] == found[1]


@settings(max_examples=3)
@given(breaks=st.integers(0, 4), seed=st.integers(0, 10_000))
def test_where_trials_are_stopped_early_every_job_still_ends_once(
    memory: Path, small: Config, splits: Splits, breaks: int, seed: int
) -> None:
    """Which ones depends on the order, since a trial is compared with those that came so far before it."""
    with swept(memory, small, "one search", trials=9) as sweep:
        record = run(sweep, splits, fated(seed, 0.1), random.Random(seed), (1,), breaks, 0.1)
        hold_to_the_fates(record, sweep.settings.folder, fated(seed, 0.1))
