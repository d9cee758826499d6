"""Environment variables that a sweep obeys or overrides; that it does so: test_sweep.py and test_cluster.py."""

import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
from sweeping import ELSEWHERE

from ltsd.errors import UserError
from sweeps.driver import run_sweep
from sweeps.machines import environment as of_ray
from sweeps.machines.machine import OwnMachine
from sweeps.settings.sweep import Sweep
from sweeps.tracking import environment as of_mlflow
from sweeps.tracking.tracker import Tracker

PAGE = (Path(__file__).parent.parent / "docs" / "environment.md").read_text("utf-8")
TELLS = """
import sys
from sweeps.machines import environment as of_ray
from sweeps.tracking import environment as of_mlflow
print(*of_ray.told(joins=sys.argv[1] == "joins"), *of_mlflow.told(), sep="\\n")
"""


@pytest.mark.parametrize(
    "name", [*of_ray.STARTED, *of_ray.TUNE, *of_ray.JOINED, *of_mlflow.HIDDEN, *of_mlflow.OBEYED, *ELSEWHERE]
)
def test_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE or (name.startswith("TUNE_") and "`TUNE_*`" in PAGE)


def told(how: str, variables: dict[str, str]) -> str:
    """What is told where these are set and no others."""
    env = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ} | variables
    return subprocess.run(
        [sys.executable, "-c", TELLS, how], env=env, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("how", ["starts", "joins"])
def test_nothing_is_told_of_what_is_not_set(how: str) -> None:
    assert told(how, {}) == ""


@pytest.mark.parametrize(("how", "obeyed"), [("joins", of_ray.JOINED), ("starts", {}), ("starts", of_mlflow.OBEYED)])
def test_what_is_obeyed_is_told_by_its_name_alone(how: str, obeyed: dict[str, str]) -> None:
    names = [*obeyed, "XDG_CACHE_HOME", "RAY_memory_usage_threshold"]
    said = told(how, dict.fromkeys(names, "S3cret"))
    assert {line.split(" is obeyed")[0] for line in said.splitlines()} == set(names)
    assert "S3cret" not in said


@pytest.mark.parametrize(("length", "how"), [(29, "obeyed"), (30, "overridden")])
def test_a_scratch_path_is_obeyed_if_a_socket_has_room_below_it(length: int, how: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        place = Path(folder, "x" * (length - len(folder) - 1))
        place.mkdir()
        lies = place if how == "obeyed" else "/tmp"
        assert told("starts", {"TMPDIR": str(place)}) == f"TMPDIR is {how}: Ray's own files lie in {lies}"


def test_warnings_of_libraries_are_left_out_before_mlflow_opens_in_its_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def refuse(*_: object) -> None:
        raise UserError("no Ray")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setattr(Tracker, "open", lambda *_: seen.append(warnings.filters[0][0]))
    monkeypatch.setattr(Tracker, "refuse", lambda *_, **__: None)
    monkeypatch.setattr(OwnMachine, "start", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match="no Ray"):
            run_sweep(Sweep.new({"name": "one"}, {}))
    assert seen == ["ignore"]
