"""The MLflow side, and the only file that imports mlflow: runs, metrics, pictures, the registered model.

Everything is written from a thread of its own, in the order it happened: a dead or slow tracking server
never holds up training.
"""

import contextlib
import importlib.metadata
import io
import json
import logging
import os
import queue
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import torch
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from mlflow.models import infer_signature

from ltsd import pictures
from ltsd.checkpoint import CheckpointError, load_checkpoint
from ltsd.config import Config
from ltsd.data import Splits
from ltsd.data.batches import Split
from ltsd.errors import UserError
from ltsd.runs import load_model
from sweeps.jobs import Job, Report, final_model, newest_checkpoint
from sweeps.plan import Outcome
from sweeps.space import KNOBS_OF

VERSIONED = ("torch", "torchvision", "ray", "optuna", "mlflow", "pyarrow", "ltsd")
GRID_IMAGES = 10
TRAINING = {"mlflow.experimentKind": "custom_model_development"}
MAX_RUNS = 10_000
GIVE_UP_AFTER = 3
CLOSE_TIMEOUT_S = 60.0
TEACHER_KNOBS = ("balance.teacher_gamma",)
STATUS: Mapping[str, str] = {
    "done": "FINISHED",
    "reused": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
}


@dataclass
class _Live:
    """What the thread knows of a job that runs: its MLflow run and the metrics so far."""

    run_id: str
    history: dict[int, Mapping[str, float]] = field(default_factory=dict)
    per_class: Mapping[str, list[float]] = field(default_factory=dict)
    wall_start: int = 0


