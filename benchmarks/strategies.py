"""Which way of searching finds the better configuration? Whole sweeps, replayed hundreds of times.

    python benchmarks/strategies.py                # on the table of tabular.py; some fifteen minutes

Every strategy searches, confirms and chooses a finalist in the world of replays/world.py; replays/lineup.py has them
all. What counts is the finalist's true test accuracy, the mean over seeds, minus that of the defaults.
"""

import argparse
import itertools
import statistics
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import pyarrow.parquet as pq
import torch
from machine import RESULTS, hardware
from matplotlib.figure import Figure
from optuna.exceptions import ExperimentalWarning
from replays.choices import Outcome, outcome
from replays.lineup import Strategy, blocks
from replays.searches import Search, trials
from replays.table import TEST, Table
from replays.wide import SPACE
from replays.world import Replay, World
from rungs import draw_configurations

from ltsd.config import Config
from ltsd.data import load_splits
from ltsd.files import publishing

BASE = Config.preset("digits")
WORSE = 0.005
PART = 8
"""Replays that a process makes of a search before it takes up another."""
SLOW = 4
"""How many times fewer replays Optuna's Gaussian process has: a proposal takes a second."""
_SCORE = "worst of clean, CE-10, CW-10, LSA-10"
SCORED = [
    f"{of}/{group}" for of in (f"reserve/{_SCORE}", "test/APGD-CE+T", "reserve/clean") for group in ("all", "tail")
]
"""The columns of scores.parquet that are SCORES."""

_world: World


def _begin(world: World) -> None:
    global _world
    _world = world
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _job(strategies: Sequence[Strategy], numbers: Sequence[int]) -> list[list[Outcome]]:
    return replayed(strategies, numbers, _world)


def replayed(strategies: Sequence[Strategy], numbers: Iterable[int], world: World) -> list[list[Outcome]]:
    """The outcomes of strategies that share a search, by strategy: each takes as many of its trials as it makes."""
    search = strategies[0].search
    found: list[list[Outcome]] = [[] for _ in strategies]
    for number in numbers:
        play = Replay(world, number)
        ended = [*itertools.islice(trials(search, play), max(strategy.trials for strategy in strategies))]
        for strategy, outcomes in zip(strategies, found, strict=True):
            outcomes.append(outcome(search, strategy.confirm, ended[: strategy.trials], play))
    return found


Results = dict[Strategy, list[Outcome]]


