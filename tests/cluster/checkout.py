"""A checkout as its user has it: the code, and beside it all that stays at home."""

import shutil
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent
CODE = ("ltsd", "sweeps", "benchmarks", "setup.cfg", "pyproject.toml", "constraints.txt", "README.md")
BESIDE = (
    *(".venv/lib/torch.so", "venv/pyvenv.cfg", "my env/bin/python", ".git/config", "ltsd.egg-info/PKG-INFO"),
    *("runs/night/journal.jsonl", "mlruns/1/meta.yaml", "mlflow.db", "mlartifacts/1/one.pt", "data/images.parquet"),
    *("one.pt", ".env", "tests/conftest.py", "ltsd/__pycache__/of-another-python.pyc"),
)


def make_checkout(folder: Path) -> None:
    """Copy the code, and write a file of each kind beside it."""
    folder.mkdir()
    for name in CODE:
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
        copy(PROJECT / name, folder / name)
    for name in BESIDE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")


def code_of(folder: Path) -> set[Path]:
    """The files of a checkout that hosts are sent, relative to it."""
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path for path in files if path.parts[0] in CODE and "__pycache__" not in path.parts}
