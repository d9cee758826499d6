"""Run a job inside a Ray worker: the same `train()` as everywhere, with a checkpoint and `tune.report` after each
epoch.
"""

import errno
import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from ltsd.config import DataConfig
from ltsd.data import Splits, load_splits
from ltsd.data.longtail import class_groups
from ltsd.errors import UserError
from ltsd.evaluation.exams import EXAMS, Examined
from ltsd.precision import device_of
from ltsd.runs import Run, load_model
from ltsd.state import EpochMetrics
from ltsd.train import REMEDY, DivergedError, validate
from sweeps.journal.bucket import UnreachableError
from sweeps.journal.exchange import Exchange
from sweeps.journal.jobs import BEGINS, Job, Report, keep_checkpoint
from sweeps.worker.figures import keep_pictures
from sweeps.worker.followers import followed
from sweeps.worker.job_runs import run_of
from sweeps.worker.node_setup import NodeUnfitError, Shipment, received
from sweeps.worker.teachers import is_trained, training_lock
from sweeps.worker.usage import Usage

CONTEXT_BYTES = 600 * 2**20
"""The memory of a GPU that CUDA uses for a process besides its tensors: a generous estimate."""

STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)


def run_job(params: Mapping[str, Any], gpu_fraction: float, shipment: Shipment | None, exchange: Exchange) -> None:
    """Run one job to its end, with a `Report` at its start, after every epoch and after every part of an exam.

    Results are published before they are reported. A job that raises is reported as failed. A job whose process dies is
    started again by Ray, from its last checkpoint.
    """
    try:
        device, ranks = claim_device(gpu_fraction), max(1, int(gpu_fraction))
        with exchange.at_hand(Job.of(params)) as (job, own):
            splits = splits_of(job.config.data, shipment)
            if job.kind == "teacher":
                _make_teacher(job, splits, device, own, ranks)
            elif job.kind == "shard":
                _attack_shard(job, splits, device, own)
            else:
                _make(job, splits, device, own, ranks)
    except Exception as error:  # any error: the sweep goes on, and its record has the reason of this failure
        told = str(error) if isinstance(error, UserError | UnreachableError) else f"{type(error).__name__}: {error}"
        gone = isinstance(error, OSError) and error.errno in STORAGE_ERRORS
        halts = gone or isinstance(error, NodeUnfitError | UnreachableError)
        tune.report(Report(0, failure=told.strip(), halts=halts).message())


def _make(job: Job, splits: Splits, device: torch.device, exchange: Exchange, ranks: int) -> None:
    run = _trained(job, splits, device, exchange, ranks)
    measured = run.state.history[-1].per_class
    if job.kind == "confirm":
        measured = _confirm(job, run, splits)
    elif job.kind == "final":
        measured = _examine(job, run, splits, exchange)
    _draw(job, run, splits, measured, exchange)


def claim_device(gpu_fraction: float) -> torch.device:
    """Return the CPU with one thread, or the GPU limited to this trial's share of memory, so that a trial that runs out
    of memory fails alone.
    """
    torch.set_num_threads(1)
    if 0 < gpu_fraction < 1:
        beside = CONTEXT_BYTES / torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(max(0.0, gpu_fraction - beside))
    return device_of(gpu=gpu_fraction > 0)


def splits_of(data: DataConfig, shipment: Shipment | None) -> Splits:
    """Return the images of a job; reuse those of the last job if they are the same."""
    return _splits(data, received(shipment) if shipment else None)


@functools.lru_cache(maxsize=1)
def _splits(data: DataConfig, folder: Path | None) -> Splits:
    return load_splits(data, folder=folder)


