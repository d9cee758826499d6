"""What each store of a sweep carries, by itself, with one writer, as the driver is: operations a second."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import optuna

from ltsd.config import Config
from ltsd.data import load_splits
from sweeps.journal.jobs import Job, Report
from sweeps.journal.record import Record
from sweeps.settings.groups import groups_named
from sweeps.settings.objectives import Objectives
from sweeps.study.database import StudyStorage
from sweeps.study.space import search_space
from sweeps.study.stored import StoredStudy
from sweeps.tracking.view import MlflowView

BASE = Config.preset("digits")
TRAINED = [*(f"train/{name}" for name in ("loss", "balanced_loss", "kl_loss", "igdm_loss", "robust_acc", "lr"))]
GROUPS = ("head", "medium", "tail", "worst_class")
VALIDATED = [
    "val/robust_acc",
    "val/clean_acc",
    "val/tail_clean_acc",
    "val/fgsm_acc",
    *(f"val/{g}_robust_acc" for g in GROUPS),
]
OVER, ASKED, EPOCHS = 100, 50, range(5, 105, 5)
PICTURE_BYTES, LARGE_BYTES = 66_000, 64_000_000


def rate(act: Callable[[int], object], times: int) -> float:
    """How often a second something can be done, one after the other."""
    started = time.perf_counter()
    for number in range(times):
        act(number)
    return times / (time.perf_counter() - started)


def report(epoch: int) -> Report:
    """An epoch with validation, as a trial of LTSD on ten classes reports it."""
    values = {name: 1 / (epoch + number) for number, name in enumerate([*TRAINED, *VALIDATED], 1)}
    return Report(epoch, values=values, per_class={"clean": [0.5] * 10, "robust": [0.25] * 10})


def of_journal(folder: Path) -> dict[str, float]:
    """Lines a second, each on the disk before the next."""
    record, job = Record.open(folder), Job("trial", "trial-0000", BASE, "train", str(folder))
    record.started(job, 0)
    return {"reports": rate(lambda n: record.reported(job, report(n + 1)), 1000)}


def of_study(place: StudyStorage, running: int) -> dict[str, float]:
    """Operations a second on a stored study of which so many trials run, and some are over."""
    space = search_space(BASE, 20.0, (), groups_named(None, BASE.method))
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(OVER + running):
        trial = study.ask(dict(space))
        if number < OVER:
            study.tell(trial, number / OVER)
    stored = StoredStudy(place, Objectives.named("robust"), print)
    stored.bring(study.get_trials(deepcopy=False))
    asked: list[optuna.Trial] = []

    def brought(act: Callable[[int], object]) -> Callable[[int], object]:
        return lambda number: (act(number), stored.bring(study.get_trials(deepcopy=False)))

    return {
        "asks": rate(brought(lambda _: asked.append(study.ask(dict(space)))), ASKED),
        "reports": rate(brought(lambda n: asked[n % ASKED].report(0.5, EPOCHS[n // ASKED])), ASKED * len(EPOCHS)),
        "ends": rate(brought(lambda n: study.tell(asked[n], 0.5)), ASKED),
    }


def of_mlflow(uri: str, folder: Path) -> dict[str, float]:
    """Writes a second: runs begun, reports, runs ended with their pictures; and bytes a second of a large file."""
    logged, record = 20, Record.open(folder)
    view = MlflowView(uri, folder.name, "", BASE, load_splits(BASE.data), {"": ["distill.temperature"]})
    view.open()
    jobs = [Job("trial", f"trial-{number:04d}", BASE, "train", str(folder)) for number in range(logged)]
    for job in jobs:
        record.started(job, 0)
        job.pictures.mkdir(parents=True)
        (job.pictures / "all.png").write_bytes(os.urandom(PICTURE_BYTES))
    known = [record.jobs[job.key] for job in jobs]

    def one_more(n: int) -> None:
        record.reported(jobs[n % logged], report(n // logged + 1))
        view.bring(known[n % logged])

    found = {
        "begins": rate(lambda n: view.bring(known[n]), logged),
        "reports": rate(one_more, 10 * logged),
    }
    for job in jobs:
        record.ended(job, "done", "")
    found["ends"] = rate(lambda n: view.bring(known[n]), logged)
    large = folder / "large"
    large.write_bytes(os.urandom(LARGE_BYTES))
    found["bytes"] = LARGE_BYTES * rate(lambda n: view.finish({}, 0, [large], None), 1)
    return found
