"""What the tests of the dispatch share: a driver's process up to Ray, and workers that train nothing.

A worker reports what `sweeps/worker/trial.py` does, in the same order, and keeps the same files. Its numbers depend on
its job alone.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltsd.checkpoint import load_checkpoint, save_checkpoint
from ltsd.config import Config
from ltsd.data import Splits
from ltsd.evaluation.exam import parts_of
from ltsd.evaluation.medium import IMAGES
from ltsd.knobs import Value
from sweeps.dispatch.dispatcher import Dispatcher, Listener
from sweeps.dispatch.plan import Plan
from sweeps.journal.exchange import SharedFolder
from sweeps.journal.jobs import BEGINS, Job, Report, history, keep_checkpoint, newest_checkpoint
from sweeps.journal.record import open_mended
from sweeps.results.confirm import trial_of
from sweeps.settings.flags import Settings
from sweeps.settings.sweep import Sweep
from sweeps.startup import search_of
from sweeps.study.searcher import trial_number
from sweeps.study.space import sweep_space
from sweeps.worker.teachers import TeacherStore, is_trained, settle_teachers

EPOCHS = 2
FIXED = {"epochs": EPOCHS, "evaluate.every": 1, "teacher.epochs": 1}
SCORES = {0: 0.5, 1: 0.8, 2: 0.7, 3: 0.6}
"""The accuracy of each trial, but for a little that its seed adds."""
SHARDS = ("a", "b", "c", "d")
"""The shards of every exam."""
HOST = "10.0.0.1"
ENDS = ("fails at once", "diverges", "has no number", "kills its workers", "lets no worker begin")
"""How a job ends that does not end well."""

Fate = Callable[[Job], str]
"""Tells how a job ends: one of `ENDS`, or "" for well."""
Measure = Callable[[Job, int], Mapping[str, float]]
"""Tells the accuracies of a job after an epoch, or, after epoch 0, those of its last exam."""


def sweep_in(storage: Path, small: Config, set_by_user: Mapping[str, Value] | None = None, **settings: Any) -> Sweep:
    """A small sweep, with its folder."""
    asked = {"name": "one", "storage": str(storage), "search": "balance", "trials": 3, "final_seeds": 1, **settings}
    usual = Config.preset("digits").flatten()
    fixed = {name: value for name, value in small.flatten().items() if value != usual[name]}
    sweep = Sweep(Settings(**asked), fixed | FIXED | (set_by_user or {}))
    sweep.settings.folder.mkdir(parents=True, exist_ok=True)
    return sweep


class Room:
    """`Machines` of which it matters how many jobs they carry, and which hosts are gone."""

    def __init__(self, jobs: int = 1) -> None:
        self.jobs, self.gone = jobs, set[str]()

    def carries(self) -> int:
        return self.jobs

    def has(self, host: str) -> bool:
        return host not in self.gone


class Process:
    """The process of a sweep from its start up to Ray, with what is on record."""

    def __init__(
        self,
        sweep: Sweep,
        splits: Splits,
        room: Room | None = None,
        rungs: Sequence[int] = (),
        listeners: Sequence[Listener] = (),
    ) -> None:
        exchange, ratio, self.room = SharedFolder(), splits.imbalance_ratio, room or Room()
        self.record, _ = open_mended(sweep.settings.folder, exchange)
        settle_teachers(self.record, exchange)
        self.done_before = {key for key, known in self.record.jobs.items() if self.record.is_done(known.job)}
        spaces = {row: sweep_space(sweep, ratio, row) for row in sweep.searched}
        searches = tuple(search_of(sweep, row, self.record, space, ratio) for row, space in spaces.items())
        self.studies = [search.study for search in searches]
        store = TeacherStore(Path(sweep.settings.storage), splits)
        self.plan = Plan(sweep, searches, self.record, store, self.room, exchange)
        self.dispatcher = Dispatcher(self.plan, self.record, self.studies, rungs, self.room, exchange, listeners)
        self._asked = 0

    def ask(self) -> tuple[str, Job | None]:
        """Ask for a job, as Ray does; returns Ray's name for it, or "over", and the job, None for none."""
        self._asked += 1
        name = f"ray-{self._asked}"
        params = self.dispatcher.suggest(name)
        return ("over", None) if params == Dispatcher.FINISHED else (name, params and Job.of(params))

    def close(self) -> None:
        """End, as a kill does."""
        os.close(self.record._file)


def by_configuration(job: Job, epoch: int) -> dict[str, float]:
    """Measure mostly what the configuration gives, and a little of what the seed does."""
    point = job.config.flatten()
    seed = point.pop("seed")
    return {
        name: 0.5 + 0.4 * random.Random(f"{name}{point}").random() + 0.02 * random.Random(f"{seed}{epoch}").random()
        for name in ("robust_acc", "tail_robust_acc")
    }


