"""The pictures of a sweep: scores, front, importances, the final comparison."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import optuna
from matplotlib.figure import Figure
from optuna.trial import TrialState

from ltsd.evaluation.exams import Exam
from ltsd.files import publishing
from sweeps.results.confirm import DEFAULTS, Choice, mean
from sweeps.results.finals import Results, summary
from sweeps.settings.rows import title_of
from sweeps.study.searcher import Study

DPI = 160
SLANT = 20
GAP = (np.nan, np.nan)
MARKERS = "osD^v*P"
TRADED = ("all classes", "tail classes")


def draw_sweep(study: Study, choice: Choice, results: Results, exam: Exam, folder: Path) -> list[Path]:
    """Write the pictures that the study and the finals allow; return their paths."""
    matplotlib.use("Agg")
    complete, searched = study.trials(TrialState.COMPLETE), study.optuna
    drawn: dict[str, Callable[[], Figure]] = {}
    if study.trials():
        drawn["scores"] = lambda: scores_over_time(study)
    if complete and len(study.objectives.names) > 1:
        drawn["front"] = lambda: front(study, choice)
    if len(complete) > 1 and len(complete[0].params) > 1:
        drawn["importances"] = lambda: _of_optuna(optuna.visualization.matplotlib.plot_param_importances, searched)
        drawn["parallel_coordinates"] = lambda: _of_optuna(
            optuna.visualization.matplotlib.plot_parallel_coordinate,
            searched,
            target=lambda trial: trial.values[0],
            target_name=study.objectives.names[0],
        )
    if results:
        drawn["finals"] = lambda: final_bars(results, exam)
        drawn["trade_off"] = lambda: trade_off(results, exam)
    paths = []
    for name, draw in drawn.items():
        path = folder / "pictures" / f"{name}.png"
        with publishing(path) as temporary, temporary.open("wb") as file:
            draw().savefig(file, format="png", dpi=DPI)
        paths.append(path)
    return paths


def _of_optuna(plot: Callable[..., Any], study: optuna.Study, **how: Any) -> Figure:
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")
        axes = plot(study, **how)
    figure: Figure = axes.figure
    figure.set_size_inches(10, 4.5)
    figure.set_layout_engine("tight")
    return figure


def front(study: Study, choice: Choice) -> Figure:
    """Draw the first objective against each of the others: all complete trials, the front, confirmed trials with
    standard errors, the finalist and the defaults.
    """
    names = study.objectives.names
    figure = Figure(figsize=(5.5 * (len(names) - 1) + 2, 4.2), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(names) - 1, squeeze=False)[0]
    for other, axes in enumerate(panels, 1):
        _show_search(axes, study, other)
        _show_confirmed(axes, choice, other)
        axes.set(xlabel=f"{names[0]}, percent", ylabel=f"{names[other]}, percent")
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small", frameon=False)
    return figure


def _show_search(axes: Any, study: Study, other: int) -> None:
    complete = study.trials(TrialState.COMPLETE)
    points = 100 * np.array([(trial.values[0], trial.values[other]) for trial in complete])
    axes.scatter(points[:, 0], points[:, 1], s=16, color="#bbbbbb", label="trial\n(validation)")
    edge = 100 * np.array(sorted((trial.values[0], trial.values[other]) for trial in study.front()))
    axes.plot(
        edge[:, 0], edge[:, 1], marker="o", ms=4, color="#3c93c2", drawstyle="steps-pre", label="front of the trials"
    )


def _show_confirmed(axes: Any, choice: Choice, other: int) -> None:
    """Draw the mean of every confirmed trial with its standard error; mark the defaults and the finalist."""
    look: dict[str, Any] = {"fmt": "o", "ms": 4, "color": "#d9822b", "capsize": 2, "elinewidth": 0.8}
    for index, (number, scores) in enumerate(choice.found.items()):
        x, y = ([100 * of_seed[k] for of_seed in scores] for k in (0, other))
        label = "" if index else "confirmed trial,\nstandard error\n(more images, seeds)"
        axes.errorbar(np.mean(x), np.mean(y), xerr=_error(x), yerr=_error(y), label=label, **look)
        axes.annotate(str(number), (np.mean(x), np.mean(y)), xytext=(4, 4), textcoords="offset points", fontsize=8)
    for special, marker, label in ((DEFAULTS, "D", "defaults"), (choice.finalist, "*", "finalist")):
        if special is not None and special in choice.found:
            middle = [100 * value for value in mean(choice.found[special])]
            axes.scatter(middle[0], middle[other], s=120, marker=marker, color="#333333", label=label, zorder=3)


def _error(values: list[float]) -> float | None:
    """Return the standard error of a mean over seeds; None for one seed."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def scores_over_time(study: Study) -> Figure:
    """Draw the first objective of every trial, by epoch and at the end; trials stopped early end where they stopped."""
    figure = Figure(figsize=(10, 4), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    trials = [trial for trial in study.trials() if trial.intermediate_values]
    name = f"{study.objectives.names[0]}, on validation"
    for done, colour, marker in ((False, "#bbbbbb", "x"), (True, "#3c93c2", "o")):
        of_kind = [trial for trial in trials if (trial.state == TrialState.COMPLETE) == done]
        curves = [sorted(trial.intermediate_values.items()) for trial in of_kind]
        # One line with gaps: one line per trial takes half a minute for thousands of trials.
        points = np.array([point for curve in curves for point in (*curve, GAP)]).reshape(-1, 2)
        left.plot(points[:, 0], points[:, 1], color=colour, alpha=0.8)
        right.scatter(
            [trial.number for trial in of_kind], [curve[-1][1] for curve in curves], color=colour, marker=marker
        )
    left.set(xlabel="epoch", ylabel=name, title="every trial (grey: stopped early)")
    right.set(xlabel="trial", ylabel=name, title="last score (x: stopped early)")
    return figure


def final_bars(results: Results, exam: Exam) -> Figure:
    """Draw the scores of clean images and under the attack of every run, all classes and tail: mean over seeds with
    standard deviation.
    """
    figure = Figure(figsize=(9, 4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    bars = (exam.clean[0], *exam.robust[-1])
    width = 0.8 / len(bars)
    for index, title in enumerate(bars):
        values = [summary(runs, exam.columns[title]) or (0.0, 0.0) for runs in results.values()]
        places = [row - 0.4 + (index + 0.5) * width for row in range(len(results))]
        axes.bar(places, [v[0] for v in values], width, yerr=[v[1] or 0.0 for v in values], label=title, capsize=3)
    axes.set_xticks(range(len(results)), [title_of(row) for row in results], rotation=SLANT)
    axes.set(ylim=(0, 1), ylabel=exam.mean_score, title="test set")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize="small", frameon=False)
    return figure


def trade_off(results: Results, exam: Exam) -> Figure:
    """Draw robust against clean scores, for all classes and tail classes: mean over seeds with standard deviation. The
    attack is the strongest under which all rows were measured.
    """
    figure = Figure(figsize=(12, 5), dpi=DPI, layout="constrained")
    for axes, title, clean, attacks in zip(
        figure.subplots(1, 2), TRADED, exam.clean, zip(*exam.robust, strict=True), strict=True
    ):
        robust = next(one for one in attacks if all(summary(runs, exam.columns[one]) for runs in results.values()))
        for index, (row, runs) in enumerate(results.items()):
            x, y = summary(runs, exam.columns[clean]), summary(runs, exam.columns[robust])
            assert x is not None
            assert y is not None
            look = {"color": f"C{index % 10}", "marker": MARKERS[index % len(MARKERS)], "label": title_of(row)}
            axes.errorbar(x[0], y[0], xerr=x[1], yerr=y[1], linestyle="", capsize=2, elinewidth=0.8, **look)
        axes.set(xlabel=clean, ylabel=robust, title=title)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize="small")
    return figure
