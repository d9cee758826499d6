"""Interactive figures of a sweep, for its report: Optuna's where there is one, in one style and palette."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from statistics import fmean, stdev
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

from ltsd.evaluation.exams import Exam
from ltsd.tasks import metric
from sweeps.journal.jobs import Kind, trial_key
from sweeps.journal.record import JobRecord, Record
from sweeps.results.confirm import DEFAULTS, Choice, mean
from sweeps.results.finals import Examined, Results
from sweeps.settings.objectives import Scores
from sweeps.settings.rows import title_of
from sweeps.study.searcher import VALIDATED, Study

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b5b5b5"  # Okabe & Ito
KIND_COLOURS: Mapping[Kind, str] = {"teacher": GREEN, "trial": BLUE, "confirm": PURPLE, "final": ORANGE}
LAYOUT: Mapping[str, Any] = {
    "template": "plotly_white",
    "margin": {"l": 60, "r": 30, "t": 40, "b": 50},
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "colorway": (BLUE, ORANGE, GREEN, PURPLE, "#56b4e9", "#e69f00", "#000000", GREY),
}
Link = Callable[[str], str]
"""Returns the address of a job's run in MLflow; "" if it is not known."""


def front(study: Study, choice: Choice, link: Link) -> go.Figure:
    """Draw the second objective against the first: trials, their front, confirmed trials, defaults and finalist."""
    names, complete = study.objectives.names, study.trials(TrialState.COMPLETE)
    figure = go.Figure()

    def run_of(number: int) -> str:
        return link(trial_key(study.row, number))

    _add_points(figure, complete, "trial (validation)", run_of, color=GREY, size=7)
    edge = sorted(study.front(), key=lambda trial: trial.values[0])
    _add_points(figure, edge, "front of the trials", run_of, color=BLUE, size=8, line=True)
    _add_confirmed(figure, complete, choice, run_of)
    axes = [f"{name}, percent" for name in names]
    return figure.update_layout(**LAYOUT, xaxis_title=axes[0], yaxis_title=axes[1], height=480)


def _add_points(
    figure: go.Figure,
    trials: Sequence[FrozenTrial],
    name: str,
    run_of: Callable[[int], str],
    *,
    line: bool = False,
    **marker: Any,
) -> None:
    figure.add_scatter(
        x=[100 * trial.values[0] for trial in trials],
        y=[100 * trial.values[1] for trial in trials],
        mode="lines+markers" if line else "markers",
        line={"shape": "vh", "color": marker["color"]},
        hovertext=[_told(trial) for trial in trials],
        customdata=[run_of(trial.number) for trial in trials],
        name=name,
        marker=marker,
    )


def _add_confirmed(
    figure: go.Figure, complete: Sequence[FrozenTrial], choice: Choice, run_of: Callable[[int], str]
) -> None:
    """Draw the mean of every confirmed trial with its standard error; mark the defaults and the finalist."""
    by_number = {trial.number: trial for trial in complete}
    middles = {number: [100 * score for score in mean(scores)] for number, scores in choice.found.items()}
    known = [number for number in middles if number in by_number]
    figure.add_scatter(
        x=[middles[number][0] for number in known],
        y=[middles[number][1] for number in known],
        error_x={"array": [_error(choice.found[number], 0) for number in known], "thickness": 1},
        error_y={"array": [_error(choice.found[number], 1) for number in known], "thickness": 1},
        mode="markers+text",
        text=[str(number) for number in known],
        textposition="top right",
        hovertext=[_told(by_number[number]) for number in known],
        customdata=[run_of(number) for number in known],
        name="confirmed trial, standard error",
        marker={"color": ORANGE, "size": 9},
    )
    for number, symbol, title in ((DEFAULTS, "diamond", "defaults"), (choice.finalist, "star", "finalist")):
        if number in middles:
            x, y = ([middles[number][k]] for k in (0, 1))
            figure.add_scatter(
                x=x, y=y, mode="markers", name=title, marker={"symbol": symbol, "size": 17, "color": "#222"}
            )


def _told(trial: FrozenTrial) -> str:
    knobs = "<br>".join(f"{name} {value:.4g}" for name, value in trial.params.items())
    return f"trial {trial.number}<br>{knobs}"


def _error(scores: Sequence[Scores], k: int) -> float | None:
    """Return the standard error of an objective's mean over seeds, in percent; None for one seed."""
    return 100 * stdev(of_seed[k] for of_seed in scores) / math.sqrt(len(scores)) if len(scores) > 1 else None


def parallel_coordinates(study: Study) -> go.Figure:
    """Draw every complete trial as a line over its scores and knobs, coloured by the first objective.

    Unlike in Optuna's plot, the reader can select ranges on its axes.
    """
    complete, names = study.trials(TrialState.COMPLETE), study.objectives.names
    scores = [[100 * trial.values[k] for trial in complete] for k in range(len(names))]
    knobs = [name for name in complete[0].params if all(name in trial.params for trial in complete)]
    axes = [{"label": name, "values": values} for name, values in zip(names, scores, strict=True)]
    axes += [_knob_axis(name, complete) for name in knobs]
    line = {"color": scores[0], "colorscale": "Cividis", "showscale": True, "colorbar": {"title": names[0]}}
    layout = {**LAYOUT, "margin": {"l": 60, "r": 60, "t": 60, "b": 30}}
    return go.Figure(go.Parcoords(dimensions=axes, line=line, labelangle=-12)).update_layout(layout, height=460)


