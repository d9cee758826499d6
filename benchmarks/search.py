"""Does a search pay? The finalist of a default sweep against untuned LTSD, on the same seeds, sweep after sweep.

    python benchmarks/search.py                          # ten sweeps of the digits, an hour of two cores
    python benchmarks/search.py --arm random --sweeps 5  # the same finals, points drawn at random

Each sweep is the default command with another --seed, so that data, trials and finals differ. Where the finalist is not
the defaults, untuned LTSD of that sweep is examined with the same AutoAttack after its clock has stopped. What is
measured is kept sweep by sweep in the JSON file, and not made again.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, hardware

from ltsd.data import load_splits
from ltsd.data.longtail import class_groups
from ltsd.evaluation.exam import examine
from ltsd.files import publishing
from ltsd.runs import load_model
from sweeps.journal.jobs import Job
from sweeps.journal.record import Record
from sweeps.results.confirm import Choice, mean
from sweeps.settings.sweep import Sweep

SEARCH = Path(__file__).parent.parent / "sweeps" / "search.py"
ARMS = {
    "default": "from sweeps.search import main",
    "random": "import sweeps.study.sampler as sampler; sampler.RANDOM_TRIALS = 10**9; from sweeps.search import main",
}
"""How the command is begun: as it is, or with a sampler that never leaves its random trials."""
INTRODUCTION = """# Does a search pay? Default sweeps of the digits

The finalist minus untuned LTSD on the same seeds and test images, points, the mean of three seeds; AutoAttack is
the standard version, eps 0.1. The last column: the finalist's confirmed score minus its AutoAttack accuracy.
Made by `python benchmarks/search.py` on {hardware}; every sweep in search.json.

"""


def swept(arm: str, seed: int, flags: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run a sweep in a folder, and examine what its finalist is compared with."""
    command = [sys.executable, "-c", f"{ARMS[arm]}; import sys; sys.exit(main(sys.argv[1:]))"]
    given = ["--name", "one", "--seed", str(seed), "--storage", str(folder / "runs"), *flags]
    began = time.monotonic()
    done = subprocess.run([*command, *given], cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    sweep = Sweep.resumed({"name": "one", "storage": str(folder / "runs")}, {})
    record = Record.read(folder / "runs" / "one")
    choice = Choice.of(record, sweep.objectives, sweep.settings.preference)
    assert choice.finalist is not None
    finalist = exams(record, f"final-finalist-{choice.finalist:04d}-s")
    untuned = finalist if choice.finalist == 0 else exams(record, "final-ltsd-s")
    scores = dict(zip(sweep.objectives.names, mean(choice.found[choice.finalist]), strict=True))
    return {
        **{"arm": arm, "seed": seed, "seconds": seconds, "trial": choice.finalist, "scores": scores},
        **{"params": record.proposals()[choice.finalist], "finalist": finalist, "untuned": untuned},
    }


def exams(record: Record, prefix: str) -> list[dict[str, float]]:
    """Return the numbers of the final runs of a row, two exams at a time."""
    jobs = [known.job for known in record.of_kind("final") if known.job.key.startswith(prefix)]
    with ProcessPoolExecutor(2) as pool:
        return list(pool.map(examined, jobs))


def examined(job: Job) -> dict[str, float]:
    """Return clean and AutoAttack's accuracy of a final run, all classes and tail; one thread."""
    torch.set_num_threads(1)
    model, content = load_model(job.checkpoint, torch.device("cpu"))
    test, groups = load_splits(job.config.data).test, class_groups(content["class_counts"])
    *_, (_, result) = examine(model, test, groups, job.config.attack, "standard", keep=job.correctness)
    names = ("clean_acc", "tail_clean_acc", "aa_acc", "tail_aa_acc", "pgd20_acc")
    return {name: result.values()[f"test/{name}"] for name in names}


def lead(sweep: dict[str, Any], name: str) -> float:
    """By how many points the finalist leads untuned LTSD, the mean over its seeds."""
    ours, theirs = (statistics.fmean(run[name] for run in sweep[row]) for row in ("finalist", "untuned"))
    return 100 * (ours - theirs)


def excess(sweep: dict[str, Any]) -> float:
    """By how many points the finalist's confirmed robust score is above its AutoAttack accuracy."""
    return 100 * (sweep["scores"]["robust"] - statistics.fmean(run["aa_acc"] for run in sweep["finalist"]))


def table(sweeps: list[dict[str, Any]]) -> str:
    """A row a sweep, and the means of an arm, in Markdown."""
    titles = {"aa_acc": "AutoAttack", "tail_aa_acc": "tail AutoAttack", "clean_acc": "clean"}
    lines = [
        f"| search | seed | minutes | finalist | {' | '.join(titles.values())} | score above AutoAttack |",
        "|---" * (5 + len(titles)) + "|",
    ]
    for arm in dict.fromkeys(sweep["arm"] for sweep in sweeps):
        of_arm = [sweep for sweep in sweeps if sweep["arm"] == arm]
        for sweep in of_arm:
            cells = " | ".join(f"{lead(sweep, name):+.1f}" for name in titles)
            finalist = f"trial {sweep['trial']}" if sweep["trial"] else "the defaults"
            minutes = f"{sweep['seconds'] / 60:.1f}"
            lines.append(f"| {arm} | {sweep['seed']} | {minutes} | {finalist} | {cells} | {excess(sweep):+.1f} |")
        means = " | ".join(f"**{_spread([lead(sweep, name) for sweep in of_arm])}**" for name in titles)
        minutes = f"{statistics.fmean(sweep['seconds'] for sweep in of_arm) / 60:.1f}"
        lines.append(
            f"| {arm} | mean of {len(of_arm)} | {minutes} | | {means} | {_spread(list(map(excess, of_arm)))} |"
        )
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):+.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def main() -> None:
    """Run the sweeps that are missing, one at a time; write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=10, help="how many, one a seed (default: 10)")
    parser.add_argument("--arm", choices=ARMS, default="default", help="what proposes the points (default: the search)")
    parser.add_argument("--out", type=Path, default=RESULTS / "search", help="where all goes, without suffix")
    flags, given = parser.parse_known_args()
    kept = flags.out.with_suffix(".json")
    sweeps: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    for seed in range(flags.sweeps):
        if any((sweep["arm"], sweep["seed"]) == (flags.arm, seed) for sweep in sweeps):
            continue
        with tempfile.TemporaryDirectory(prefix="ltsd-search-") as folder:
            sweeps.append(swept(flags.arm, seed, given, Path(folder)))
        with publishing(kept) as temporary:
            temporary.write_text(json.dumps(sweeps, indent=1))
        print(table(sweeps[-1:]).splitlines()[2], flush=True)
    with publishing(flags.out.with_suffix(".md")) as temporary:
        temporary.write_text(INTRODUCTION.format(hardware=hardware()) + table(sweeps) + "\n")
    print(flags.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
