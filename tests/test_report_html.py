"""The report of a sweep as an HTML file."""

from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution

from ltsd.evaluation.exam import TITLES
from sweeps.journal.record import Record
from sweeps.report import command
from sweeps.results.confirm import Choice
from sweeps.results.finals import Examined
from sweeps.results.html import Found, write_report
from sweeps.settings.objectives import Objectives
from sweeps.settings.sweep import Sweep
from sweeps.study.searcher import Study

EVIL = "</script><script>alert(1)</script>"


def found(folder: Path, **given: object) -> Found:
    """A sweep in a folder that has asked for two trials and heard of none."""
    sweep = Sweep.new({"storage": str(folder), "name": "night"}, {})
    sweep.settings.folder.mkdir()
    record = Record.open(sweep.settings.folder)
    study = Study(record, 0, {"optim.lr": FloatDistribution(0.05, 0.2, log=True)}, Objectives(("robust", "tail")))
    study.ask()
    study.ask()
    choice = Choice.of(record, study.objectives, sweep.settings.preference, "")
    rest = {"results": {}, "class_names": ["one", "two"], "link": lambda key: ""} | given
    return Found(sweep=sweep, record=record, studies=[study], choices=[choice], **rest)


def test_a_sweep_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    text = write_report(found(tmp_path)).read_text()
    assert "No final run is over yet" in text
    assert text.count(">running<") == 2


def test_names_of_classes_and_links_cannot_run_code(tmp_path: Path) -> None:
    exam = {
        "metrics": {"test/clean_acc": 0.5},
        "per_class": {attack: [0.25, 0.75] for attack in TITLES},
        "groups": {"head": [0], "tail": [1]},
    }
    results = {"at": [Examined(0, exam, tmp_path / "none")]}
    text = write_report(found(tmp_path, results=results, class_names=[EVIL, "two"], link=lambda key: EVIL)).read_text()
    assert "50.0" in text
    assert "<script>alert" not in text


def test_a_sweep_that_does_not_exist_is_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["report.py", "none", "--storage", str(tmp_path)])
    assert command() == 2
    said = capsys.readouterr().err
    assert said.startswith("error: there is no sweep in")
    assert said.count("\n") == 1
