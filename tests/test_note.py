"""The description of a sweep in MLflow."""

import shlex
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from ltsd.config import Config
from sweeps.journal.jobs import Job, Report, trial_key
from sweeps.journal.record import Record
from sweeps.results.note import LIMIT, GrowingNote, command, note
from sweeps.search import read_flags
from sweeps.settings.objectives import Objectives
from sweeps.settings.sweep import Sweep
from sweeps.study.searcher import Study

paragraphs = st.lists(st.text("|- x", min_size=1, max_size=3000).map(lambda text: f"|{text}|"), min_size=1, max_size=8)


def sweep(**given: object) -> Sweep:
    return Sweep.new({"storage": "/tmp/none", "name": "night", **given}, {"distill.temperature": 2.0, "seed": 3})


def test_the_command_is_read_as_what_the_sweep_was_asked_for() -> None:
    asked = sweep(trials=5, prefer="robust+2*tail", compare="tuned", references="at-bsl")
    again = read_flags(shlex.split(command(asked))[2:])
    assert again.fixed == asked.fixed
    for name in ("trials", "prefer", "compare", "references", "objectives"):
        assert getattr(again.settings, name) == getattr(asked.settings, name)


def test_places_and_logins_are_not_told() -> None:
    told = note(sweep(tracking_uri="postgresql://me:secret@host/db"))
    assert "secret" not in told
    assert "/tmp/none" not in told


@given(paragraphs)
def test_what_fits_is_whole_and_what_does_not_is_pointed_to(parts: list[str]) -> None:
    told = note(sweep(), "\n\n".join(parts))
    assert len(told) <= LIMIT
    kept = [part for part in parts if f"\n{part}\n" in told]
    assert kept == parts or "table.md" in told


def test_the_note_of_a_sweep_that_runs_grows_with_every_trial(tmp_path: Path) -> None:
    record, told = Record.open(tmp_path), list[str]()
    study = Study(record, 0, {"distill.kl_weight": FloatDistribution(0.1, 10.0)}, Objectives(("robust",)))
    growing = GrowingNote(sweep(), record, [study], told.append)
    for robust in (0.5, 0.625):
        proposal = study.ask()
        job = Job("trial", trial_key("", proposal.number), Config(), "train", str(tmp_path))
        record.started(job, 0)
        last = Report(Config().epochs, values={"val/robust_acc": robust})
        record.reported(job, last)
        study.report(proposal.number, last.epoch, last.values)
        record.ended(job, "done", "")
        study.finish(proposal.number, TrialState.COMPLETE)
        growing.ended(record.jobs[job.key])
    assert "Over: 1 trials, 0 confirmations" in told[0]
    assert "| 0     | 50.0 " in told[0]
    assert "Over: 2 trials, 0 confirmations" in told[1]
    assert "| 1     | 62.5 " in told[1]
    assert "The sweep runs" in told[1]


def test_a_sweep_that_runs_says_so() -> None:
    assert "The sweep runs" in note(sweep())
    assert "The sweep runs" not in note(sweep(), "| finalist | 96.0 |")
