"""A whole small sweep on real Ray, Optuna and MLflow, through the main command."""

import base64
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState
from PIL import Image
from serving import model_server
from sklearn.datasets import load_digits
from sweeping import ELSEWHERE, SMALL, mlflow_runs, run_search

from ltsd.__main__ import main as command_line
from ltsd.checkpoint import load_checkpoint
from ltsd.evaluation.correctness import read_correctness
from sweeps.audit import main as audit
from sweeps.journal.record import Record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one sweep was run to its end, whatever the environment would have of it."""
    path = tmp_path_factory.mktemp("sweep")
    done = run_search(path, "--name", "small", *SMALL, env=ELSEWHERE)
    (path / "out.txt").write_text(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return path


def study_of(folder: Path, name: str = "small") -> optuna.Study:
    return optuna.load_study(study_name="sweep", storage=f"sqlite:///{folder}/runs/{name}/study.db")


def test_ends_with_a_table_the_pictures_and_the_way_into_mlflow(folder: Path) -> None:
    said = (folder / "out.txt").read_text()
    for row in ("finalist", "AT-BSL", "AT "):
        assert f"| {row}" in said
    assert "539 images" in said
    assert "run_job" not in said, "Ray speaks beside the sweep"
    assert "browse it: mlflow ui --host 127.0.0.1 --backend-store-uri sqlite:///mlflow.db\n" in said
    assert "then open http://127.0.0.1:5000/#/experiments/" in said
    pictures = {path.name for path in (folder / "runs" / "small" / "pictures").glob("*.png")}
    assert pictures == {
        *("scores.png", "front.png", "importances.png", "parallel_coordinates.png", "finals.png", "trade_off.png")
    }


def test_the_report_has_the_numbers_of_the_table_and_of_the_study(folder: Path) -> None:
    def cells(html: str) -> list[list[str]]:
        rows = re.findall(r"<tr>(.*?)</tr>", html)
        return [[re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]

    finals, *_, trials = re.findall(r"<table.*?</table>", (folder / "runs/small/report.html").read_text(), re.DOTALL)
    lines = (folder / "runs/small/table.md").read_text().split("\n\n")[1].splitlines()
    assert cells(finals) == [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "---" not in line]
    expected = [
        [str(trial.number), *(f"{100 * value:.1f}" for value in trial.values)]
        for trial in study_of(folder).get_trials(states=[TrialState.COMPLETE])
    ]
    assert [row[:3] for row in cells(trials)[1:] if "complete" in row] == expected


def test_the_description_in_mlflow_has_the_command_and_the_tables(folder: Path) -> None:
    (parent,) = [run for run in mlflow_runs(folder, "small") if run.data.tags["ltsd.kind"] == "sweep"]
    told = parent.data.tags["mlflow.note.content"]
    assert "python sweeps/search.py --trials 3" in told
    assert (folder / "runs/small/table.md").read_text().strip() in told
    page = f"#/experiments/{parent.info.experiment_id}/runs/{parent.info.run_id}"
    assert page in (folder / "out.txt").read_text()


@pytest.mark.parametrize("name", ELSEWHERE)
def test_tells_of_each_variable_that_it_does_not_obey(folder: Path, name: str) -> None:
    said = (folder / "out.txt").read_text()
    assert said.count(f"] {name} is overridden: ") == 1
    assert ELSEWHERE["RAY_AUTH_TOKEN"] not in said


def test_keeps_the_correctness_file_of_every_exam(folder: Path) -> None:
    finals = list(Record.read(folder / "runs" / "small").of_kind("final"))
    for known in finals:
        correctness, _ = read_correctness(folder / known.job.correctness)
        recalls = correctness["cw20"].per_class()
        assert known.result is not None
        assert sum(recalls) / len(recalls) == pytest.approx(known.result.values["test/cw20_acc"])
    assert len(list((folder / "runs" / "small" / "correctness").iterdir())) == len(finals)


def test_tells_optuna_the_truth(folder: Path) -> None:
    trials = study_of(folder).trials
    assert len(trials) == 3
    for trial in trials:
        assert trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        if trial.state == TrialState.COMPLETE:
            assert trial.values[0] == trial.intermediate_values[4]
            assert sorted(trial.intermediate_values) == [2, 4]


def test_tries_the_published_defaults_first(folder: Path) -> None:
    first = study_of(folder).trials[0].params
    assert first == {
        "distill.temperature": 1.0,
        "distill.kl_weight": 1.0,
        "distill.igdm_weight": 1.0,
        "balance.softmax_tau": 1.0,
        "balance.teacher_gamma": 10.0,
        "robustlt.strength": 0.0,
    }


def test_keeps_one_mlflow_run_a_job_under_one_parent(folder: Path) -> None:
    runs = mlflow_runs(folder, "small")
    jobs = Record.read(folder / "runs" / "small").jobs
    assert Counter(run.data.tags["ltsd.job"] for run in runs) == Counter(["sweep", *jobs])
    kinds = Counter(run.data.tags["ltsd.kind"] for run in runs)
    assert kinds == Counter(["sweep", *(known.job.kind for known in jobs.values())])
    assert kinds["trial"] == 3
    rivals = sum(trial.state == TrialState.COMPLETE for trial in study_of(folder).trials) - 1
    # Three seeds: the defaults take part in all of them, two rivals in the first, the better one in the others.
    assert kinds["confirm"] == 3 + min(2, rivals) + 2 * min(1, rivals)
    assert kinds["final"] in range(3, 7)  # the untuned LTSD may be the finalist itself, the front has two ends at most
    assert kinds["teacher"] == len({known.job.teacher for known in jobs.values()} - {""})
    assert {run.info.status for run in runs} == {"FINISHED"}
    parent = next(run.info.run_id for run in runs if run.data.tags["ltsd.kind"] == "sweep")
    for run in runs:
        if run.info.run_id != parent:
            assert run.data.tags["mlflow.parentRunId"] == parent


def test_mlflow_holds_configuration_metrics_data_and_pictures_of_a_trial(folder: Path) -> None:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    run = next(run for run in mlflow_runs(folder, "small") if run.data.tags.get("ltsd.trial") == "0")
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert artifacts == {"config.json", "learning_curves.png", "per_class.png", "attacked_images.png"}
    assert set(run.data.params) == set(study_of(folder).trials[0].params)
    history = client.get_metric_history(run.info.run_id, "val/robust_acc")
    assert {point.step: point.value for point in history} == study_of(folder).trials[0].intermediate_values
    assert run.data.metrics["final/robust_acc"] == study_of(folder).trials[0].intermediate_values[4]
    used = client.get_metric_history(run.info.run_id, "system/seconds")
    assert sorted(point.step for point in used) == [1, 2, 3, 4]
    assert {"system/cpu_percent", "system/memory_mib"} <= run.data.metrics.keys()
    data = run.inputs.dataset_inputs[0].dataset
    assert sum(json.loads(data.profile)["class_counts"].values()) == json.loads(data.profile)["images"]
    for name in ("version.torch", "version.ray", "ltsd.sweep"):
        assert name in run.data.tags


@pytest.fixture(scope="module")
def answers(folder: Path) -> list[dict[str, Any]]:
    """What `ltsd predict` says of a few digits with the finalist's checkpoint; the files are in `photos`, by name."""
    digits = load_digits()
    (folder / "photos").mkdir()
    for number in range(12):
        pixels = (digits.images[-1 - number] * 15.9).astype(np.uint8)
        image = Image.fromarray(pixels) if number % 2 else Image.fromarray(pixels).convert("RGB").resize((20, 31))
        image.save(folder / "photos" / f"{number:02d}.png")
    (checkpoint,) = (folder / "runs" / "small" / "checkpoints").glob("final-finalist-*-s0.pt")
    out = folder / "answers.json"
    assert command_line(["predict", str(checkpoint), str(folder / "photos"), "--out", str(out)]) == 0
    return list(json.loads(out.read_text()))


