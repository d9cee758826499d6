"""The wheel outside of a checkout: its commands run from what it holds alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the wheel is installed, without what it depends on."""
    path = tmp_path_factory.mktemp("wheel")
    for package in ("ltsd", "sweeps"):
        shutil.copytree(ROOT / package, path / "source" / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, path / "source")
    pip = (sys.executable, "-m", "pip", "--quiet")
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(path), str(path / "source")], check=True)
    (wheel,) = path.glob("ltsd-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(path / "site"), str(wheel)], check=True)
    return path / "site"


def run(site: Path, folder: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_command_is_there_and_trains(site: Path, tmp_path: Path) -> None:
    where = run(site, tmp_path, sys.executable, "-c", "import ltsd, sweeps; print(ltsd.__file__, sweeps.__file__)")
    assert all(path.startswith(str(site)) for path in where.split())
    scripts = {name: str(site / "bin" / name) for name in ("ltsd", "ltsd-search", "ltsd-audit")}
    flags = ("--method", "at", "--epochs", "1", "--model.width", "8")
    assert "at epoch 1/1" in run(site, tmp_path, scripts["ltsd"], "train", "--out", "one.pt", *flags)
    assert "--compare" in run(site, tmp_path, scripts["ltsd-search"], "--help")
    assert "--repair" in run(site, tmp_path, scripts["ltsd-audit"], "--help")


def test_its_types_are_known(site: Path) -> None:
    assert (site / "ltsd" / "py.typed").exists()
    assert (site / "sweeps" / "py.typed").exists()
