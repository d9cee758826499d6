"""A whole small sweep of label maps, through the main command: the task is found, and every record has its scores."""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from imagesets import encoded, images_of, map_table, maps_of
from mlflow import MlflowClient
from PIL import Image
from sweeping import mlflow_runs, run_search

from ltsd.__main__ import main as command_line
from ltsd.evaluation.map_exam import read_exam
from sweeps.audit import main as audit
from sweeps.journal.record import Record

pytestmark = pytest.mark.slow
NAMES = ("ground", "leaf", "bark")
TINY = (
    *("--trials", "2", "--epochs", "2", "--teacher.epochs", "1", "--evaluate.every", "2", "--evaluate.steps", "2"),
    *("--model.width", "8", "--confirm", "1", "--final-seeds", "1", "--references", "at-bsl", "--search", "distill"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one sweep of 24 images with masks was run to its end."""
    path = tmp_path_factory.mktemp("maps")
    (path / "plants").mkdir()
    for seed, (split, count) in enumerate({"train": 24, "test": 8}.items()):
        images, masks = images_of(count, 8, seed), maps_of(count, 8, len(NAMES), seed)
        table = map_table([encoded(image) for image in images], [encoded(mask) for mask in masks], NAMES)
        pq.write_table(table, path / "plants" / f"{split}-00000-of-00001.parquet")
    done = run_search(path, "--data", "plants", "--name", "small", *TINY)
    (path / "out.txt").write_text(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return path


def test_the_task_is_found_and_the_table_has_its_scores(folder: Path) -> None:
    said = (folder / "out.txt").read_text()
    assert json.loads((folder / "runs/small/sweep.json").read_text())["fixed"]["task"] == "segmentation"
    assert "test set, 8 images, mean IoU over classes in percent" in said
    assert "robust and tail: worst of PGD-2, SegPGD-2, balanced-2" in said
    for text in ("| worst of 6", "| tail worst of 6", "| minus AT-BSL"):
        assert text in said
    pictures = {path.name for path in (folder / "runs/small/pictures").glob("*.png")}
    assert {"scores.png", "front.png", "finals.png", "trade_off.png"} <= pictures
    assert "Their IoU on the test set: faint on clean images, solid under worst of 6" in (
        folder / "runs/small/report.html"
    ).read_text(encoding="utf-8")


def test_mlflow_has_the_scores_that_the_counts_on_disk_give(folder: Path) -> None:
    finals = list(Record.read(folder / "runs/small").of_kind("final"))
    runs = {run.data.tags["ltsd.job"]: run for run in mlflow_runs(folder, "small")}
    assert finals
    for known in finals:
        counts, _ = read_exam(folder / known.job.correctness)
        expected = float(np.nanmean(counts["worst"].iou()))
        assert runs[known.job.key].data.metrics["test/robust_miou"] == pytest.approx(expected)
    trial = runs["trial-0000"]
    assert trial.data.metrics["best/robust_miou"] == trial.data.metrics["final/robust_miou"]
    (parent,) = [run for run in runs.values() if run.data.tags["ltsd.kind"] == "sweep"]
    assert "best/robust_miou" in parent.data.metrics
    profile = json.loads(parent.inputs.dataset_inputs[0].dataset.profile)
    assert list(profile["class_counts"]) == list(NAMES)


def test_the_registered_model_answers_the_masks_that_predict_writes(folder: Path) -> None:
    (folder / "photos").mkdir()
    for number, image in enumerate(images_of(3, 8, seed=7)):
        Image.fromarray(image).save(folder / "photos" / f"{number}.png")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (version,) = client.search_model_versions("name = 'ltsd-plants'")
    job = client.get_run(str(version.run_id)).data.tags["ltsd.job"]
    checkpoint = folder / "runs/small/checkpoints" / f"{job}.pt"
    assert command_line(["predict", str(checkpoint), str(folder / "photos"), "--out", str(folder / "masks")]) == 0
    code = (
        "import sys; sys.modules.update(ltsd=None, sweeps=None)\n"  # so that importing them fails
        "import base64, json, mlflow, pandas as pd, pathlib\n"
        "model = mlflow.pyfunc.load_model('models:/ltsd-plants/1')\n"
        "files = sorted(pathlib.Path('photos').iterdir())\n"
        "answers = model.predict(pd.DataFrame({'image': [file.read_bytes() for file in files]}))\n"
        "print(json.dumps([base64.b64encode(mask).decode() for mask in answers['mask']]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for number, mask in enumerate(json.loads(done.stdout.splitlines()[-1])):
        served = np.asarray(Image.open(io.BytesIO(base64.b64decode(mask))))
        assert np.array_equal(served, np.asarray(Image.open(folder / "masks" / f"{number}.png")))


def test_an_audit_agrees(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    assert audit(["small"]) == 0, capsys.readouterr().out


def test_the_finalist_has_a_card_in_the_words_of_its_task(folder: Path) -> None:
    (path,) = (folder / "runs/small/checkpoints").glob("*.md")
    assert "It names every pixel as one of 3 classes" in path.read_text()
    (version,) = MlflowClient(f"sqlite:///{folder}/mlflow.db").search_model_versions("name = 'ltsd-plants'")
    assert "mean IoU over classes" in version.description
