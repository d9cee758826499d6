"""What a user gets wrong on the main command: exit code 2, one message, nothing left behind."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from sweeping import command, mlflow_runs

from ltsd.flags import exit_code_of
from sweeps.search import main


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--attack.eps", "8"), "write 8/255"),
        (("--distill.temperature", "0"), "distill.temperature = 0.0 is out of range"),
        (("--data.imbalance-ratio", "0.5"), "it is n_max / n_min"),
        (("--data", "no/such/place"), "no such file or folder"),
        (("--resume", "--name", "never"), "there is no sweep in runs/never"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_flag_that_cannot_be_is_told_before_anything_begins(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code_of(lambda: main(flags)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert told in said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--data.image-size", "32"), "the images of digits have one size and are read as they are"),
        (("--tirals", "3"), "did you mean '--trials'"),
        (("--gpus-per-trial", "1"), "this machine has"),
        (("--data", "digits-scenes", "--final-attack", "standard"), "AutoAttack needs one label per image"),
        (("--data", "digits-scenes", "--references", "reat"), "--method reat: compares the features of whole images"),
        (("--storage", "file/below"), "cannot be used"),
        (("--tracking-uri", "http://someone:secret@127.0.0.1:9"), "MLflow does not answer there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_is_told_in_one_message(tmp_path: Path, flags: tuple[str, ...], told: str) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    done = subprocess.run(command(*flags), cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert told in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.slow
def test_a_ray_that_does_not_start_is_told_in_one_message(tmp_path: Path) -> None:
    spilling = json.dumps({"type": "filesystem", "params": {"directory_path": "/proc/none"}})
    env = os.environ | {"RAY_object_spilling_config": spilling, "TMPDIR": str(tmp_path)}
    flags = command("--name", "night")
    done = subprocess.run(flags, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: Ray does not start on this machine ([Errno 2] No such file or directory")
    assert "unset RAY_object_spilling_config, which Ray obeys" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("runs/*"))
    assert not mlflow_runs(tmp_path, "night")