def assert_same_answers(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [one["class"] for one in found] == [one["label"] for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert list(one["probabilities"]) == list(other["probabilities"]) == [str(digit) for digit in range(10)]
        values = list(one["probabilities"].values())
        assert values == pytest.approx(list(other["probabilities"].values()), abs=1e-5)
        assert one["probability"] == max(values)


def test_the_registered_model_predicts_without_this_project_as_the_checkpoint_does(
    folder: Path, answers: list[dict[str, Any]]
) -> None:
    code = (
        "import sys; sys.modules.update(ltsd=None, sweeps=None)\n"  # so that importing them fails
        "import json, mlflow, pandas as pd, pathlib\n"
        "model = mlflow.pyfunc.load_model('models:/ltsd-digits/1')\n"
        "files = sorted(pathlib.Path('photos').iterdir())\n"
        "answers = model.predict(pd.DataFrame({'image': [file.read_bytes() for file in files]}))\n"
        "example = model.predict(model.input_example)\n"
        "print(json.dumps([answers.to_dict('records'), len(example), model.metadata.signature.to_dict()]))\n"
    )
    uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=folder, env=os.environ | uri, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found, examples, signature = json.loads(done.stdout.splitlines()[-1])
    assert_same_answers(found, answers)
    assert examples == 1
    assert json.loads(signature["inputs"]) == [{"type": "binary", "name": "image", "required": True}]
    columns = {column["name"]: column["type"] for column in json.loads(signature["outputs"])}
    assert columns == {"class": "string", "probability": "double", "probabilities": "map"}


def test_the_registered_model_is_served_over_http(folder: Path, answers: list[dict[str, Any]]) -> None:
    images = [base64.b64encode(file.read_bytes()).decode() for file in sorted((folder / "photos").iterdir())]

    def post(address: str, *encoded: str) -> Any:
        content = json.dumps({"dataframe_records": [{"image": one} for one in encoded]}).encode()
        request = urllib.request.Request(address, content, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    with model_server(folder, "models:/ltsd-digits/1") as address:
        assert_same_answers(post(address, *images)["predictions"], answers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(address, images[0], base64.b64encode(b"words").decode())
        assert refused.value.code == 400
        assert "row 1: a broken image" in json.load(refused.value)["message"]


def test_the_finalist_has_a_card_with_the_numbers_of_the_table_which_mlflow_shows_too(folder: Path) -> None:
    def rows(text: str) -> dict[str, list[str]]:
        lines = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
        return {cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in lines}

    (path,) = (folder / "runs/small/checkpoints").glob("*.md")
    assert path.with_suffix(".pt").exists()
    assert path.name.startswith("final-finalist-")
    card, final = path.read_text(), rows((folder / "runs/small/table.md").read_text().split("\n\n")[1])
    found = rows(card.split("## Limits")[0])
    of_attack = dict(
        zip(found[""], zip(*(found[name] for name in ("clean", "PGD-20", "CW-20")), strict=True), strict=True)
    )
    expected = dict(zip(final[""], final["finalist"], strict=True))
    assert of_attack["all classes"] == (expected["clean"], expected["PGD-20"], expected["CW-20"])
    assert of_attack["tail"][:2] == (expected["tail clean"], expected["tail PGD-20"])
    assert of_attack["worst class"][1] == expected["worst class PGD-20"]
    assert found["AutoAttack"][0] == "not measured"

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = [run for run in mlflow_runs(folder, "small") if run.data.tags["ltsd.job"] == path.stem]
    (version,) = client.search_model_versions(f"name = 'ltsd-digits' and run_id = '{run.info.run_id}'")
    assert len(version.description) <= 5000
    assert card.startswith(version.description.partition("\nThe rest is in the artifact `model_card.md`")[0])
    assert found == rows(version.description.split("## Limits")[0])
    assert Path(client.download_artifacts(run.info.run_id, "model_card.md", str(folder))).read_text() == card


def test_a_second_sweep_trains_no_teacher_again(folder: Path) -> None:
    teachers = {path: path.stat().st_mtime_ns for path in (folder / "runs" / "teachers").glob("*.pt")}
    for path in teachers:
        load_checkpoint(path)
    done = run_search(folder, "--name", "again", *SMALL, "--trials", "2", "--confirm", "1", "--references", "at")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "teachers: 0 trained" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in teachers} == teachers
    again, before = study_of(folder, "again").trials, study_of(folder).trials[:2]
    assert [(t.params, t.intermediate_values) for t in again] == [(t.params, t.intermediate_values) for t in before]


def test_an_audit_misses_the_registered_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert audit(["small"]) == 0
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    of_small = {run.info.run_id for run in mlflow_runs(folder, "small")}
    for version in client.search_model_versions("name = 'ltsd-digits'"):
        if version.run_id in of_small:
            client.delete_model_version("ltsd-digits", version.version)
    assert audit(["small"]) == 1
    told = r"final-finalist-\d+-s0 +MLflow has no version of the model ltsd-digits of it"
    assert re.search(told, capsys.readouterr().out)
