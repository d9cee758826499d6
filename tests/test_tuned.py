"""References that are tuned as the method is, on real Ray and MLflow: a search each, in one sweep, broken off once."""

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sweeping import SEARCH, SMALL, mlflow_runs, run_search, run_until

from sweeps.journal.record import Record

pytestmark = pytest.mark.slow
ALONE = ("--concurrency", "1", *SMALL)
TUNED = ("--name", "tuned", "--compare", "tuned", "--references", "ltsd,at-bsl", *ALONE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a sweep tuned LTSD and AT-BSL, and another one AT-BSL alone."""
    path = tmp_path_factory.mktemp("tuned")
    code, said = run_until(path, "trial-at-bsl-0001 starts", signal.SIGINT, *TUNED)
    assert code == 130, said
    assert "python sweeps/search.py --name tuned --resume" in said
    assert "RUNNING" not in {run.info.status for run in mlflow_runs(path, "tuned")}
    done = run_search(path, "--name", "tuned", "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    (path / "out.txt").write_text(done.stdout)
    alone = run_search(path, "--name", "alone", "--method", "at-bsl", "--references", "at-bsl", *ALONE)
    assert alone.returncode == 0, alone.stdout + alone.stderr
    return path


def found(record: Record, row: str) -> dict[str, Any]:
    """What a search tried, and what it measured, without the names of its jobs."""
    kinds = ("trial", "confirm", "final")
    return {
        "proposals": record.proposals(row),
        **{
            f"{known.job.kind} {known.job.config.flatten()}": (
                {epoch: report.values for epoch, report in known.epochs.items()},
                known.result and known.result.values,
            )
            for kind in kinds
            for known in record.of_kind(kind, row)
        },
    }


def test_a_reference_is_tuned_as_a_sweep_of_its_own_tunes_it(folder: Path) -> None:
    tuned, alone = (Record.read(folder / "runs" / name) for name in ("tuned", "alone"))
    theirs = found(alone, "")
    assert len(theirs["proposals"]) == 3
    for what, measured in found(tuned, "at-bsl").items():
        assert measured == theirs[what]


def test_after_an_interruption_no_finished_trial_is_run_again_and_mlflow_has_one_run_a_job(folder: Path) -> None:
    assert "trial-0000 done" in (folder / "interrupted.log").read_text()
    assert "trial-0000 starts" not in (folder / "out.txt").read_text()
    runs = mlflow_runs(folder, "tuned")
    assert Counter(run.data.tags["ltsd.job"] for run in runs).most_common(1)[0][1] == 1
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_the_table_has_each_reference_tuned_and_the_leads_are_over_the_tuned_one(folder: Path) -> None:
    text = (folder / "runs/tuned/table.md").read_text()
    rows = [line.split("|")[1].strip() for line in text.split("\n\n")[1].splitlines()[2:]]
    assert rows[0] == "finalist"
    assert "AT-BSL, tuned" in rows
    assert "minus AT-BSL, tuned" in text
    assert "the front of the search of AT-BSL" in text


def test_journal_studies_checkpoints_and_mlflow_agree_on_every_search(folder: Path) -> None:
    audit = [sys.executable, str(SEARCH.with_name("audit.py")), "tuned"]
    done = subprocess.run(audit, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trial-at-bsl-0002" in done.stdout
    of_row = [run for run in mlflow_runs(folder, "tuned") if run.data.tags.get("ltsd.row") == "at-bsl"]
    kinds = [run.data.tags["ltsd.kind"] for run in of_row]
    assert (kinds.count("trial"), kinds.count("final")) == (3, 1)


def test_a_study_that_is_gone_is_written_again(folder: Path) -> None:
    (folder / "runs/tuned/study-at-bsl.db").unlink()
    audit = [sys.executable, str(SEARCH.with_name("audit.py")), "tuned"]
    done = subprocess.run(audit, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "study-at-bsl.db cannot be read" in done.stdout
    done = subprocess.run([*audit, "--repair"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
