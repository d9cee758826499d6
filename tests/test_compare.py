"""Rows compared without a search, on real Ray and MLflow, and gone on with."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sweeping import SEARCH, mlflow_runs, run_search

from ltsd.evaluation.comparison import paired_difference
from ltsd.evaluation.correctness import read_correctness

FAST = (
    *("--epochs", "2", "--teacher.epochs", "1", "--evaluate.every", "2", "--model.width", "8"),
    *("--data.test-per-class", "10", "--reference-attack", "none"),
)
ROWS = "at-bsl,ltsd+robustlt"
DAMAGED = "runs/rows/correctness/final-ltsd+robustlt-s1.parquet"


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two rows were compared on two seeds, and a third row added after a file of the second was damaged."""
    path = tmp_path_factory.mktemp("compare")
    first = run_search(path, "--name", "rows", "--trials", "0", "--references", ROWS, "--final-seeds", "2", *FAST)
    assert first.returncode == 0, first.stdout + first.stderr
    shutil.copy(path / "runs/rows/table.md", path / "first.md")
    whole = (path / DAMAGED).read_bytes()
    (path / DAMAGED).write_bytes(whole[:100])
    more = run_search(path, "--name", "rows", "--resume", "--references", f"{ROWS},mart")
    assert more.returncode == 0, more.stdout + more.stderr
    (path / DAMAGED).write_bytes(whole)
    (path / "first.txt").write_text(first.stdout)
    (path / "more.txt").write_text(more.stdout)
    return path


def test_trains_no_trial_and_every_row_on_every_seed(folder: Path) -> None:
    kinds = Counter(run.data.tags["ltsd.kind"] for run in mlflow_runs(folder, "rows"))
    assert kinds == {"sweep": 1, "teacher": 2, "final": 6}
    keys = {json.loads(line[9:])["job"] for line in (folder / "runs/rows/journal.jsonl").read_text().splitlines()}
    assert {key for key in keys if key.startswith("final")} == {
        f"final-{row}-s{seed}" for row in (*ROWS.split(","), "mart") for seed in (0, 1)
    }


def test_a_row_that_is_added_leaves_the_others_as_they_were(folder: Path) -> None:
    said = (folder / "more.txt").read_text()
    assert "final-mart-s0 starts" in said
    assert "final-at-bsl-s0 starts" not in said
    assert "teachers: 2 trained" in said


def titles(table: str) -> list[str]:
    return [line.split("|")[1].strip() for line in table.splitlines()[2:]]


def test_the_table_has_a_line_a_row_and_their_lead_over_at_bsl(folder: Path) -> None:
    accuracies, leads = (part.split("\n\n")[0] for part in (folder / "first.md").read_text().split("\n\n|")[1:])
    assert titles("|" + accuracies) == ["AT-BSL", "LTSD + RobustLT"]
    assert titles("|" + leads) == ["LTSD + RobustLT"]


def test_the_lead_is_that_of_the_correctness_files_image_by_image(folder: Path) -> None:
    correctness = {
        row: [
            read_correctness(folder / f"runs/rows/correctness/final-{row}-s{seed}.parquet")[0]["clean"]
            for seed in (0, 1)
        ]
        for row in ROWS.split(",")
    }
    lead = paired_difference(correctness["ltsd+robustlt"], correctness["at-bsl"], classes=None, seed=0)
    cell = f"{100 * lead.mean:+.1f} [{100 * lead.low:+.1f}, {100 * lead.high:+.1f}]"
    (line,) = (folder / "first.md").read_text().split("minus AT-BSL")[1].strip().splitlines()[2:3]
    assert line.split("|")[2].strip() == cell


def test_the_record_agrees_with_mlflow_and_checkpoints(folder: Path) -> None:
    audit = [sys.executable, str(SEARCH.with_name("audit.py")), "rows"]
    done = subprocess.run(audit, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all agree on 8 jobs" in done.stdout


def test_where_a_correctness_file_is_lost_the_table_says_so_and_has_the_accuracies_all_the_same(folder: Path) -> None:
    said = (folder / "more.txt").read_text()
    assert f"the leads over the baseline cannot be told: {folder / DAMAGED}" in said
    accuracies, *_ = (folder / "runs/rows/table.md").read_text().split("\n\n|")[1].split("\n\n")
    assert titles("|" + accuracies) == ["AT-BSL", "LTSD + RobustLT", "MART"]
