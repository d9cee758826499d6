"""The description of a sweep in MLflow."""

import shlex

from hypothesis import given
from hypothesis import strategies as st

from sweeps.results.note import LIMIT, command, note
from sweeps.search import read_flags
from sweeps.settings.sweep import Sweep

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


def test_a_sweep_that_runs_says_so() -> None:
    assert "The sweep runs" in note(sweep())
    assert "The sweep runs" not in note(sweep(), "| finalist | 96.0 |")
