"""MLflow as a view of the record: whatever was written, and how often, it ends up with everything once."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

from ltsd.config import Config
from ltsd.data import Splits
from ltsd.errors import UserError
from sweeps.journal.jobs import Job, Report
from sweeps.journal.record import Record
from sweeps.tracking.agreement import differences, repair
from sweeps.tracking.cards import log_card
from sweeps.tracking.datasets import dataset_input
from sweeps.tracking.points import expected
from sweeps.tracking.tracker import Tracker
from sweeps.tracking.view import MlflowView, is_outage

SCORES = {1: 0.25, 2: 0.75, 3: 0.5}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real MLflow database, made once."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def view(uri: str, small: Config, splits: Splits, request: pytest.FixtureRequest, tmp_path: Path) -> MlflowView:
    found = MlflowView(uri, request.node.name, "1", small, splits, {"": ["distill.temperature"]})
    found.open()
    return found


@pytest.fixture
def record(small: Config, tmp_path: Path) -> Record:
    """A trial that is done, a final run with its exam, and a trial that is not over."""
    record = Record.open(tmp_path)
    trial = Job("trial", "trial-0000", small, "train", str(tmp_path))
    final = Job("final", "final-finalist-0000-s0", small, "complete", str(tmp_path), exam="none")
    for job in (trial, final, replace(trial, key="trial-0001")):
        record.started(job, 0, "10.0.0.1")
        for epoch, score in SCORES.items():
            record.reported(job, Report(epoch, values={"val/robust_acc": score, "train/loss": 1.0 / epoch}))
    record.reported(final, Report(3, "examined", values={"test/clean_acc": 0.9, "test/tail_clean_acc": float("nan")}))
    record.started(trial, 3, "10.0.0.2")
    record.ended(trial, "done", "")
    record.ended(final, "done", "")
    return record


def write(view: MlflowView, record: Record, key: str) -> None:
    """As a sweep does: when the job begins, after each epoch, and when it is over."""
    known = record.jobs[key]
    for epoch in range(1 + len(known.epochs)):
        past = {number: report for number, report in known.epochs.items() if number <= epoch}
        view.bring(replace(known, epochs=past, result=None, outcome=None))
    view.bring(known)


def runs_of(uri: str, view: MlflowView) -> Iterator[Run]:
    client = MlflowClient(uri)
    experiments = [found.experiment_id for found in client.search_experiments()]
    yield from client.search_runs(experiments, f"tags.`ltsd.sweep` = '{view._name}'")


def test_what_is_written_once_twice_or_repaired_is_the_same(uri: str, view: MlflowView, record: Record) -> None:
    for _ in range(2):
        for key in record.jobs:
            write(view, record, key)
        view.close("FINISHED")
        assert differences(view, record) == {}
    view.open()
    assert repair(view, record) == {}
    view.close("FINISHED")
    runs = {run.data.tags["ltsd.job"]: run for run in runs_of(uri, view)}
    assert sorted(runs) == ["final-finalist-0000-s0", "sweep", "trial-0000", "trial-0001"]
    assert {key: run.info.status for key, run in runs.items() if key != "sweep"} == {
        "trial-0000": "FINISHED",
        "final-finalist-0000-s0": "FINISHED",
        "trial-0001": "KILLED",
    }
    assert runs["trial-0000"].data.tags["ltsd.host"] == "10.0.0.1, 10.0.0.2"
    metrics = runs["trial-0000"].data.metrics
    assert (metrics["best/epoch"], metrics["best/robust_acc"], metrics["final/robust_acc"]) == (2.0, 0.75, 0.5)
    assert "best/robust_acc" not in runs["trial-0001"].data.metrics
    history = MlflowClient(uri).get_metric_history(runs["trial-0000"].info.run_id, "val/robust_acc")
    assert [(point.step, point.value) for point in history] == list(SCORES.items())


def test_parts_of_the_same_images_are_data_sets_of_their_own(uri: str, splits: Splits) -> None:
    client = MlflowClient(uri)
    experiment = client.create_experiment("parts")
    for part in (splits.train, splits.reserve):
        run = client.create_run(experiment).info.run_id
        client.log_inputs(run, datasets=[dataset_input("digits", splits, part, "training")])
        (found,) = client.get_run(run).inputs.dataset_inputs
        profile = json.loads(found.dataset.profile)
        assert profile["images"] == len(part)
        assert list(profile["class_counts"].values()) == part.class_counts()


def test_what_mlflow_lacks_is_told_and_written(view: MlflowView, record: Record) -> None:
    known = record.jobs["trial-0000"]
    view.bring(replace(known, epochs={1: known.epochs[1]}, outcome=None))
    found = differences(view, record)
    assert sorted(found) == ["final-finalist-0000-s0", "sweep", "trial-0000", "trial-0001"]
    assert found["trial-0001"] == ["MLflow has 0 runs of it"]
    assert "MLflow lacks val/robust_acc of epoch 2 (0.75)" in found["trial-0000"]
    assert "MLflow has it RUNNING, the journal done" in found["trial-0000"]
    repair(view, record)
    view.close("KILLED")
    assert differences(view, record) == {}


def test_twins_strangers_and_what_was_never_measured_go(uri: str, view: MlflowView, record: Record) -> None:
    for key in record.jobs:
        write(view, record, key)
    view.close("FINISHED")
    runs = {run.data.tags["ltsd.job"]: run for run in runs_of(uri, view)}
    client = MlflowClient(uri)
    trial = runs["trial-0000"]
    client.create_run(trial.info.experiment_id, tags=trial.data.tags)
    client.create_run(trial.info.experiment_id, tags=trial.data.tags | {"ltsd.job": "trial-0099"})
    client.log_batch(runs["trial-0001"].info.run_id, metrics=[Metric("val/robust_acc", 0.99, 1, 2)])
    assert differences(view, record) == {
        "trial-0000": ["MLflow has 2 runs of it"],
        "trial-0001": ["MLflow has val/robust_acc of epoch 2 (0.99), the journal has not"],
        "trial-0099": ["MLflow has a run of it, the journal has not"],
    }
    view.open()
    repair(view, record)
    view.close("FINISHED")
    assert differences(view, record) == {}
    assert next(run for run in runs_of(uri, view) if run.data.tags["ltsd.job"] == "trial-0000").info.run_id == (
        trial.info.run_id
    )


def test_a_sweep_of_the_same_name_is_left_alone(
    uri: str, view: MlflowView, record: Record, small: Config, splits: Splits, tmp_path: Path
) -> None:
    for key in record.jobs:
        write(view, record, key)
    view.close("FINISHED")
    other = MlflowView(uri, view._name, "2", small, splits, {"": ["distill.temperature"]})
    other.open()
    (tmp_path / "other").mkdir()
    nothing = Record.open(tmp_path / "other")
    repair(other, nothing)
    other.close("KILLED")
    assert differences(other, nothing) == differences(view, record) == {}


def test_a_long_card_is_whole_in_the_run_and_describes_its_version_within_the_limit(uri: str, tmp_path: Path) -> None:
    client = MlflowClient(uri)
    experiment = client.create_experiment("cards", artifact_location=tmp_path.as_uri())
    client.create_registered_model("carded")
    runs = [client.create_run(experiment) for _ in range(2)]
    for run in runs:
        client.create_model_version("carded", str(tmp_path), run.info.run_id)
    card = "# Card\n\n" + "\n\n".join(f"paragraph {number} {'x' * 400}" for number in range(20)) + "\n"
    log_card(client, runs[0], "carded", card)
    whole = client.download_artifacts(runs[0].info.run_id, "model_card.md")
    assert Path(whole).read_text() == card
    first, second = (client.get_model_version("carded", number).description for number in ("1", "2"))
    told, rest = first.split("\n\nThe rest")
    assert 4500 < len(first) <= 5000
    assert card.startswith(f"{told}\n\n")
    assert rest == " is in the artifact `model_card.md` of the run.\n"
    assert not second


def test_a_group_without_classes_has_no_point(record: Record) -> None:
    names = {point.name for point in expected(record.jobs["final-finalist-0000-s0"])}
    assert "test/clean_acc" in names
    assert "test/tail_clean_acc" not in names


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionError("refused"), True),
        (OSError(28, "No space left on device"), True),
        (MlflowException("database is locked", error_code=TEMPORARILY_UNAVAILABLE), True),
        (MlflowException("the name is too long", error_code=INVALID_PARAMETER_VALUE), False),
        (PermissionError(13, "Permission denied", "/srv/artifacts"), False),
        (ValueError("a mistake of ours"), False),
    ],
)
def test_an_outage_is_waited_for_and_a_mistake_is_not(error: Exception, passes: bool) -> None:
    assert is_outage(error) is passes


@pytest.mark.parametrize("address", ["./mlruns", "foo://x"])
def test_an_address_that_mlflow_does_not_take_is_refused(address: str, small: Config, splits: Splits) -> None:
    with pytest.raises(UserError, match=rf"--tracking-uri {address}: MLflow keeps no records at such .* \(.*\); give"):
        MlflowView(address, "night", "1", small, splits, {}).open()


@pytest.mark.parametrize("is_new", [True, False])
def test_a_sweep_that_cannot_begin_leaves_no_run_that_runs(
    uri: str, view: MlflowView, tmp_path: Path, is_new: bool
) -> None:
    view.close("FINISHED")
    tracker = Tracker(view, uri, print)
    tracker.open(Record.open(tmp_path))
    assert [run.info.status for run in runs_of(uri, view)] == ["RUNNING"]
    tracker.refuse(is_new=is_new)
    assert [run.info.status for run in runs_of(uri, view)] == ([] if is_new else ["KILLED"])
