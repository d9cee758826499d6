"""A sweep in MLflow: runs, metrics, pictures, the registered model.

MLflow is a view of the sweep's record. Runs are found by the tags `ltsd.sweep`, `ltsd.identity` and `ltsd.job`, and
every point carries the time at which it was recorded. So every write is idempotent.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, TEMPORARILY_UNAVAILABLE, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from ltsd.config import Config
from ltsd.data import Splits
from ltsd.data.batches import Split
from ltsd.errors import UserError
from ltsd.export import exported_inputs
from sweeps.journal.jobs import Job
from sweeps.journal.record import JobRecord, Outcome
from sweeps.settings.groups import OWN, TEACHER_GAMMA, group_of, searched_knobs
from sweeps.settings.sweep import Sweep, data_name
from sweeps.tracking import environment
from sweeps.tracking.cards import log_card
from sweeps.tracking.datasets import dataset_input
from sweeps.tracking.faults import fault, in_the_bin
from sweeps.tracking.model import is_registered, register
from sweeps.tracking.points import Point, expected, points
from sweeps.tracking.tags import ending, versions

TRAINING = {"mlflow.experimentKind": "custom_model_development"}
MAX_RUNS = 50_000
EXAMPLES = 10  # images that the registered model is tried on
METRICS_A_BATCH = 900  # of the 1,000 metrics, parameters and tags that MLflow takes in a call
PASSING = {ErrorCode.Name(code) for code in (INTERNAL_ERROR, TEMPORARILY_UNAVAILABLE)}
PARENT = "sweep"
STATUS: Mapping[Outcome | None, str] = {
    "done": "FINISHED",
    "reused": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    None: "KILLED",
}


class MlflowView:
    """One MLflow run per job, under one parent run per sweep."""

    def __init__(
        self, uri: str, name: str, identity: str, base: Config, splits: Splits, searched: Mapping[str, Sequence[str]]
    ) -> None:
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        # It logs the traceback of every database error, which the outbox reports in one line.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        self._client: MlflowClient  # made by `reach`, because that fails for an address without MLflow
        self._uri, self._name, self._base, self._splits, self._searched = uri, name, base, splits, searched
        # A server may have sweeps of the same name from other folders. An old sweep has no identity.
        self._whose = {"ltsd.sweep": name} | ({"ltsd.identity": identity} if identity else {})
        self._experiment_id = ""
        self._ids: dict[str, str] = {}
        self._told: dict[str, set[Point]] = {}  # the points that each running run has
        self._before: dict[str, str] = {}  # the runs that existed when MLflow was reached
        self._perhaps: set[str] = set()  # jobs that may have a run in MLflow, also if its answer was lost

    @classmethod
    def of(cls, sweep: Sweep, splits: Splits, searched: Mapping[str, Sequence[str]]) -> Self:
        """Return the view of a sweep at its tracking URI; `searched` are the knobs searched of each row."""
        uri, name = sweep.settings.tracking_uri, str(sweep.settings.name)
        return cls(uri, name, sweep.identity, sweep.base, splits, searched)

    def reach(self) -> None:
        """Find the experiment if it exists; change nothing.

        Raises:
            UserError: nothing usable answers at the tracking URI.
        """
        environment.hide()
        with self.answering():
            self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
            experiment = self._client.get_experiment_by_name(self.experiment)
            self._experiment_id = experiment.experiment_id if experiment else ""
            if experiment and experiment.lifecycle_stage == LifecycleStage.DELETED:
                raise in_the_bin(self.experiment, self._experiment_id, self._uri)
            self._before = {run.data.tags["ltsd.job"]: run.info.run_id for run in self.runs()}
            self._perhaps = set(self._before)
            self._told = {}

    def open(self) -> None:
        """Find or create the experiment and the parent run, and set the parent RUNNING.

        Raises:
            UserError: nothing usable answers at the tracking URI.
        """
        self.reach()
        with self.answering():
            if not self._experiment_id:
                self._experiment_id = self._client.create_experiment(self.experiment, tags=TRAINING)
            self._ids[PARENT] = self._run(PARENT, PARENT, self._name).info.run_id

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Turn every error of the body into a UserError that names the tracking URI."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            raise fault(error, self._uri) from None

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment, one for each data set."""
        return f"ltsd-{data_name(self._base.data.source)}"

    def describe_sweep(self) -> None:
        """Log configuration and data of the parent run."""
        parent = self._ids[PARENT]
        self._client.log_dict(parent, self._base.flatten(), "config.json")
        self._log_data(parent, "training", self._splits.complete)
        self._log_data(parent, "validation", self._splits.val)
        self._log_data(parent, "test", self._splits.test)

    def describe(self, note: str) -> None:
        """Set the parent run's description, in Markdown."""
        self._client.set_tag(self._ids[PARENT], MLFLOW_RUN_NOTE, note)

    def page(self, job: str = PARENT) -> str:
        """Return the part of an MLflow address after its server: the page of a job's run; "" if it has none yet."""
        run_id = self._ids.get(job) or self._before.get(job)
        return f"#/experiments/{self._experiment_id}/runs/{run_id}" if run_id else ""

    def bring(self, known: JobRecord) -> None:
        """Write what a job's run lacks of the record, in as few calls as possible."""
        key, over = known.job.key, known.outcome is not None
        params = {} if key in self._told else self._begin(known)
        told = self._told.get(key, set())
        lacking = [point for point in expected(known) if point not in told]
        self._log(self._ids[key], lacking, params, ending(known) if over else {})
        self._told[key] = told.union(lacking)
        if over:
            self._end(known)

    def _begin(self, known: JobRecord) -> dict[str, str]:
        """Make the run of a job, with configuration and data; return its parameters, to be logged with what follows."""
        job = known.job
        run_id = self._run(job.kind, job.key, job.key, known.started, job.row).info.run_id
        self._ids[job.key] = run_id
        self._client.log_dict(run_id, job.config.flatten(), "config.json")
        self._log_data(run_id, "training", self._split(job))
        return self.params_of(job)

    def _end(self, known: JobRecord) -> None:
        """Log the pictures of a job and how it ended."""
        key = known.job.key
        if known.job.pictures.is_dir():
            self._client.log_artifacts(self._ids[key], str(known.job.pictures))
        self._client.set_terminated(self._ids[key], STATUS[known.outcome], known.ended)
        del self._told[key]

    def finish(self, metrics: Mapping[str, float], at: int, artifacts: Iterable[Path], model: Job | None) -> None:
        """Log the numbers and pictures of the finished sweep on the parent run, and register the finalist's model."""
        self._log(self._ids[PARENT], points(metrics, 0, at), {}, {})
        for path in artifacts:
            self._client.log_artifact(self._ids[PARENT], str(path))
        if model is not None:
            val = self._splits.val
            inputs = exported_inputs(val, torch.linspace(0, len(val) - 1, EXAMPLES).long())
            run = self.runs(model.key)[0]
            register(self._uri, run, self.experiment, model, inputs)
            if model.card.exists():  # a sweep that ended before there were cards has none
                log_card(self._client, run, self.experiment, model.card.read_text(encoding="utf-8"))

    def has_model(self, run: Run) -> bool:
        """Return whether the model of a final run is registered."""
        return is_registered(self._client, run, self.experiment)

    def withdraw(self) -> None:
        """Delete the runs of a sweep that never started."""
        self.end_runs()
        for run in self.runs():
            self.delete(run)

    def close(self, status: str) -> None:
        """End the parent with `status`, and every other run that is still RUNNING."""
        self._client.set_terminated(self._ids[PARENT], status)
        self.end_runs()

    def end_runs(self) -> None:
        """End every run of the sweep that is still RUNNING, also those of an earlier process."""
        for run in self.runs():
            if run.info.status == "RUNNING":
                self._client.set_terminated(run.info.run_id, "KILLED")

    def write_again(self, known: JobRecord) -> None:
        """Write everything on record of a job; points that its run has already stay."""
        self.bring(known)
        if known.outcome is None:
            self._client.set_terminated(self._ids[known.job.key], STATUS[None])
            del self._told[known.job.key]

    def delete(self, run: Run) -> None:
        """Move a run to MLflow's bin."""
        self._client.delete_run(run.info.run_id)

    def points_of(self, run: Run) -> Counter[tuple[str, int, float]]:
        """Return the measurements of a run as name, step and value."""
        return Counter(
            (name, point.step, point.value)
            for name in run.data.metrics
            for point in self._client.get_metric_history(run.info.run_id, name)
        )

    def params_of(self, job: Job) -> dict[str, str]:
        """Return the parameters that a run shows: the searched knobs that its job reads; for a final run its method and
        every knob that a sweep of it would search.
        """
        flat, method = job.config.flatten(), job.config.method
        every = list(dict.fromkeys(name for knobs in self._searched.values() for name in knobs))
        if job.kind == "final":
            names = ["method", *searched_knobs(method, {*OWN, *map(group_of, every)})]
        elif job.kind == "teacher":
            names = [name for name in every if name == TEACHER_GAMMA or group_of(name) == "teacher"]
        else:
            names = list(self._searched[job.row])
        return {name: str(flat[name]) for name in names}

    def runs(self, job: str = "") -> list[Run]:
        """Return the runs of the sweep, or of one of its jobs, oldest first."""
        if not self._experiment_id:
            return []
        wanted = self._whose | ({"ltsd.job": job} if job else {})
        clauses = " and ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items())
        return list(
            self._client.search_runs(
                [self._experiment_id], clauses, max_results=MAX_RUNS, order_by=["attributes.start_time"]
            )
        )

    def _run(self, kind: str, job: str, title: str, started: int | None = None, row: str = "") -> Run:
        """Find the run of a job by its tags, or create it; if a slow server made it twice, keep the first."""
        found = self.runs(job) if job in self._perhaps else []
        self._perhaps.add(job)
        for twin in found[1:]:
            self._client.delete_run(twin.info.run_id)
        if found:
            self._client.update_run(found[0].info.run_id, status="RUNNING")
            return found[0]
        tags = self._whose | {"ltsd.job": job, "ltsd.kind": kind} | versions()
        if kind == "trial":
            tags["ltsd.trial"] = str(int(job.rpartition("-")[2]))
        if row:
            tags["ltsd.row"] = row
        if kind != PARENT:
            tags["mlflow.parentRunId"] = self._ids[PARENT]
        return self._client.create_run(self._experiment_id, start_time=started, run_name=title, tags=tags)

    def _log(self, run_id: str, values: Iterable[Point], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        metrics = [Metric(point.name, point.value, point.at, point.step) for point in values]
        also = ([Param(*item) for item in params.items()], [RunTag(*item) for item in tags.items()])
        for start in range(0, len(metrics) or 1, METRICS_A_BATCH):
            self._client.log_batch(run_id, metrics[start : start + METRICS_A_BATCH], *also)

    def _split(self, job: Job) -> Split:
        return self._splits.train if job.part == "train" else self._splits.complete

    def _log_data(self, run_id: str, context: str, split: Split) -> None:
        data = dataset_input(self._base.data.source, self._splits, split, context)
        self._client.log_inputs(run_id, datasets=[data])


def is_outage(error: Exception) -> bool:
    """Return whether the call may succeed later: the server is down or busy, or its disk is full. An artifact folder
    that this machine lacks or may not write is a permanent error.
    """
    if isinstance(error, PermissionError | FileNotFoundError | NotADirectoryError):
        return False
    return isinstance(error, OSError) or (isinstance(error, MlflowException) and error.error_code in PASSING)