class Tracker:
    """A `Listener` that keeps one MLflow run per job under one parent run per sweep.

    Runs are found again by their tags `ltsd.sweep` and `ltsd.job`, so a resumed sweep goes on in them.
    """

    def __init__(
        self,
        uri: str,
        name: str,
        base: Config,
        splits: Splits,
        searched: Sequence[str],
        folder: Path,
        warn: Callable[[str], None],
    ) -> None:
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        self._client = MlflowClient(tracking_uri=uri)
        self._uri, self._name, self._base, self._splits = uri, name, base, splits
        self._searched, self._folder, self._warn = tuple(searched), folder, warn
        self._live: dict[str, _Live] = {}
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._failures_in_a_row = 0
        self._experiment_id = ""
        self._parent_id = ""
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    def open(self) -> None:
        """Reach the server, create experiment and parent run, and start the thread.

        Raises:
            UserError: nothing usable answers at the tracking URI.
        """
        try:
            experiment = self._client.get_experiment_by_name(self.experiment)
            self._experiment_id = (
                experiment.experiment_id
                if experiment
                else self._client.create_experiment(self.experiment, tags=TRAINING)
            )
            self._parent_id = self._run("sweep", "sweep", self._name).info.run_id
        except Exception as error:
            reason = without_secret(str(error), self._uri)[:160]
            raise UserError(
                f"--tracking-uri {without_password(self._uri)}: MLflow does not answer there ({reason}); start the "
                f"server, or leave the flag out to keep the records in ./mlflow.db"
            ) from None
        self._put(self._describe_parent)
        self._thread.start()

    @property
    def experiment(self) -> str:
        """The MLflow experiment of a data set."""
        return f"ltsd-{data_name(self._base.data.source)}"

    def started(self, job: Job) -> None:
        """See `Listener`."""
        self._put(lambda: self._start(job))

    def reported(self, job: Job, report: Report) -> None:
        """See `Listener`."""
        self._put(lambda: self._report(job, report))

    def ended(self, job: Job, outcome: Outcome, reason: str) -> None:
        """See `Listener`."""
        self._put(lambda: self._end(job, outcome, reason))

    def finish(self, metrics: Mapping[str, float], artifacts: Sequence[Path], model: Job | None) -> None:
        """Record how the sweep ended: its numbers and pictures on the parent run, the finalist's model."""

        def record() -> None:
            self._log(self._parent_id, metrics, 0)
            for path in artifacts:
                self._client.log_artifact(self._parent_id, str(path))
            if model is not None:
                self._register(model)

        self._put(record)

    def close(self, status: str) -> None:
        """Write what is queued, then end the parent with `status`, and every run of the sweep that still runs.

        Also a run that an earlier process left behind when it was killed. Takes a minute at most.
        """

        def end_all() -> None:
            self._client.set_terminated(self._parent_id, status)
            running = f"tags.`ltsd.sweep` = '{self._name}' and attributes.status = 'RUNNING'"
            for run in self._client.search_runs([self._experiment_id], running, max_results=MAX_RUNS):
                self._client.set_terminated(run.info.run_id, status if status == "FINISHED" else "KILLED")

        self._put(end_all)
        self._queue.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            self._warn("MLflow is slow: some of its records were not written; the sweep's folder has all of them")

    def _put(self, write: Callable[[], None]) -> None:
        self._queue.put(write)

    def _work(self) -> None:
        while (write := self._queue.get()) is not None:
            if self._failures_in_a_row >= GIVE_UP_AFTER:
                continue
            try:
                write()
                self._failures_in_a_row = 0
            except Exception as error:
                self._failures_in_a_row += 1
                self._warn(f"MLflow: {without_secret(str(error), self._uri)[:160]}")
                if self._failures_in_a_row == GIVE_UP_AFTER:
                    self._warn("MLflow does not answer; the sweep goes on without it, its own folder has every record")

    def _run(self, kind: str, job: str, title: str) -> Run:
        """The run of a job, found by its tags or created."""
        wanted = {"ltsd.sweep": self._name, "ltsd.job": job}
        clauses = " and ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items())
        found = self._client.search_runs([self._experiment_id], clauses, max_results=1)
        if found:
            self._client.update_run(found[0].info.run_id, status="RUNNING")
            return found[0]
        tags = wanted | {"ltsd.kind": kind} | versions()
        if kind == "trial":
            tags["ltsd.trial"] = str(int(job.rpartition("-")[2]))
        if kind != "sweep":
            tags["mlflow.parentRunId"] = self._parent_id
        return self._client.create_run(self._experiment_id, run_name=title, tags=tags)

    def _describe_parent(self) -> None:
        self._client.log_dict(self._parent_id, self._base.flatten(), "config.json")
        self._log_data(self._parent_id, "training", self._splits.complete)
        self._log_data(self._parent_id, "validation", self._splits.val)
        self._log_data(self._parent_id, "test", self._splits.test)

    def _start(self, job: Job) -> None:
        run = self._run(job.kind, job.key, job.key)
        live = self._live[job.key] = _Live(run.info.run_id)
        flat = job.config.flatten()
        knobs = TEACHER_KNOBS if job.kind == "teacher" else KNOBS_OF[job.config.method]
        params = [Param(name, str(flat[name])) for name in self._searched if name in knobs]
        if not run.data.params:
            self._client.log_batch(live.run_id, params=params)
        self._client.log_dict(live.run_id, flat, "config.json")
        self._log_data(live.run_id, "training", self._split(job))
        if job.resume:
            for metrics in _history(Path(job.resume)):
                live.history[metrics["epoch"]] = metrics["values"]
                live.per_class = metrics["per_class"] or live.per_class

    def _report(self, job: Job, report: Report) -> None:
        live = self._live[job.key]
        live.per_class = report.per_class or live.per_class
        if not report.values:
            return
        self._log(live.run_id, report.values, report.epoch)
        if report.phase == "train":
            live.history[report.epoch] = report.values

    def _end(self, job: Job, outcome: Outcome, reason: str) -> None:
        if job.key not in self._live:
            return
        live = self._live.pop(job.key)
        run_id = live.run_id
        self._client.set_tag(run_id, "ltsd.outcome", outcome)
        if reason:
            self._client.set_tag(run_id, "ltsd.reason", reason)
        self._log(run_id, best_and_final(live.history), job.config.epochs)
        for name, figure in self._pictures(job, live):
            self._client.log_figure(run_id, figure, name)
        self._client.set_terminated(run_id, STATUS[outcome])

    def _log(self, run_id: str, values: Mapping[str, float], step: int) -> None:
        now = _now_ms()
        metrics = [Metric(name, float(value), now, step) for name, value in values.items() if value == value]
        self._client.log_batch(run_id, metrics=metrics)

    def _split(self, job: Job) -> Split:
        return self._splits.train if job.part == "train" else self._splits.complete

    def _log_data(self, run_id: str, context: str, split: Split) -> None:
        counts = dict(zip(self._splits.class_names, split.class_counts(), strict=True))
        data = Dataset(
            name=f"{data_name(self._base.data.source)}-{context}",
            digest=self._splits.fingerprint[:36],
            source_type="ltsd",
            source=json.dumps({"source": self._base.data.source}),
            profile=json.dumps({"images": len(split), "class_counts": counts}),
        )
        inputs = [DatasetInput(data, [InputTag("mlflow.data.context", context)])]
        self._client.log_inputs(run_id, datasets=inputs)

    def _pictures(self, job: Job, live: _Live) -> list[tuple[str, Figure]]:
        """Drawn from what was reported and from the newest checkpoint; none where there is none."""
        drawn = []
        if live.history:
            epochs = sorted(live.history)
            drawn.append(("learning_curves.png", pictures.learning_curves(epochs, [live.history[e] for e in epochs])))
        counts, names = self._split(job).class_counts(), self._splits.class_names
        if live.per_class:
            drawn.append(("per_class.png", pictures.class_bars(live.per_class, counts, names)))
        checkpoint = newest_checkpoint(self._folder, job.key)
        if checkpoint:
            model, _ = load_model(Path(checkpoint), torch.device("cpu"))
            attack = job.config.attack
            inputs, labels = first_of_each_class(self._splits.val)
            grid = pictures.attack_grid(model, inputs, labels, names, eps=attack.eps, step_size=attack.step, steps=20)
            drawn.append(("attacked_images.png", grid))
        return drawn

    def _register(self, job: Job) -> None:
        """Log the model of a final run, opened by `mlflow.pyfunc.load_model` anywhere, and register it."""
        model, _ = load_model(final_model(job), torch.device("cpu"))
        inputs, _ = first_of_each_class(self._splits.val)
        with torch.no_grad():
            signature = infer_signature(inputs.numpy(), model(inputs).numpy())
        mlflow.set_tracking_uri(self._uri)
        mlflow.set_experiment(experiment_id=self._experiment_id)
        run = self._run("final", job.key, job.key)
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stderr(io.StringIO()),
            mlflow.start_run(run_id=run.info.run_id),
        ):
            mlflow.pytorch.log_model(
                model,
                name="model",
                signature=signature,
                input_example=inputs.numpy(),
                serialization_format="pt2",
                registered_model_name=self.experiment,
                pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in ("torch", "mlflow")],
            )