def reports(job: Job, fate: str = "", measure: Measure = by_configuration) -> Iterator[Report]:
    """Run a job as a worker does, without training. What the worker does between two reports is done between them."""
    if job.kind == "shard":
        _attacked(job)
    elif fate == "fails at once":
        yield Report(0, failure="it failed")
    elif job.kind == "teacher" and is_trained(Path(job.teacher)):
        yield Report(job.config.epochs, "reused")
    else:
        assert job.kind == "teacher" or not job.teacher or is_trained(Path(job.teacher)), f"{job.key} lacks its teacher"
        yield from _trained(job, fate, measure)
        if fate == "diverges":
            yield Report(0, failure="it diverged")
        elif job.kind == "teacher":
            save_checkpoint(Path(job.teacher), load_checkpoint(job.checkpoint))
        elif job.kind != "trial":
            yield from _measured(job, measure)


def _trained(job: Job, fate: str, measure: Measure) -> Iterator[Report]:
    path = newest_checkpoint(job)
    past = tuple(history(load_checkpoint(path))) if path else ()
    yield Report(len(past), BEGINS, past=past, host=HOST)
    for epoch in range(len(past) + 1, job.config.epochs + (fate != "diverges")):
        values = {"train/loss": 1 / epoch}
        if job.part == "train" and job.kind != "teacher":
            values |= _named("val", {"robust_acc": float("nan")} if fate == "has no number" else measure(job, epoch))
        past = (*past, Report(epoch, values=values))
        kept = [{"epoch": one.epoch, "values": one.values, "per_class": {}} for one in past]
        keep_checkpoint(job, lambda path, kept=kept: save_checkpoint(path, {"history": kept}))  # type: ignore[misc]
        yield past[-1]


def _measured(job: Job, measure: Measure) -> Iterator[Report]:
    if job.kind == "confirm":
        yield Report(job.config.epochs, "confirmed", values=_named("confirm", measure(job, 0)))
    else:
        yield from (Report(job.config.epochs, part) for part in parts_of(IMAGES))
        for number, shard in enumerate(SHARDS):
            _attacked(job.for_shard(shard))
            yield Report(job.config.epochs, f"AutoAttack {shard}", left=SHARDS[number + 2 :])
        shutil.rmtree(job.shards)
        values = _named("test", measure(job, 0))
        yield Report(job.config.epochs, "examined", values=values, exam={"metrics": values, "doubts": []})


def _attacked(job: Job) -> None:
    job.shards.mkdir(parents=True, exist_ok=True)
    (job.shards / job.shard).touch()


def _named(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()}


class Driver(Process):
    """A process whose jobs are named by their keys, a teacher by its number; trials have the accuracies `SCORES`."""

    def __init__(self, sweep: Sweep, splits: Splits, jobs: int = 1, tail: dict[int, float] | None = None) -> None:
        super().__init__(sweep, splits, Room(jobs))
        self._scores, self._teachers = {"robust_acc": SCORES, "tail_robust_acc": tail or SCORES}, dict[str, str]()
        self.live = dict[str, tuple[str, Job]]()

    def next(self) -> str:
        """Ask for a job; return its name, "none" or "over" if there is none now, or no more."""
        name, job = self.ask()
        if job is None:
            return "over" if name == "over" else "none"
        told = job.title
        if job.kind == "teacher":
            told = self._teachers.setdefault(job.key, f"teacher {len(self._teachers)}")
        assert told not in self.live, f"{told} is handed out while it runs"
        self.live[told] = (name, job)
        return told

    def until(self, told: str, phase: str) -> None:
        """Run a job until it reports a phase."""
        name, job = self.live[told]
        for report in reports(job, "", self._measure):
            assert self.dispatcher.reported(name, report)
            if report.phase == phase:
                break

    def end(self, told: str, fate: str = "") -> None:
        """Run a job to its end."""
        name, job = self.live.pop(told)
        for report in reports(job, fate, self._measure):
            if not self.dispatcher.reported(name, report):
                break
        self.dispatcher.on_trial_complete(name)

    def rest(self, fates: Mapping[str, str] | None = None) -> list[str]:
        """Run all jobs that are left, one after another; return them."""
        run = []
        while (told := self.next()) != "over":
            assert len(run) < 100, f"the sweep does not end: {run}"
            run.append(told)
            self.end(told, (fates or {}).get(told, ""))
        return run

    def _measure(self, job: Job, epoch: int) -> dict[str, float]:
        number = {"trial": trial_number, "confirm": trial_of}.get(job.kind, lambda _: 0)(job)
        noise = 0.01 * random.Random(job.config.seed).random()
        return {name: scores[number] + noise for name, scores in self._scores.items()}