def results(strategies: Iterable[Strategy], world: World, replays: int, processes: int) -> Results:
    """All outcomes; strategies that search alike share their trials."""
    by_search: dict[Search, list[Strategy]] = {}
    for strategy in dict.fromkeys(strategies):
        by_search.setdefault(strategy.search, []).append(strategy)
    found: Results = {}
    with ProcessPoolExecutor(processes, initializer=_begin, initargs=(world,)) as pool:
        for search, alike in by_search.items():
            numbers = range(replays // SLOW if search.proposes == "gp" else replays)
            parts = [numbers[start : start + PART] for start in range(0, len(numbers), PART)]
            outcomes = list(pool.map(partial(_job, alike), parts))
            for i, strategy in enumerate(alike):
                found[strategy] = [one for part in outcomes for one in part[i]]
                print(f"{strategy.name}: {_points(one.gain for one in found[strategy])}", flush=True)
    return found


def _points(values: Iterable[float]) -> str:
    """Mean and standard error, in points."""
    known = [100 * value for value in values]
    return f"{statistics.fmean(known):+.2f} ± {statistics.stdev(known) / len(known) ** 0.5:.2f}"


def _off(values: Iterable[float]) -> str:
    """Mean, and root mean square."""
    known = 100 * np.array(list(values))
    return f"{known.mean():+.1f} ({np.sqrt((known**2).mean()):.1f})"


def markdown(found: Results) -> str:
    """A table for each block."""
    header = (
        "| strategy | seconds | all | minus today's | tail | minus today's | clean | worse by 0.5 "
        "| the defaults remain | best trial's score | confirmed mean |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    return "\n\n".join(
        f"## {title}\n\n{header}\n" + "\n".join(_row(one, found[one], found[strategies[0]]) for one in strategies)
        for title, strategies in blocks().items()
    )


def _row(strategy: Strategy, found: Sequence[Outcome], baseline: Sequence[Outcome]) -> str:
    def minus(name: str) -> str:
        pairs = zip(found, baseline, strict=False)
        return "" if found is baseline else _points(getattr(one, name) - getattr(other, name) for one, other in pairs)

    cells = [
        strategy.name,
        f"{statistics.fmean(one.seconds for one in found):.0f}",
        *(_points(one.gain for one in found), minus("gain")),
        *(_points(one.tail_gain for one in found), minus("tail_gain")),
        _points(one.clean_gain for one in found),
        f"{100 * statistics.fmean(min(one.gain, one.tail_gain) < -WORSE for one in found):.0f}%",
        f"{100 * statistics.fmean(one.defaults for one in found):.0f}%",
        *(_off(getattr(one, name) for one in found) for name in ("excess", "confirmed")),
    ]
    return "| " + " | ".join(cells) + " |"


def draw(found: Results) -> Figure:
    """Gains of all classes and of the tail, a panel a block."""
    sizes = [len(strategies) for strategies in blocks().values()]
    figure = Figure(figsize=(9, 0.19 * sum(sizes) + 3), dpi=80, layout="constrained")
    panels = figure.subplots(len(sizes), 1, height_ratios=sizes, sharex=True)
    for axes, (title, strategies) in zip(panels, blocks().items(), strict=True):
        places = range(len(strategies))
        for name, label, color in (("gain", "all classes", "#1f77b4"), ("tail_gain", "tail", "#d95f02")):
            values = [100 * np.array([getattr(one, name) for one in found[strategy]]) for strategy in strategies]
            errors = [2 * of.std() / len(of) ** 0.5 for of in values]
            axes.errorbar([of.mean() for of in values], places, xerr=errors, fmt="o", ms=4, label=label, color=color)
        axes.set(title=title, ylim=(len(strategies) - 0.5, -0.5))
        axes.set_yticks(places, [strategy.name for strategy in strategies], fontsize="small")
        axes.axvline(0, color="#999999", linewidth=0.8)
        axes.grid(axis="x", alpha=0.3)
    panels[0].legend(fontsize="small")
    panels[-1].set(xlabel="test accuracy minus the defaults', points; two standard errors")
    return figure


def read(path: Path, scores: Path) -> Table:
    """The table, joined by the configurations of the default groups that scores.py trained."""
    splits = load_splits(BASE.data)
    defaults = BASE.flatten()
    rows = pq.read_table(scores).to_pylist() if scores.exists() else []
    drawn = draw_configurations(1 + max((row["configuration"] for row in rows), default=-1), seed=0)
    others = [(row["configuration"], defaults | drawn[row["configuration"]], [row[c] for c in SCORED]) for row in rows]
    labels = {"reserve": splits.reserve, "test": splits.test}
    of_images = {name: split.labels[split.rows].numpy() for name, split in labels.items()}
    return Table.read(path, SPACE, of_images, splits.train.class_counts(), others)


def text(table: Table, world: World, found: Results, command: str) -> str:
    """The whole report."""
    replays = max(map(len, found.values()))
    _, points, scores = table.sampled
    measured = zip(world.landscape.quality(table).items(), world.landscape.noise(), strict=True)
    quality = "\n".join(f"| {name} | {r2:.2f} | {rho:.2f} | {100 * sd:.1f} |" for (name, (r2, rho)), sd in measured)
    at_defaults = (points == world.defaults).all(-1)
    seen, drawn = (100 * of.mean(0)[TEST] for of in (scores[at_defaults], world.truths[at_defaults].mean(1)))
    return f"""# Strategies: which sweep finds the better configuration?

LTSD on the digits at imbalance ratio 20. Sweeps replayed {replays} times each on {len(table.points)} runs of \
{len(table.distinct)} random configurations of all groups (tabular.parquet) and {len(points) - len(table.points)} of \
the method's own knobs and the balance's (scores.parquet). Made by `{command}` on {hardware()}.

"all", "tail" and "clean": the finalist's accuracy on the test set under APGD-CE+T, of all classes and of the tail, \
and its clean accuracy on the reserve, minus those of the defaults, in points, mean ± standard error over replays; \
"minus today's": of the same replays. "Worse by 0.5": how often either of the first two is below -0.5. "Seconds": of \
a core, for trials and confirmations that are trained with ten attack steps; with four, as in sweeps, it is half. By \
how much scores of all classes are above the test accuracy, mean (root mean square): the best trial's, and the mean of \
the finalist's confirmation. Optuna's Gaussian process has a quarter of the replays.

What matters is how strategies compare: gains over the defaults are too high, since the surrogate draws the defaults \
towards their neighbours, {drawn[0]:.1f} and {drawn[1]:.1f} in the tail for {seen[0]:.1f} and {seen[1]:.1f} measured.

{markdown(found)}

## The surrogate

Out of sample, ten folds: R2 and Spearman's correlation of what is foretold of a configuration with what one run of it \
had; the standard deviation of a run around its configuration, in points, which nothing can foretell.

| score | R2 | Spearman | noise |
|---|---|---|---|
{quality}

![strategies](strategies.png)
"""


def main() -> None:
    """Replay everything; write table and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=RESULTS / "tabular.parquet", help="what tabular.py made")
    parser.add_argument("--scores", type=Path, default=RESULTS / "scores.parquet", help="what scores.py made")
    parser.add_argument("--replays", type=int, default=500, help="of each strategy (default: 500)")
    parser.add_argument("--processes", type=int, default=2, help="at a time (default: 2)")
    parser.add_argument("--out", type=Path, default=RESULTS / "strategies", help="where all goes, without suffix")
    flags = parser.parse_args()
    table = read(flags.table, flags.scores)
    world = World.made(table, flags.replays, seed=0)
    found = results(itertools.chain(*blocks().values()), world, flags.replays, flags.processes)
    command = f"python benchmarks/strategies.py --replays {flags.replays}"
    with publishing(flags.out.with_suffix(".md")) as temporary:
        temporary.write_text(text(table, world, found, command))
    draw(found).savefig(flags.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
