"""Kills: whatever dies, nothing acknowledged is lost, nothing is counted twice, everything comes to its end."""

import itertools
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from background import BRIEF, LONG, Sweep, audit
from kills import KINDS, NAME, descendants, kill, schedule, under_fire
from sweeping import run_search

from sweeps.journal.record import Record
from sweeps.settings.sweep import JOURNAL_FILE

pytestmark = pytest.mark.slow


def told(folder: Path) -> dict[str, Any]:
    """All that a sweep found out: proposals, every epoch of every job, how each ended."""
    record = Record.read(folder / "runs" / NAME)
    jobs = {
        key: (known.outcome, known.epochs, known.result and known.result.values) for key, known in record.jobs.items()
    }
    return {"proposals": record.proposals(), **jobs}


def test_kills_at_random_lose_nothing_double_nothing_and_leave_nothing(tmp_path: Path) -> None:
    draw, kinds = random.Random(7), ("worker",) * 6 + ("driver",) * 2 + ("raylet", "gcs")
    outcome = under_fire(tmp_path, (*LONG, "--trials", "6"), itertools.islice(schedule(draw, kinds), 7), draw)
    print(outcome)
    assert outcome.is_whole, outcome
    assert outcome.kills.total() >= 5
    assert outcome.redone <= outcome.kills.total()


def test_one_trial_at_a_time_ends_with_the_same_bits_whatever_is_killed(tmp_path: Path) -> None:
    """With more trials at a time it depends on their timing which scores Optuna knows when it proposes the next. The
    sweep that is left in peace runs meanwhile.
    """
    quiet, fire = tmp_path / "quiet", tmp_path / "fire"
    quiet.mkdir()
    fire.mkdir()
    flags = (*BRIEF, "--trials", "4", "--concurrency", "1")
    peace = Sweep(quiet, *flags)
    draw = random.Random(3)
    outcome = under_fire(fire, flags, itertools.islice(schedule(draw, KINDS[30:]), 5), draw)
    print(outcome)
    assert peace.process.wait(600) == 0, peace.said()
    assert outcome.is_whole, outcome
    assert outcome.kills.total() >= 3
    assert told(fire) == told(quiet)


@pytest.mark.timed
def test_a_killed_worker_is_replaced_within_twenty_seconds(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, *LONG, "--epochs", "60")
    sweep.until("trial-0000 starts")
    time.sleep(1.0)
    journal = tmp_path / "runs" / NAME / JOURNAL_FILE
    assert kill(sweep.process.pid, "worker", random.Random(0))
    killed, before = time.monotonic(), journal.stat().st_size
    while sweep.said().count("goes on after epoch") < 1:
        assert time.monotonic() - killed < 20, sweep.said()
        time.sleep(0.05)
    print(f"{time.monotonic() - killed:.1f} s")
    assert journal.stat().st_size > before
    sweep.process.send_signal(signal.SIGTERM)
    sweep.process.wait(20)


CLOCK = """
import time
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() - 86400
time.time_ns = lambda: _time_ns() - 86400 * 10**9
"""


@pytest.mark.timed
def test_a_first_signal_saves_and_leaves_within_ten_seconds_a_second_at_once_and_a_clock_gone_back_a_day_harms_nothing(
    tmp_path: Path,
) -> None:
    """SIGTERM; Ctrl-C goes the same way, see tests/test_tuned.py. The clock is that of the processes of the last
    resume; not that of Ray's servers and of sqlite, which only log it.
    """
    sweep = Sweep(tmp_path, *LONG)
    sweep.until("trial-0001 starts")
    asked = time.monotonic()
    sweep.process.send_signal(signal.SIGTERM)
    assert sweep.process.wait(30) == 130
    seconds = time.monotonic() - asked
    print(f"{seconds:.1f} s")
    assert seconds < 10
    assert f"python sweeps/search.py --name {NAME} --resume" in sweep.said()
    assert audit(tmp_path).returncode == 0
    sweep = Sweep(tmp_path, "--resume")
    sweep.until("trial-0001 starts")
    below = descendants(sweep.process.pid)
    asked = time.monotonic()
    sweep.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    sweep.process.send_signal(signal.SIGTERM)
    assert sweep.process.wait(10) != 0
    assert time.monotonic() - asked < 2
    assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run_search(tmp_path, "--name", NAME, "--resume", env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    record = Record.read(tmp_path / "runs" / NAME)
    assert any(known.ended < known.started for known in record.jobs.values())
    agreed = audit(tmp_path)
    assert agreed.returncode == 0, agreed.stdout
