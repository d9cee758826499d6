"""The field's methods side by side: the same splits, budget and seeds, the test set read once by each run.

    python benchmarks/methods.py digits                   # every method, five seeds, AutoAttack on the whole test set
    python benchmarks/methods.py digits --rows trades     # one row of it again
    python benchmarks/methods.py cifar10-small --data PATH --called "CIFAR-10 (JPEG copy)"
    python benchmarks/methods.py cifar10 --data PATH      # the published setting; wants a GPU

A comparison is a sweep without trials, or with some for a tuned row: its runs are Ray jobs, its records lie in runs/,
every result is an MLflow run, and the same command goes on after an interruption. Table and picture are copied to
benchmarks/results/.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from machine import RESULTS, hardware, versions

from ltsd.files import publishing
from sweeps.settings.rows import rows_named, title_of

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Setting:
    """What is compared, on what: `flags` are those of sweeps/search.py, `what` a line for the reader.

    With `trials`, the table has a row of what a search of so many on the validation images chose.
    """

    what: str
    rows: str
    seeds: int
    flags: Sequence[str]
    trials: int = 0


SMALL = (
    *("--data.imbalance-ratio", "20", "--data.n-max", "1000", "--data.test-per-class", "200"),
    *("--model.name", "small-resnet", "--epochs", "30", "--teacher.epochs", "15"),
    *("--attack.steps", "5", "--evaluate.every", "6"),
)
SETTINGS: Mapping[str, Setting] = {
    "digits": Setting(
        "long-tailed, imbalance ratio 20, the untuned defaults, AutoAttack standard on all test images",
        "all",
        5,
        ("--reference-attack", "standard"),
    ),
    "cifar10-small": Setting(
        "long-tailed, 1,000 images in the largest class, imbalance ratio 20, small-resnet, 30 epochs of PGD-5 "
        "(teacher 15), eps 8/255, 200 test images a class; the finalist is the best of 16 trials on validation images",
        "natural,at,trades,robal,reat,taet,at-bsl,ltsd",
        3,
        ("--reference-attack", "none", "--final-attack", "none", *SMALL),
        trials=16,
    ),
    "cifar10": Setting(
        "long-tailed, imbalance ratio 50, ResNet-18, 100 epochs of PGD-10, eps 8/255",
        "at-bsl,ltsd,at-bsl+ema,ltsd+ema,ltsd+ema+robustlt",
        3,
        ("--reference-attack", "standard", "--data.imbalance-ratio", "50"),
    ),
}


def main() -> int:
    """Run or go on with a comparison and keep what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=SETTINGS, help="what is compared")
    parser.add_argument("--rows", help="rows, comma-separated (default: those of the setting)")
    parser.add_argument("--seeds", type=int, help="seeds, counting from 0 (default: those of the setting)")
    parser.add_argument("--data", default="cifar10", help="CIFAR-10 of the two settings (default: torchvision's)")
    parser.add_argument("--called", help="what the table calls the images (default: digits or CIFAR-10)")
    parser.add_argument("--storage", default="runs", help="where the sweep lies (default: runs)")
    parser.add_argument("--concurrency", help="runs at a time (default: as many as the machine carries)")
    chosen = parser.parse_args()
    setting = SETTINGS[chosen.setting]
    rows, seeds = chosen.rows or setting.rows, chosen.seeds or setting.seeds
    name = f"methods-{chosen.setting}" + (f"-{rows.replace(',', '-').replace('+', '-')}" if chosen.rows else "")
    trials = 0 if chosen.rows else setting.trials
    flags = ["--name", name, "--storage", chosen.storage, "--trials", str(trials), "--references", rows]
    flags += ["--final-seeds", str(seeds), *setting.flags]
    flags += [] if chosen.setting == "digits" else ["--data", chosen.data]
    flags += ["--concurrency", chosen.concurrency] if chosen.concurrency else []
    folder = Path(chosen.storage) / name
    if folder.exists():
        flags.append("--resume")
    code = subprocess.run([sys.executable, str(ROOT / "sweeps" / "search.py"), *flags], check=False).returncode
    if code == 0 and not chosen.rows:
        images = chosen.called or ("scikit-learn's digits" if chosen.setting == "digits" else "CIFAR-10")
        keep(chosen.setting, f"{images}, {setting.what}", rows, folder)
    return code


def keep(name: str, what: str, rows: str, folder: Path) -> None:
    """Copy table and picture, with the command of every row, the versions and the hardware."""
    command = f"python benchmarks/methods.py {name}" + ("" if name == "digits" else " --data PATH")
    software = versions("torch", "ray", "pyautoattack", "ltsd")
    commands = [f"| {title_of(row)} | `{command} --rows {row}` |" for row in rows_named(rows)]
    text = [
        f"# Methods compared: {name}\n\n{what}.\nMade by `{command}`; {software}; {hardware()}.\n",
        (folder / "table.md").read_text(),
        f"![Robust against clean accuracy](methods-{name}.png)\n",
        "One row again:\n\n| row | command |\n|---|---|\n" + "\n".join(commands) + "\n",
    ]
    with publishing(RESULTS / f"methods-{name}.md") as temporary:
        temporary.write_text("\n".join(text))
    shutil.copy(folder / "pictures" / "trade_off.png", RESULTS / f"methods-{name}.png")


if __name__ == "__main__":
    sys.exit(main())
