"""Does the search find less where TPE sees a part of the trials instead of all?

    python benchmarks/window.py     # some minutes; writes results/window.md

Two functions of six numbers between 0 and 1, measured with noise of standard deviation 0.1, by TPE on all trials and by
the sampler of a sweep, which agree until there are more trials than that sees. As in a sweep, what is below the median
of a first measurement is not completed. What counts is not what was measured but the function itself, without noise.
"""

import argparse
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import optuna
from machine import RESULTS, hardware, versions
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from ltsd.files import publishing
from sweeps.study.sampler import RANDOM_TRIALS, SEEN, BoundedTPE

NOISE = 0.1
BEST = 10
SPACE: dict[str, BaseDistribution] = {f"x{index}": FloatDistribution(0, 1) for index in range(6)}
SAMPLERS: dict[str, Callable[[int], TPESampler]] = {
    "all": lambda seed: TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS),
    str(SEEN): lambda seed: BoundedTPE(SPACE, seed),
}


def hartmann(point: np.ndarray) -> float:
    """Hartmann's function in six dimensions, turned over; its highest value is 3.322."""
    a = np.array(
        [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
    )
    p = np.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    )
    return float(np.array([1, 1.2, 3, 3.2]) @ np.exp(-(a * (point - p / 10_000) ** 2).sum(1)))


def levy(point: np.ndarray) -> float:
    """A tenth of Levy's function on [-10, 10]^6, turned over: many local maxima; its highest value is 0."""
    w = 1 + (20 * point - 11) / 4
    middle = ((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:-1] + 1) ** 2)).sum()
    ends = np.sin(np.pi * w[0]) ** 2 + (w[-1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[-1]) ** 2)
    return -float(middle + ends) / 10


FUNCTIONS = {"Hartmann": hartmann, "Levy": levy}


def search(function: str, sampler: str, seed: int, trials: int) -> tuple[float, float]:
    """What a search found: the function at the best point of all, and its mean over those with the best scores."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", pruner=MedianPruner(n_startup_trials=4))
    noise = np.random.default_rng(seed)
    values, scores = [], []
    for number in range(trials):
        study.sampler = SAMPLERS[sampler](seed * 100_003 + number)
        trial = study.ask(SPACE)
        values.append(FUNCTIONS[function](np.array([trial.params[name] for name in SPACE])))
        first, last = values[-1] + noise.normal(0, NOISE, 2)
        trial.report(first, 1)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, last)
            scores.append((last, number))
    return max(values), statistics.fmean(values[number] for _, number in sorted(scores)[-BEST:])


def main() -> None:
    """Search and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1500, help="trials of a search")
    parser.add_argument("--seeds", type=int, default=10, help="searches of each kind")
    parser.add_argument("--out", type=Path, default=RESULTS / "window.md", help="where the table goes")
    flags = parser.parse_args()
    jobs = [(function, sampler, seed) for function in FUNCTIONS for sampler in SAMPLERS for seed in range(flags.seeds)]
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(search, *zip(*jobs, strict=True), [flags.trials] * len(jobs)))
    rows = [f"| function | trials that TPE sees | best point | mean of the {BEST} best scored |", "|---|---|---|---|"]
    for function in FUNCTIONS:
        for sampler in SAMPLERS:
            of_kind = [result for job, result in zip(jobs, found, strict=True) if job[:2] == (function, sampler)]
            cells = [
                f"{statistics.fmean(part):.3f} ± {statistics.stdev(part):.3f}" for part in zip(*of_kind, strict=True)
            ]
            rows.append(f"| {function} | {sampler} | {' | '.join(cells)} |")
    told = f"after {flags.trials} trials, higher is better: mean ± standard deviation of {flags.seeds} searches"
    with publishing(flags.out) as temporary:
        temporary.write_text(
            f"# What the search finds where TPE sees {SEEN} trials at most\n\n"
            f"Made by `python benchmarks/window.py --trials {flags.trials} --seeds {flags.seeds}`; "
            f"{versions('optuna')}; {hardware()}. The function's own value {told}.\n\n" + "\n".join(rows) + "\n"
        )
    print(flags.out.read_text())


if __name__ == "__main__":
    main()
