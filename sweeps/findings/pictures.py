"""The pictures of a sweep: its scores, what mattered, the final comparison."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import optuna
from matplotlib.figure import Figure
from optuna.trial import TrialState

from ltsd.files import publishing
from sweeps.findings.finals import Results, summary
from sweeps.settings.rows import title_of

DPI = 80
SLANT = 20
GAP = (np.nan, np.nan)
MARKERS = "osD^v*P"
TRADED = {
    "all classes": ("clean_acc", ("aa_acc", "pgd20_acc")),
    "tail classes": ("tail_clean_acc", ("tail_aa_acc", "tail_robust_acc")),
}
ATTACKS = {"aa_acc": "AutoAttack", "tail_aa_acc": "AutoAttack", "pgd20_acc": "PGD-20", "tail_robust_acc": "PGD-20"}
BARS = {"clean": "test/clean_acc", "PGD-20": "test/pgd20_acc", "tail PGD-20": "test/tail_robust_acc"}


def draw_sweep(study: optuna.Study, results: Results, folder: Path) -> list[Path]:
    """Write the pictures that the study and the finals can give; returns their paths."""
    matplotlib.use("Agg")
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    drawn: dict[str, Callable[[], Figure]] = {}
    if study.get_trials(deepcopy=False):
        drawn["scores"] = lambda: scores_over_time(study)
    if len(complete) > 1 and len(complete[0].params) > 1:
        drawn["importances"] = lambda: _of_optuna(optuna.visualization.matplotlib.plot_param_importances, study)
        drawn["parallel_coordinates"] = lambda: _of_optuna(
            optuna.visualization.matplotlib.plot_parallel_coordinate, study
        )
    if results:
        drawn["finals"] = lambda: final_bars(results)
        drawn["trade_off"] = lambda: trade_off(results)
    paths = []
    for name, draw in drawn.items():
        path = folder / "pictures" / f"{name}.png"
        with publishing(path) as temporary, temporary.open("wb") as file:
            draw().savefig(file, format="png", dpi=DPI)
        paths.append(path)
    return paths


def _of_optuna(plot: Callable[[optuna.Study], Any], study: optuna.Study) -> Figure:
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")
        axes = plot(study)
    figure: Figure = axes.figure
    figure.set_size_inches(10, 4.5)
    figure.set_layout_engine("tight")
    return figure


def scores_over_time(study: optuna.Study) -> Figure:
    """The validated score of every trial at every epoch, and at the end; trials stopped early end where they did."""
    figure = Figure(figsize=(10, 4), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.intermediate_values]
    for done, colour, marker in ((False, "#bbbbbb", "x"), (True, "#3c93c2", "o")):
        of_kind = [trial for trial in trials if (trial.state == TrialState.COMPLETE) == done]
        curves = [sorted(trial.intermediate_values.items()) for trial in of_kind]
        # One line with gaps: a line a trial takes half a minute for thousands of them.
        points = np.array([point for curve in curves for point in (*curve, GAP)]).reshape(-1, 2)
        left.plot(points[:, 0], points[:, 1], color=colour, alpha=0.8)
        right.scatter(
            [trial.number for trial in of_kind], [curve[-1][1] for curve in curves], color=colour, marker=marker
        )
    left.set(xlabel="epoch", ylabel="val/robust_acc", title="every trial (grey: stopped early)")
    right.set(xlabel="trial", ylabel="val/robust_acc", title="last score (x: stopped early)")
    return figure


def final_bars(results: Results) -> Figure:
    """Clean, PGD-20 and tail accuracy on the test set, mean over seeds with standard deviation."""
    figure = Figure(figsize=(9, 4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(BARS)
    for index, (title, metric) in enumerate(BARS.items()):
        values = [summary(exams, metric) or (0.0, 0.0) for exams in results.values()]
        places = [row - 0.4 + (index + 0.5) * width for row in range(len(results))]
        axes.bar(places, [v[0] for v in values], width, yerr=[v[1] or 0.0 for v in values], label=title, capsize=3)
    axes.set_xticks(range(len(results)), [title_of(row) for row in results], rotation=SLANT)
    axes.set(ylim=(0, 1), ylabel="class-balanced accuracy", title="test set")
    axes.legend(loc="lower left", fontsize="small")
    return figure


def trade_off(results: Results) -> Figure:
    """Robust against clean accuracy, all classes and tail classes: mean over seeds, and the standard deviation."""
    figure = Figure(figsize=(12, 5), dpi=DPI, layout="constrained")
    for axes, (title, (clean, attacks)) in zip(figure.subplots(1, 2), TRADED.items(), strict=True):
        robust = next(name for name in attacks if all(summary(runs, f"test/{name}") for runs in results.values()))
        for index, (row, runs) in enumerate(results.items()):
            x, y = summary(runs, f"test/{clean}"), summary(runs, f"test/{robust}")
            assert x is not None
            assert y is not None
            look = {"color": f"C{index % 10}", "marker": MARKERS[index % len(MARKERS)], "label": title_of(row)}
            axes.errorbar(x[0], y[0], xerr=x[1], yerr=y[1], linestyle="", capsize=2, elinewidth=0.8, **look)
        axes.set(xlabel=f"clean accuracy, {title}", ylabel=f"{ATTACKS[robust]}, {title}", title=title)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize="small")
    return figure
