"""The report of a sweep: one HTML file with interactive figures that opens without a network."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import plotly.graph_objects as go
from optuna.trial import TrialState
from plotly.offline import get_plotlyjs

from ltsd.errors import UserError
from ltsd.evaluation.exams import Exam
from ltsd.files import publishing
from ltsd.tasks import TASKS
from sweeps.journal.jobs import trial_key
from sweeps.journal.record import Record
from sweeps.results import charts, finals, report
from sweeps.results.charts import Link
from sweeps.results.confirm import Choice
from sweeps.results.finals import Results
from sweeps.results.note import command
from sweeps.results.paired import baseline, differences
from sweeps.settings.rows import title_of
from sweeps.settings.sweep import Sweep
from sweeps.study.scheduler import rungs
from sweeps.study.searcher import Study

FILE = "report.html"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd }
p.hint { color: #666 } code, pre { background: #f5f5f5; padding: .1rem .3rem; overflow-x: auto }
div.scroll { overflow: auto; max-height: 32rem } table { border-collapse: collapse; font-size: 14px }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e5e5e5; white-space: nowrap }
th { position: sticky; top: 0; background: #fff } th:first-child, td:first-child { text-align: left }
table.sortable th { cursor: pointer } table.sortable th:hover { background: #eef }
img { max-width: 100% }
"""
SCRIPT = """
for (const table of document.querySelectorAll('table.sortable')) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    let sign = -1;
    head.addEventListener('click', () => {
      sign = -sign;
      const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const order = (a, b) => isNaN(a) || isNaN(b) ? String(a).localeCompare(b) : a - b;
      body.append(...[...body.rows].sort((a, b) => sign * order(value(a), value(b))));
    });
  });
}
for (const plot of document.querySelectorAll('.js-plotly-plot')) {
  plot.on('plotly_click', event => {
    const address = event.points[0].customdata;
    if (typeof address === 'string' && address.startsWith('http')) window.open(address);
  });
}
"""


@dataclass(frozen=True)
class Found:
    """The data of a report, from the record so far.

    `studies` and `choices` are of its searches, its own first. `link` gives the address of a job's run in MLflow.
    """

    sweep: Sweep
    record: Record
    studies: Sequence[Study]
    choices: Sequence[Choice]
    results: Results
    class_names: Sequence[str]
    link: Link


def write_report(found: Found) -> Path:
    """Write the report into the sweep's folder; return its path."""
    path = found.sweep.settings.folder / FILE
    sections = "\n".join(
        f'<h2>{title}</h2>\n<p class="hint">{hint}</p>\n{body}' for title, hint, body in _sections(found) if body
    )
    name, asked = escape(str(found.sweep.settings.name)), escape(command(found.sweep))
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>\n'
        f"<style>{STYLE}</style>\n<script>{get_plotlyjs()}</script></head>\n<body>\n<h1>{name}</h1>\n"
        f"<p>{_state(found)} Made by</p>\n<pre>{asked}</pre>\n{sections}\n<script>{SCRIPT}</script>\n</body></html>\n"
    )
    with publishing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _state(found: Found) -> str:
    jobs = found.record.jobs.values()
    over = sum(known.outcome is not None for known in jobs)
    seconds = sum((known.ended - known.started) / 1000 for known in jobs if known.ended)
    base = found.sweep.base
    work = f"{title_of(base.method)} on {base.data.source}"
    return escape(f"{work}: {over} of {len(jobs)} jobs are over, after {seconds / 3600:.2f} core-hours.")


def _sections(found: Found) -> Iterator[tuple[str, str, str]]:
    """Yield title, hint and HTML of every section; the HTML is "" if there is nothing to show yet."""
    yield from _final_sections(found)
    for study, choice in zip(found.studies, found.choices, strict=True):
        of = f" of {escape(title_of(study.row))}" if study.row else ""
        for title, hint, body in _search_sections(found, study, choice):
            yield f"{title}{of}", hint, body
    yield "Timeline", "What each worker did, machine by machine.", _figure(charts.timeline(found.record))


