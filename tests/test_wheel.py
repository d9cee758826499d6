"""The wheel outside of a checkout: its commands run from what it holds alone."""

import os
import shutil
import subprocess
import sys
import sysconfig
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
    scripts = {name: str(site / "bin" / name) for name in ("ltsd", "ltsd-sweep")}
    flags = ("--method", "at", "--epochs", "1", "--model.width", "8")
    assert "at epoch 1/1" in run(site, tmp_path, scripts["ltsd"], "train", "--out", "one.pt", *flags)
    commands = run(site, tmp_path, scripts["ltsd-sweep"], "--help")
    for command, flag in (("search", "--compare"), ("audit", "--repair"), ("report", "--storage")):
        assert f"  {command} " in commands
        assert flag in run(site, tmp_path, scripts["ltsd-sweep"], command, "--help")


def test_without_the_packages_of_a_sweep_models_train_and_a_sweep_names_what_to_install(
    site: Path, tmp_path: Path
) -> None:
    """The packages of this environment but for Ray, Optuna and MLflow are linked into a folder of their own."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("ray", "optuna", "mlflow", "sqlalchemy", "SQLAlchemy", "__editable__")):
            (packages / path.name).symlink_to(path)
    python = (sys.executable, "-S", "-c", "import sys; from {0} import command; sys.exit(command())")
    environment = os.environ | {"PYTHONPATH": f"{site}:{packages}", "OMP_NUM_THREADS": "1"}

    def call(module: str, *flags: str) -> subprocess.CompletedProcess[str]:
        start = (*python[:-1], python[-1].format(module), *flags)
        return subprocess.run(start, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    flags = ("--out", "one.pt", "--method", "at", "--epochs", "1", "--model.width", "8")
    trained = call("ltsd.__main__", "train", *flags)
    assert trained.returncode == 0, trained.stderr
    refused = call("sweeps.search", "--name", "none")
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        "error: a sweep needs ray, optuna, mlflow, sqlalchemy, not installed here; pip install"
    )
    assert not (tmp_path / "runs").exists()


def test_its_types_are_known(site: Path) -> None:
    assert (site / "ltsd" / "py.typed").exists()
    assert (site / "sweeps" / "py.typed").exists()