def _knob_axis(name: str, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    """Return the axis of a knob, logarithmic if it is searched so; its group is left out of the label."""
    values, label = [float(trial.params[name]) for trial in trials], name.partition(".")[2]
    if not getattr(trials[0].distributions[name], "log", False):
        return {"label": label, "values": values}
    low, high = math.log10(min(values)), math.log10(max(values))
    ticks = [low + (high - low) * k / 4 for k in range(5)]
    return {
        "label": label,
        "values": [math.log10(value) for value in values],
        "tickvals": ticks,
        "ticktext": [f"{10**tick:.3g}" for tick in ticks],
    }


def importances(study: Study) -> go.Figure:
    """Draw the importance of each knob for each objective (Optuna's plot, with PED-ANOVA)."""
    return _of_optuna(optuna.visualization.plot_param_importances, study.optuna).update_layout(height=440)


def _of_optuna(plot: Callable[..., go.Figure], study: optuna.Study, **how: Any) -> go.Figure:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return plot(study, **how).update_layout(**LAYOUT, title=None)


def curves(record: Record, row: str, rungs: Sequence[int]) -> go.Figure:
    """Draw the validated epochs of every trial; vertical lines are the rungs at which trials are stopped."""
    figure = go.Figure()
    for known in record.of_kind("trial", row):
        score = metric(known.job.config, VALIDATED)
        scored = [(epoch, one.values[score]) for epoch, one in known.epochs.items() if score in one.values]
        is_whole = known.outcome == "done"
        figure.add_scatter(
            x=[epoch for epoch, _ in scored],
            y=[100 * score for _, score in scored],
            mode="lines+markers",
            name=f"{known.job.key} {known.outcome or 'runs'}",
            line={"color": BLUE if is_whole else GREY, "width": 1.5},
            opacity=0.8,
            showlegend=False,
        )
    for epoch in rungs:
        figure.add_vline(x=epoch, line={"dash": "dot", "color": ORANGE})
    return figure.update_layout(**LAYOUT, xaxis_title="epoch", yaxis_title=f"{VALIDATED}, percent", height=420)


def per_class(results: Results, exam: Exam, class_measure: str, class_names: Sequence[str]) -> go.Figure:
    """Draw the score of every class on the test set: clean faint, under the strongest common attack solid.

    Args:
        results: the exams by row.
        exam: the exam of the task.
        class_measure: the name of the score of a class.
        class_names: in label order.
    """
    figure, attack = go.Figure(), strongest(results, exam)
    for number, (row, runs) in enumerate(results.items()):
        colour = LAYOUT["colorway"][number % len(LAYOUT["colorway"])]
        for name, opacity in (("clean", 0.35), (attack, 1.0)):
            figure.add_bar(
                x=list(range(len(class_names))),
                y=[100 * score for score in _scores(runs, name)],
                name=f"{title_of(row)}, {exam.attacks[name]}",
                marker_color=colour,
                opacity=opacity,
                offsetgroup=row,
                visible=True if number < 2 else "legendonly",
            )
    axis = {"tickvals": list(range(len(class_names))), "ticktext": list(class_names), "title": "class"}
    title = f"{class_measure}, percent"
    return figure.update_layout(**LAYOUT, xaxis=axis, yaxis_title=title, barmode="group", height=420)


def strongest(results: Results, exam: Exam) -> str:
    """Return the last of an exam's attacks, in its order, under which every row was measured."""
    common = set.intersection(*(set(run.exam["per_class"]) for runs in results.values() for run in runs))
    return [name for name in exam.attacks if name in common][-1]


def _scores(runs: Sequence[Examined], attack: str) -> list[float]:
    return [fmean(of_class) for of_class in zip(*(run.exam["per_class"][attack] for run in runs), strict=True)]


def timeline(record: Record) -> go.Figure:
    """Draw the jobs of each worker slot of each machine over time."""
    figure = go.Figure()
    over = sorted((known for known in record.jobs.values() if known.ended), key=lambda known: known.started)
    slots = _slots(over)
    for kind, colour in KIND_COLOURS.items():
        jobs = [known for known in over if known.job.kind == kind]
        figure.add_bar(
            base=[datetime.fromtimestamp(known.started / 1000, UTC) for known in jobs],
            x=[known.ended - known.started for known in jobs],
            y=[slots[known.job.key] for known in jobs],
            orientation="h",
            name=kind,
            marker={"color": colour, "line": {"width": 1, "color": "white"}},
            hovertext=[f"{known.job.key}, {(known.ended - known.started) / 1000:.0f} s" for known in jobs],
            hoverinfo="text",
        )
    height = 140 + 34 * len(set(slots.values()))
    return figure.update_layout(**LAYOUT, barmode="overlay", xaxis={"type": "date", "title": "UTC"}, height=height)


def _slots(over: Sequence[JobRecord]) -> dict[str, str]:
    """Give each job the first slot of its last host that is free when the job starts."""
    free: dict[str, list[int]] = {}
    found: dict[str, str] = {}
    for known in over:
        host = known.hosts[-1] if known.hosts else ""
        ends = free.setdefault(host, [])
        slot = next((k for k, end in enumerate(ends) if end <= known.started), len(ends))
        ends[slot : slot + 1] = [known.ended]
        found[known.job.key] = f"{host} {slot + 1}".strip()
    return found