def _final_sections(found: Found) -> Iterator[tuple[str, str, str]]:
    results, exam, task = found.results, found.sweep.exam, TASKS[found.sweep.base.task]
    if not results:
        yield "Test set", "", "<p>No final run is over yet.</p>"
        return
    hint = f"{exam.mean_score[0].upper()}{exam.mean_score[1:]} in percent, mean ± standard deviation over seeds."
    yield "Test set", hint, _table(finals.table(results, exam, exam.columns))
    hint = "The same test images, in points, with the 95% interval of a paired bootstrap over images and seeds."
    yield "Leads", hint, _leads(results, exam)
    attack, score = exam.attacks[charts.strongest(results, exam)], task.class_measure
    hint = f"Their {score} on the test set: faint on clean images, solid under {attack}. Click the legend for others."
    yield "Classes", hint, _figure(charts.per_class(results, exam, score, found.class_names))
    if model := finals.finalist_model(found.record, found.choices[0]) if found.choices else None:
        hint = f"Images as the finalist sees them: {task.attacked_hint}."
        yield "Attacked images", hint, _picture(model.pictures / "attacked_images.png")


def _leads(results: Results, exam: Exam) -> str:
    try:
        rows = differences(results, exam, baseline(results))
    except UserError as error:  # the other numbers are on record all the same
        return f"<p>{escape(str(error))}</p>"
    return _table(rows) if rows else ""


def _search_sections(found: Found, study: Study, choice: Choice) -> Iterator[tuple[str, str, str]]:
    complete = study.trials(TrialState.COMPLETE)
    told = report.unmet(choice, study) or report.chosen(choice)
    if complete and len(study.objectives.names) > 1:
        hint = f"{escape(told)}. Hover for the knobs; click a point to open its run in MLflow."
        yield "The front", hint, _figure(charts.front(study, choice, found.link))
    yield "Trials", "Click a column's head to sort.", _trials(study, found.link)
    if len(complete) > 1 and len(complete[0].params) > 1:
        hint = "Drag along an axis to keep the trials in that range; drag an axis' name to move it."
        yield "Parallel coordinates", hint, _figure(charts.parallel_coordinates(study))
        hint = "The share of each objective's variance due to a knob. With few trials only large shares are reliable."
        yield "Importances", hint, _figure(charts.importances(study))
    epochs = rungs(found.sweep.base.epochs, found.sweep.base.evaluate.every)
    hint = "Blue trials were trained to the end. Dotted lines are the epochs at which the worse half is stopped."
    yield "Learning curves", hint, _figure(charts.curves(found.record, study.row, epochs))


def _trials(study: Study, link: Link) -> str:
    knobs = list(dict.fromkeys(name for trial in study.trials() for name in trial.params))
    rows = []
    for trial in study.trials():
        scores = [f"{100 * value:.1f}" for value in trial.values or ()] or ["–"] * len(study.objectives.names)
        values = [f"{trial.params[name]:.4g}" if name in trial.params else "–" for name in knobs]
        rows.append([str(trial.number), *scores, trial.state.name.lower(), *values])
    addresses = [link(trial_key(study.row, trial.number)) for trial in study.trials()]
    return _table([["trial", *study.objectives.names, "state", *knobs], *rows], addresses)


def _table(rows: Sequence[Sequence[str]], addresses: Sequence[str] = ()) -> str:
    """Return an HTML table, sortable by a click; `addresses` are the links of the first cells, if any."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = []
    for number, (first, *cells) in enumerate(rows[1:]):
        address = addresses[number] if addresses else ""
        name = f'<a href="{escape(address)}">{escape(first)}</a>' if address else escape(first)
        rest = "".join(f'<td data-value="{escape(cell.split(" ± ")[0])}">{escape(cell)}</td>' for cell in cells)
        body.append(f'<tr><td data-value="{escape(first)}">{name}</td>{rest}</tr>')
    rows_of_body = "\n".join(body)
    return (
        f'<div class="scroll"><table class="sortable"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows_of_body}\n</tbody></table></div>"
    )


def _figure(figure: go.Figure) -> str:
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False})
    return html


def _picture(path: Path) -> str:
    if not path.exists():
        return ""
    return f'<img alt="{escape(path.stem)}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'
