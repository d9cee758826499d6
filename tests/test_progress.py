"""The live view, as it stands on the screen of a terminal."""

import time
from collections.abc import Callable
from pathlib import Path

import pyte
import pytest
from optuna.trial import TrialState
from test_searcher import ROBUST, SPACE, recorded

from ltsd.config import Config
from sweeps.journal.jobs import Job, Report
from sweeps.journal.record import Record
from sweeps.results.progress import Progress
from sweeps.settings.objectives import Objectives
from sweeps.study.searcher import Study

SCORE = "val/robust_acc"

WIDTH, HEIGHT = 100, 30
TAIL = "val/tail_robust_acc"


class Terminal:
    """What a user sees: all that was printed so far, drawn on a screen of the usual width."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys, self._screen = capsys, pyte.Screen(WIDTH, HEIGHT)

    def lines(self) -> list[str]:
        pyte.Stream(self._screen).feed(self._capsys.readouterr().out.replace("\n", "\r\n"))
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def waited_for(self, is_there: Callable[[list[str]], bool]) -> bool:
        """The view draws itself twice a second."""
        end = time.monotonic() + 20
        while not (seen := is_there(self.lines())) and time.monotonic() < end:
            time.sleep(0.1)
        return seen


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", str(WIDTH)), ("LINES", str(HEIGHT))):
        monkeypatch.setenv(name, value)
    return Terminal(capsys)


def test_the_view_is_there_while_jobs_run_and_gone_when_they_are_over(terminal: Terminal, tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    job = Job("trial", "trial-0000", Config(), "train", str(tmp_path))
    with Progress() as progress:
        assert terminal.waited_for(lambda lines: [line[2:] for line in lines] == ["Ray and MLflow are starting"])
        study = Study(record, 0, {}, Objectives(("robust", "tail")))
        progress.expect(1, lambda: 0, [study])
        study.ask()
        record.started(job, 0)
        progress.started(record.jobs[job.key])
        record.reported(job, report := Report(job.config.epochs, values={SCORE: 0.625, TAIL: 0.5}))
        study.report(0, report.epoch, report.values)
        progress.reported(record.jobs[job.key], report)
        progress.say("a word beside it")
        headline = "trials 0/1, finals 0/0, best –"
        assert terminal.waited_for(lambda lines: lines[:2] == ["a word beside it", headline])
        assert any("trial-0000" in line and f"epoch {report.epoch}/" in line for line in terminal.lines()[2:])
        record.ended(job, "done", "")
        study.finish(0, TrialState.COMPLETE)
        progress.ended(record.jobs[job.key])
        told = ["a word beside it", f"trial-0000 done  {SCORE} 62.5%  {TAIL} 50.0%"]
        best = "best robust 62.5% (trial 0), tail 50.0% (trial 0)"
        headline = f"trials 1/1, finals 0/0, {best}, about 0:00 left"
        assert terminal.waited_for(lambda lines: lines == [*told, headline])
    assert terminal.lines() == told


def test_what_was_best_before_an_interruption_is_best_after_it(terminal: Terminal, tmp_path: Path) -> None:
    study = Study(recorded(tmp_path), 0, SPACE, ROBUST)
    with Progress() as progress:
        progress.expect(5, lambda: 3, [study])
        headline = "trials 3/5, finals 0/3, best robust 10.0% (trial 0)"
        assert terminal.waited_for(lambda lines: lines == [headline])
