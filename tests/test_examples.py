"""The examples, run as their reader runs them; what they print is what commands and functions of the package say."""

import json
import os
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from imagesets import write_folder
from nbclient import NotebookClient
from sklearn.datasets import load_digits

from ltsd.__main__ import main
from ltsd.checkpoint import load_checkpoint, save_checkpoint
from ltsd.evaluation.comparison import paired_difference
from ltsd.evaluation.correctness import read_correctness, write_correctness
from ltsd.evaluation.evaluate import Correctness
from ltsd.evaluation.exam import TITLES

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
ATTACKED_ON_BOTH = {"clean": "clean", "PGD-20": "pgd20", "APGD-CE+T": "apgd-t"}
NOTEBOOK = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)


def run(folder: Path, *command: str | Path) -> str:
    """Run Python in a folder, on this checkout."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_own_images_are_learned_and_examined_as_the_commands_do_it(tmp_path: Path) -> None:
    digits = load_digits()
    rows = np.concatenate([np.flatnonzero(digits.target == c)[:n] for c, n in enumerate((6, 18, 8, 12))])
    images = (digits.images[rows, :, :, None].repeat(3, 3) * 15.9).astype(np.uint8)
    folder = tmp_path / "images"
    write_folder(folder, list(images), list(digits.target[rows]), ("none", "one", "two", "three"))
    said = run(tmp_path, EXAMPLES / "own_images.py", folder)
    twin, written = tmp_path / "twin.pt", tmp_path / "twin.json"
    flags = ("--data.image-size", "32", "--model.name", "small-resnet", "--teacher.epochs", "10", "--epochs", "20")
    main(["train", "--data", str(folder), *flags, "--complete", "--out", str(twin)])
    main(["evaluate", str(twin), "--json", str(written)])
    weights = [load_checkpoint(path)["student"] for path in (tmp_path / "runs" / "own_images.pt", twin)]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    found = json.loads(written.read_text())
    for name, title in TITLES.items():
        values = [found["metrics"][f"test/{group}{name}_acc"] for group in ("", "tail_")]
        assert re.search(rf"^ *{title} +{values[0]:.1%} +{values[1]:.1%}$", said, re.MULTILINE)
    assert f"{found['images']} test images" in said


@pytest.mark.slow
def test_a_new_method_is_trained_examined_and_compared(tmp_path: Path, small_flags: list[str]) -> None:
    new_method, alp, at = EXAMPLES / "new_method.py", tmp_path / "alp.pt", tmp_path / "at.pt"
    flags = ("--method", "alp", "--alp.weight", "0.3", *small_flags)
    assert "alp epoch 3/3" in run(tmp_path, new_method, "train", *flags, "--out", alp)
    assert load_checkpoint(alp)["config"]["alp.weight"] == 0.3
    files = {path: path.with_suffix(".parquet") for path in (alp, at)}
    run(tmp_path, new_method, "evaluate", alp, "--correctness", files[alp])
    main(["train", "--method", "at", *small_flags, "--out", str(at)])
    main(["evaluate", str(at), "--correctness", str(files[at])])
    said = run(tmp_path, EXAMPLES / "compare.py", "--ours", files[alp], "--theirs", files[at], "--checkpoint", at)
    sides = [[read_correctness(file)[0]["pgd20"]] for file in files.values()]
    assert f"PGD-20 {lead(sides, None):>22}" in said


def test_the_new_method_is_the_one_of_the_documents() -> None:
    (documented,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "methods.md").read_text(), re.DOTALL)
    example = (EXAMPLES / "new_method.py").read_text()
    code = example[example.index("from dataclasses") : example.index("if __name__")]
    assert documented.split('"""', 2)[2].strip() == code.strip()


def lead(sides: list[list[Correctness]], classes: list[int] | None) -> str:
    found = paired_difference(*sides, classes=classes, seed=0)
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def test_a_comparison_has_the_paired_differences_of_what_both_sides_were_examined_with(tmp_path: Path) -> None:
    random, labels = np.random.default_rng(0), torch.arange(6).repeat(40)

    def seeds(rate: float) -> list[Correctness]:
        return [Correctness(torch.from_numpy(random.random(len(labels)) < rate), labels, 6) for _ in range(3)]

    sides = {
        "ours": {"clean": seeds(0.9), "pgd20": seeds(0.7), "apgd-t": seeds(0.6), "square": seeds(0.5)},
        "theirs": {"clean": seeds(0.8), "pgd20": seeds(0.5), "apgd-t": seeds(0.45)},
    }
    for side, attacks in sides.items():
        for seed in range(3):
            found = {attack: correctness[seed] for attack, correctness in attacks.items()}
            write_correctness(tmp_path / f"{side}-s{seed}.parquet", found, "of an exam")
    save_checkpoint(tmp_path / "one.pt", {"config": {}, "class_counts": [5, 90, 40, 70, 9, 30]})
    flags = [text for side in sides for text in (f"--{side}", *sorted(tmp_path.glob(f"{side}-s*")))]
    lines = run(tmp_path, EXAMPLES / "compare.py", *flags, "--checkpoint", "one.pt").splitlines()
    pairs = {title: [side[attack] for side in sides.values()] for title, attack in ATTACKED_ON_BOTH.items()}
    assert [re.split("  +", line.strip()) for line in lines] == [
        ["points", "all classes", "tail"],
        *([title, lead(pair, None), lead(pair, [0, 4])] for title, pair in pairs.items()),
    ]


def test_the_notebook_is_stored_without_its_outputs() -> None:
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in NOTEBOOK.cells)


@pytest.mark.slow
def test_the_notebook_shows_the_tail_its_recalls_and_attacked_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = NotebookClient(
        deepcopy(NOTEBOOK), timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    shown = ["image/png" in output.data for of_cell in outputs for output in of_cell if "data" in output]
    assert shown == [True] * 3
    said = "".join(output.text for of_cell in outputs for output in of_cell if "text" in output)
    assert said.count("epoch") == 2 + 4
    assert re.search(r"^ +9 +6 +tail( +\d+\.\d){6}$", said, re.MULTILINE)
    assert "539 test images" in said
