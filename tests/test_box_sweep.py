"""A whole small sweep of boxes, through the main command: the task is found, and every record has its scores."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from imagesets import encoded, images_of
from sweeping import mlflow_runs, run_search
from test_detection import GOOD, write_table

from ltsd.evaluation.box_exam import read_exam
from sweeps.journal.record import Record

pytestmark = pytest.mark.slow
TINY = (
    *("--trials", "1", "--epochs", "1", "--teacher.epochs", "1", "--evaluate.every", "1", "--evaluate.steps", "1"),
    *("--data.image-size", "32", "--model.width", "8", "--confirm", "1", "--final-seeds", "1"),
    *("--references", "at-bsl", "--search", "distill"),
)


def test_a_sweep_of_boxes_ends_with_its_table_records_and_a_model_that_answers_boxes(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    write_table(tmp_path / "pets" / "train.parquet", GOOD)
    write_table(tmp_path / "pets" / "test.parquet", GOOD[:3])
    done = run_search(tmp_path, "--data", "pets", "--name", "small", *TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    for text in ("mean AP50 over classes in percent", "| lowest of 3", "| minus AT-BSL", "lowest of PGD-1 on classes"):
        assert text in done.stdout
    runs = {run.data.tags["ltsd.job"]: run for run in mlflow_runs(tmp_path, "small")}
    for known in Record.read(tmp_path / "runs/small").of_kind("final"):
        hits, _ = read_exam(tmp_path / known.job.correctness)
        measured = runs[known.job.key].data.metrics["test/robust_map50"]
        assert measured == pytest.approx(np.nan_to_num(hits["worst"].mean_precision()), abs=1e-6)
    (card,) = (tmp_path / "runs/small/checkpoints").glob("*.md")
    assert "It finds objects of 2 classes" in card.read_text()
    (tmp_path / "photo.png").write_bytes(encoded(images_of(1, 32)[0]))
    code = (
        "import sys; sys.modules.update(ltsd=None, sweeps=None)\n"  # so that importing them fails
        "import mlflow, pandas as pd, pathlib\n"
        "model = mlflow.pyfunc.load_model('models:/ltsd-pets/1')\n"
        "print(*model.predict(pd.DataFrame({'image': [pathlib.Path('photo.png').read_bytes()]})).columns)\n"
    )
    uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    asked = [sys.executable, "-W", "ignore", "-c", code]
    answer = subprocess.run(asked, cwd=tmp_path, env=os.environ | uri, capture_output=True, text=True, check=False)
    assert answer.stdout.split() == ["boxes"], answer.stderr
