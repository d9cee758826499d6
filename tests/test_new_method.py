"""The documented way to a new method, taken by its word."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "", "HOME": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_one_file_and_one_line_give_flags_training_a_search_space_and_a_row(
    tmp_path: Path, small_flags: list[str]
) -> None:
    for package in ("ltsd", "sweeps"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (file,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "methods.md").read_text(), re.DOTALL)
    methods = tmp_path / "ltsd" / "methods"
    (methods / "alp.py").write_text(file)
    registry = (methods / "__init__.py").read_text()
    registry = registry.replace("import at,", "import alp, at,").replace(
        '    "at": at.METHOD,\n', '    "at": at.METHOD,\n    "alp": alp.METHOD,\n'
    )
    (methods / "__init__.py").write_text(registry)
    out = run(tmp_path, "-m", "ltsd", "train", "--method", "alp", "--alp.weight", "0.3", "--out", "a.pt", *small_flags)
    assert "alp epoch 3/3" in out
    space = (
        "from ltsd.config import Config\n"
        "from sweeps.settings.rows import title_of\n"
        "from sweeps.study.space import search_space\n"
        "print(*search_space(Config().override({'method': 'alp'}), 20.0, (), ('alp',)), title_of('alp+awp'))\n"
    )
    assert run(tmp_path, "-c", space).split() == ["alp.weight", "ALP", "+", "AWP"]