def _trained(job: Job, splits: Splits, device: torch.device, exchange: Exchange, ranks: int) -> Run:
    """Train the run of a job, from its last checkpoint if there is one. Report the epochs of that checkpoint, then
    every new epoch.
    """
    if job.teacher and job.kind != "teacher":
        exchange.bring(Path(job.teacher))
    with followed(job, splits.folder, size=ranks, gpu=device.type == "cuda"):
        run = run_of(job, splits, device)
        print(f"training {run.data.items}: {run.data.whereabouts()}", flush=True)
        past = tuple(_report(metrics) for metrics in run.state.history)
        tune.report(Report(len(past), BEGINS, past=past, host=host()).message())
        usage = Usage(device)
        for metrics in run.epochs():
            keep_checkpoint(job, run.save)
            exchange.publish(job.checkpoint, metrics.epoch)
            tune.report(replace(_report(metrics), usage=usage.lap()).message())
    return run


def host() -> str:
    """Return Ray's address of this machine."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def _report(metrics: EpochMetrics) -> Report:
    return Report(metrics.epoch, values=metrics.values, per_class=metrics.per_class)


def _make_teacher(job: Job, splits: Splits, device: torch.device, exchange: Exchange, ranks: int) -> None:
    """Train the teacher unless it is in the store. If another process trains it now, wait for that. Its file is written
    atomically.
    """
    path = Path(job.teacher)
    with training_lock(path):
        exchange.bring(path)
        if is_trained(path):
            tune.report(Report(job.config.epochs, "reused").message())
            return
        run = _trained(job, splits, device, exchange, ranks)
        _draw(job, run, splits, run.state.history[-1].per_class, exchange)
        run.save(path)
        exchange.publish(path, job.config.epochs)


def _draw(job: Job, run: Run, splits: Splits, per_class: Mapping[str, list[float]], exchange: Exchange) -> None:
    keep_pictures(job, run, splits.val.to(run.data.rows.device), per_class)
    for path in job.pictures.iterdir():
        exchange.publish(path, job.config.epochs)


def _confirm(job: Job, run: Run, splits: Splits) -> dict[str, list[float]]:
    """Score the finished model on the reserve; return the scores of classes."""
    model = run.state.model.eval().requires_grad_(False)
    reserve = splits.reserve.to(run.data.rows.device)
    groups = class_groups(run.data.class_counts(), job.config.data.groups)
    values, per_class = validate(job.config, model, reserve, groups, "confirm")
    tune.report(Report(job.config.epochs, "confirmed", values=values, per_class=per_class).message())
    return per_class


def _examine(job: Job, run: Run, splits: Splits, exchange: Exchange) -> dict[str, list[float]]:
    """Read the test set once, with the finished model. Parts that an earlier worker finished, and shards that other
    workers attacked, are reused.

    Returns:
        The scores of classes by attack.

    Raises:
        DivergedError: the model answers NaN or infinity to an image.
    """
    model = run.state.model.eval().requires_grad_(False)
    test = splits.test.to(run.data.rows.device)
    results: list[Examined] = []
    groups = class_groups(run.data.class_counts(), job.config.data.groups)
    examine = EXAMS[job.config.task].on(splits, exchange)
    exchange.bring(job.correctness)
    for done, result in examine(model, test, groups, job.config.attack, job.exam, keep=job.correctness):
        exchange.publish(job.correctness, result.measured)
        if result.diverged:
            raise DivergedError(f"{result.diverged}; {REMEDY}")
        tune.report(Report(job.config.epochs, done, left=tuple(result.left)).message())
        results.append(result)
    result = results[-1]
    report = Report(
        job.config.epochs,
        "examined",
        values=result.values(),
        per_class=result.per_class(),
        exam=result.as_json(),
    )
    tune.report(report.message())
    return result.per_class()


def _attack_shard(job: Job, splits: Splits, device: torch.device, exchange: Exchange) -> None:
    """Attack a shard of the exam that the worker of a final run makes at the same time."""
    attack = EXAMS[job.config.task].attack_shard
    assert attack is not None, f"an exam of {job.config.task} has no shards"
    model, _ = load_model(job.checkpoint, device)
    test = splits.test.to(device)
    attack(model, test, job.config.attack, job.exam, job.shard, keep=job.correctness, sharing=exchange)
