"""The main job without a flag, as the README has it, within its time on two cores that do nothing else."""

import time
from pathlib import Path

import pytest
from sweeping import mlflow_runs, run_search

pytestmark = pytest.mark.slow
LIMIT_MINUTES = 15
"""Twice what the README tells: the same processor was seen to take nearly twice as long on another day."""
CIFAR10 = Path(__file__).parent.parent.parent / "shared" / "data" / "cifar10-jpeg"


@pytest.mark.timed
def test_finishes_with_a_finalist_examined_by_autoattack(tmp_path: Path) -> None:
    started = time.monotonic()
    done = run_search(tmp_path, timeout=900)
    minutes = (time.monotonic() - started) / 60
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "AutoAttack" in done.stdout
    assert "deviation of 3 seeds" in done.stdout
    name = next((tmp_path / "runs").glob("digits-ltsd-*")).name
    runs = mlflow_runs(tmp_path, name)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert sum(run.data.tags["ltsd.kind"] == "trial" for run in runs) == 24
    print(f"{minutes:.1f} minutes")
    assert minutes < LIMIT_MINUTES


@pytest.mark.skipif(not CIFAR10.exists(), reason="needs the JPEG copy of CIFAR-10 beside the project")
def test_cifar10_from_parquet_finishes_within_fifteen_minutes(tmp_path: Path) -> None:
    small = (
        *("--data.n-max", "100", "--data.val-per-class", "5", "--data.test-per-class", "5", "--model.width", "8"),
        *("--teacher.epochs", "1", "--confirm", "1", "--final-seeds", "1", "--final-attack", "apgd-ce+t"),
        *("--references", "at-bsl"),
    )
    done = run_search(tmp_path, "--data", str(CIFAR10), "--trials", "2", "--epochs", "2", *small, timeout=900)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "drawn with exponential tail at imbalance ratio 50" in done.stdout
    assert "50 images" in done.stdout