def best_and_final(history: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """`best/*`: the validation metrics of the epoch with the highest robust accuracy; `final/*`: of the last one."""
    validated = {epoch: row for epoch, row in history.items() if "val/robust_acc" in row}
    if not validated:
        return {}
    best = max(validated, key=lambda epoch: validated[epoch]["val/robust_acc"])
    values = {"best/epoch": float(best)}
    for prefix, epoch in (("best", best), ("final", max(validated))):
        for name, value in validated[epoch].items():
            if name.startswith("val/"):
                values[f"{prefix}/{name.removeprefix('val/')}"] = value
    return values


def first_of_each_class(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """The first image of each of the first ten classes: inputs [N, C, H, W], labels [N]."""
    labels = split.labels[split.rows]
    positions = [(labels == c).nonzero()[0] for c in range(min(GRID_IMAGES, split.num_classes))]
    return split.take(torch.cat(positions))


def data_name(source: str) -> str:
    """A short name of a source, fit for experiments and models."""
    return Path(source).name.removesuffix(".parquet") or "data"


def without_password(uri: str) -> str:
    """The URI as it may be shown: without user and password."""
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2] if separator else rest}"


def without_secret(text: str, uri: str) -> str:
    """The first line of a message, without the user and password of a URI."""
    login = uri.partition("://")[2].rpartition("@")[0]
    line = (text.splitlines() or [""])[0]
    return line.replace(login, "…") if login else line


def versions() -> dict[str, str]:
    """Tags that tell which code ran: the git commit where there is one, and the packages' versions."""
    tags = {f"version.{name}": importlib.metadata.version(name) for name in VERSIONED}
    here = Path(__file__).parent
    commit = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if commit.returncode == 0:
        tags["mlflow.source.git.commit"] = commit.stdout.strip()
    return tags


def _history(checkpoint: Path) -> list[dict[str, Any]]:
    try:
        history: list[dict[str, Any]] = load_checkpoint(checkpoint)["history"]
    except CheckpointError:
        return []
    return history


def _now_ms() -> int:
    return int(time.time() * 1000)
