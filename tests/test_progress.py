"""The live view, as it stands on the screen of a terminal."""

import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pyte
import pytest

from ltsd.config import Config
from sweeps.findings.progress import Progress
from sweeps.journal.jobs import Job, Report
from sweeps.journal.record import Record
from sweeps.study.searcher import OBJECTIVE

WIDTH, HEIGHT = 80, 30


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
        progress.expect(1, lambda: 0, 0, None)
        record.started(job, 0)
        progress.started(record.jobs[job.key])
        record.reported(job, report := Report(job.config.epochs, values={OBJECTIVE: 0.625}))
        progress.reported(record.jobs[job.key], report)
        progress.say("a word beside it")
        headline = f"trials 0/1, finals 0/0, best {OBJECTIVE} 62.5% (trial-0000)"
        assert terminal.waited_for(lambda lines: lines[:2] == ["a word beside it", headline])
        assert any("trial-0000" in line and f"epoch {report.epoch}/" in line for line in terminal.lines()[2:])
        record.ended(job, "done", "")
        progress.ended(record.jobs[job.key])
        told = ["a word beside it", f"trial-0000 done  {OBJECTIVE} 62.5%"]
        headline = f"trials 1/1, finals 0/0, best {OBJECTIVE} 62.5% (trial-0000), about 0:00 left"
        assert terminal.waited_for(lambda lines: lines == [*told, headline])
    assert terminal.lines() == told


def test_what_was_best_before_an_interruption_is_best_after_it(terminal: Terminal) -> None:
    best = optuna.trial.create_trial(value=0.75)
    best.number = 3
    with Progress() as progress:
        progress.expect(5, lambda: 3, 4, best)
        headline = f"trials 4/5, finals 0/3, best {OBJECTIVE} 75.0% (trial-0003)"
        assert terminal.waited_for(lambda lines: lines == [headline])
