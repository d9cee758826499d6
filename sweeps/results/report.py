"""Results in words, at the start and at the end of a sweep."""

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from optuna.trial import TrialState

from ltsd import markdown
from ltsd.data import Splits, description
from ltsd.errors import UserError
from ltsd.evaluation.exams import Exam
from ltsd.markdown import percent, spread
from ltsd.precision import computes_in
from ltsd.tasks import validated
from sweeps.journal.record import Record
from sweeps.machines.machine import Machines
from sweeps.results import confirm, finals
from sweeps.results.confirm import Choice
from sweeps.results.finals import Results
from sweeps.results.paired import baseline, differences
from sweeps.settings.addresses import flag_of, given_again, without_password
from sweeps.settings.flags import AUTO
from sweeps.settings.rows import FINALIST, title_of
from sweeps.settings.sweep import Sweep
from sweeps.study.searcher import Study

OWN_SERVER = "http://127.0.0.1:5000"
"""The address of `mlflow ui`, the command in the last line of a sweep's output."""


def introduction(
    sweep: Sweep, splits: Splits, machines: Machines, searched: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """Yield what the sweep will do: the work, the data, the machine. `searched` are the searched knobs of each row."""
    settings, base = sweep.settings, sweep.base
    work = f"{settings.trials} trials of {base.method}" if settings.trials else f"{', '.join(sweep.rows)} compared"
    shared = f", shared by {settings.shared}" if settings.shared else ""
    yield f"sweep {settings.name}: {work} on {base.data.source}, in {settings.folder}{shared}"
    yield from description.introduction(splits, base.data)
    if machines.gpus_per_trial:
        limit = base.data.resident_gib
        most = "half of the free memory of its share" if limit is None else f"{limit:g} GiB"
        yield f"data: a split of up to {most} is resident on the GPU of a trial, a larger one is streamed to it"
    else:
        yield f"data: training {splits.train.items}: {splits.train.to(torch.device('cpu')).whereabouts()}"
    share = f", {machines.gpus_per_trial:g} GPU each" if machines.gpus_per_trial else ""
    share += " at first" if share and settings.gpus_per_trial == AUTO else ""
    kind = computes_in(base.precision, torch.device("cuda" if machines.gpus_per_trial else "cpu"))
    if machines.gpus_per_trial and base.precision == "auto" and not torch.cuda.is_available():
        kind = "bf16 where the GPU multiplies in it"
    yield f"machine: {machines.carries()} trial(s) at a time, one thread each{share}, training in {kind}"
    if settings.trials:
        for row, knobs in searched.items():
            of_row = f" of {title_of(row)}, in its own search" if row else ""
            yield f"searched{of_row}: {', '.join(knobs) or 'nothing, every knob is fixed'}"
        tried = sweep.tried_of("")
        if tried != base:
            yield f"trained: trials with PGD-{tried.attack.steps}, final runs with PGD-{base.attack.steps}"


def metrics(record: Record, study: Study, choice: Choice, results: Results, exam: Exam) -> dict[str, float]:
    """Return the numbers of the whole sweep: how trials ended, the best scores, the finalist on the test set."""
    values = {f"trials/{name}": float(count) for name, count in _states(study).items()}
    values |= {f"teachers/{name}": float(count) for name, count in _teachers(record).items()}
    names = study.objectives.names
    for k, (name, trial) in enumerate(zip(names, study.leaders(), strict=False)):
        values |= {f"best/{study.objectives.metric(name)}": trial.values[k], f"best/{name}_trial": float(trial.number)}
    values |= {
        f"confirm/trial_{number}_{study.objectives.metric(name)}": score
        for number, scores in choice.found.items()
        for name, score in zip(names, confirm.mean(scores), strict=True)
    }
    for metric in exam.columns.values():
        found = finals.summary(results.get(FINALIST, []), metric)
        if found is not None:
            mean, deviation = found
            values[f"final/{metric.removeprefix('test/')}"] = mean
            values |= {} if deviation is None else {f"final/{metric.removeprefix('test/')}_std": deviation}
    return values


def accuracies(sweep: Sweep, results: Results, titles: Iterable[str], finalists: str) -> list[str]:
    """Return the test results in Markdown, in the columns `titles`; `finalists` as in `Splits`."""
    if not results:
        return []
    runs = [run for row in results.values() for run in row]
    seeds = max(len(row) for row in results.values())
    means = f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
    known = (f"{name} {_short(value)}" for name, value in sweep.fixed.items() if name not in ("method", "data.source"))
    fixed = ", ".join(known)
    conditions = f"eps {sweep.base.attack.eps:.4g}"
    conditions += f"; trained on {finalists}, chosen on the data's own validation split" if finalists else ""
    conditions += f"; fixed in every row: {fixed}" if fixed else ""
    return [
        f"test set, {runs[0].exam['images']} images, {sweep.exam.mean_score} in percent, {means}; {conditions}:\n",
        markdown.table(finals.table(results, sweep.exam, titles)),
    ]


def leads(results: Results, exam: Exam) -> list[str]:
    """Return every row's lead over AT-BSL in Markdown, over the tuned one if there is one; nothing without AT-BSL."""
    try:
        rows = differences(results, exam, baseline(results))
    except UserError as error:  # the accuracies are on record all the same
        return [f"the leads over the baseline cannot be told: {error}\n"]
    if not rows:
        return []
    return [
        "the same test images, in points, with the 95% interval of a paired bootstrap over images and seeds:\n",
        markdown.table(rows),
    ]


def conclusion(
    sweep: Sweep,
    splits: Splits,
    record: Record,
    studies: Sequence[Study],
    choices: Sequence[Choice],
    results: Results,
    told: Sequence[str],
    paths: Sequence[Path],
) -> Iterator[str]:
    """Yield how the sweep ended: the tables, what failed, where the pictures are."""
    if sweep.settings.trials:
        for study in studies:
            states = ", ".join(f"{count} {name}" for name, count in _states(study).items())
            yield f"trials{_of(study.row)}: {states}"
    teachers = _teachers(record)
    yield f"teachers: {teachers['done']} trained, {teachers['reused']} reused from the store"
    for known in record.jobs.values():
        if known.outcome == "failed":
            yield f"failed: {known.job.key}: {known.reason}"
    if sweep.settings.trials:
        for study, choice in zip(studies, choices, strict=True):
            yield from _found(sweep, study, choice)
    if not finals.are_in(results, sweep.settings.trials):
        return
    yield "\n".join([*accuracies(sweep, results, sweep.exam.shown, splits.finalists), *told])
    for known in record.of_kind("final"):
        if known.warning:
            yield f"doubtful: {known.job.key}: {known.warning}"
    yield "pictures and table: " + " ".join(_relative(path) for path in paths)


def _found(sweep: Sweep, study: Study, choice: Choice) -> Iterator[str]:
    """Yield what a search found: the highest scores, the finalist and its scores."""
    best, of_row = study.leaders_told(), _of(study.row)
    if not best:
        yield f"no trial{of_row} was completed, so there is no finalist; the reasons stand above"
        return
    yield f"best in the search{of_row}, on validation: {best}; robust and tail: {validated(sweep.base)}"
    if choice.finalist is None:
        yield f"{chosen(choice)}; the reasons stand above"
        return
    if missed := unmet(choice, study):
        yield missed
    params = study.trials()[choice.finalist].params
    yield f"{chosen(choice)}: " + ", ".join(f"{name} {_short(value)}" for name, value in params.items())
    scores = choice.found[choice.finalist]
    seeds = f"{len(scores)} seed{'s' if len(scores) > 1 else ''}"
    yield f"  on the reserve, {seeds}: {study.objectives.told(confirm.mean(scores))}"


def unmet(choice: Choice, study: Study) -> str:
    """Return a sentence if no confirmed trial reaches the bounds of the preference; else ""."""
    means = [confirm.mean(scores) for scores in confirm.confirmed(choice.found).values()]
    if any(map(choice.preference.is_met, means)):
        return ""
    bounds = zip(study.objectives.names, choice.preference.bounds, strict=True)
    wanted = ", ".join(f"{name}>={bound:g}" for name, bound in bounds if bound > 0)
    return f"no confirmed trial reaches what --prefer asks for ({wanted}): the finalist is the best without it"


def chosen(choice: Choice) -> str:
    """Name the finalist, and say if it is the defaults."""
    of_row = _of(choice.row)
    if choice.finalist is None:
        return f"no trial{of_row} was confirmed on other seeds, so there is no finalist"
    if choice.finalist == confirm.DEFAULTS:
        why = "no trial led them by more than the error without falling behind in another objective"
        return f"finalist{of_row}: trial 0, the defaults: {why}"
    return f"finalist{of_row}: trial {choice.finalist}"


def fronts(studies: Sequence[Study], choices: Sequence[Choice]) -> list[str]:
    """Return the front of every search in Markdown."""
    return [part for study, choice in zip(studies, choices, strict=True) for part in front(study, choice)]


def front(study: Study, choice: Choice) -> list[str]:
    """Return the front of a search in Markdown: its trials, the confirmed trials, the defaults."""
    on_front = {trial.number for trial in study.front()}
    names = study.objectives.names
    header = ["trial", *names, *(f"{name}, confirmed" for name in names), "seeds", ""]
    rows = []
    for trial in study.trials(TrialState.COMPLETE):
        scores = choice.found.get(trial.number, [])
        if trial.number in on_front or scores:
            confirmed = [percent(*spread(column)) for column in zip(*scores, strict=True)] or ["–"] * len(names)
            notes = _notes(trial.number, choice, on_front)
            values = [f"{100 * value:.1f}" for value in trial.values]
            rows.append([str(trial.number), *values, *confirmed, str(len(scores)), notes])
    if not rows:
        return []
    return [
        f"the front of the search{_of(study.row)} and the confirmed trials, validation and reserve, percent:\n",
        markdown.table([header, *rows]),
        chosen(choice) + "\n",
    ]


def _notes(number: int, choice: Choice, on_front: Collection[int]) -> str:
    notes = {
        "finalist": number == choice.finalist,
        "defaults": number == confirm.DEFAULTS,
        "front": number in on_front,
        **{f"best {name}": number == end for name, end in choice.ends.items()},
    }
    return ", ".join(note for note, holds in notes.items() if holds)


def _of(row: str) -> str:
    return f" of {title_of(row)}" if row else ""


def way_to_mlflow(sweep: Sweep, page: str) -> str:
    """Return how to open the sweep's page in MLflow; `page` follows the server's address."""
    uri = without_password(sweep.settings.tracking_uri)
    if uri.startswith("http"):
        return f"browse it: {address(sweep, page)}"
    serve = f"mlflow ui --host 127.0.0.1 --backend-store-uri {shlex.quote(uri)}"
    return f"browse it: {serve}\nthen open {address(sweep, page)}"


def address(sweep: Sweep, page: str) -> str:
    """Return the complete address of a page in MLflow; "" for no page."""
    uri = without_password(sweep.settings.tracking_uri)
    server = uri.rstrip("/") if uri.startswith("http") else OWN_SERVER
    return f"{server}/{page}" if page else ""


def resume_command(sweep: Sweep) -> str:
    """Return the command that continues this sweep."""
    settings = sweep.settings
    storage = "" if settings.storage == "runs" else f" --storage {shlex.quote(settings.storage)}"
    logins = "".join(given_again(flag_of(name), uri) for name, uri in settings.stores.items())
    return f"python sweeps/search.py --name {shlex.quote(str(settings.name))}{storage} --resume{logins}"


def _teachers(record: Record) -> dict[str, int]:
    outcomes = [known.outcome for known in record.of_kind("teacher")]
    return {"done": outcomes.count("done"), "reused": outcomes.count("reused")}


def _states(study: Study) -> dict[str, int]:
    names = {TrialState.COMPLETE: "completed", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    counts = {name: len(study.trials(state)) for state, name in names.items()}
    return {name: count for name, count in counts.items() if count}


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _relative(path: Path) -> str:
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
