"""The disk: full, read-only, damaged."""

import hashlib
import io
import pickle
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from background import BRIEF, LONG, audit
from kills import NAME
from sweeping import run_search

from ltsd.checkpoint import MAGIC
from sweeps.journal.record import Record
from sweeps.settings.sweep import JOURNAL_FILE
from sweeps.study.database import STUDY_FILE

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The folder `runs` on a file system of 600 kilobytes."""
    runs = tmp_path / "runs"
    runs.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(runs)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield runs
    subprocess.run(["umount", "--lazy", str(runs)], check=True)


def test_a_full_disk_halts_the_sweep_which_goes_on_when_there_is_room(tmp_path: Path, small_disk: Path) -> None:
    full = run_search(tmp_path, "--name", NAME, *BRIEF, "--trials", "3")
    assert full.returncode == 1, full.stdout + full.stderr
    assert "No space left on device" in full.stdout or "disk is full" in full.stdout, full.stdout + full.stderr
    assert f"python sweeps/search.py --name {NAME} --resume" in full.stdout
    acknowledged = (small_disk / NAME / JOURNAL_FILE).read_bytes()
    assert Record.read(small_disk / NAME).damaged == []
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    done = run_search(tmp_path, "--name", NAME, "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (small_disk / NAME / JOURNAL_FILE).read_bytes().startswith(acknowledged)
    agreed = audit(tmp_path)
    assert agreed.returncode == 0, agreed.stdout


def test_a_read_only_disk_is_refused_in_one_message(tmp_path: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused = run_search(tmp_path, "--name", NAME, *LONG)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --storage runs: runs/fire cannot be used (Read-only file system)")
    assert refused.stderr.count("\n") == 1


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_by_a_pickle(path: Path) -> None:
    """A teacher whose unpickling would leave a file behind, under a right checksum."""

    class Trap:
        def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
            return Path.touch, (path.parent / "trapped",)

    buffer = io.BytesIO()
    torch.save({"student": Trap()}, buffer, pickle_module=pickle)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest().encode()
    path.write_bytes(MAGIC + digest + b"\n" + buffer.getvalue())


def test_whatever_is_damaged_between_two_runs_is_made_again_or_done_without(tmp_path: Path) -> None:
    """One sweep, interrupted by its number of trials, every file of it damaged, then continued with more trials."""
    done = run_search(tmp_path, "--name", NAME, *BRIEF, "--trials", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs" / NAME
    before = Record.read(folder)
    teachers = sorted((tmp_path / "runs" / "teachers").glob("*.pt"))
    cut(teachers[0])
    flip(teachers[1])
    replace_by_a_pickle(teachers[2])
    flip(folder / STUDY_FILE)
    cut(folder / STUDY_FILE)
    lines = (folder / JOURNAL_FILE).read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if b'"job": "trial-0001"' in line and b"reported" in line)
    lines[place] = lines[place].replace(b"0.", b"1.", 1)
    (folder / JOURNAL_FILE).write_bytes(b"".join(lines))
    differing = audit(tmp_path)
    assert differing.returncode == 1
    assert f"{JOURNAL_FILE}" in differing.stdout
    assert f"damaged in line {place + 1}" in differing.stdout
    assert f"{STUDY_FILE}" in differing.stdout
    more = run_search(tmp_path, "--name", NAME, "--resume", "--trials", "5")
    assert more.returncode == 0, more.stdout + more.stderr
    assert f"was damaged in line {place + 1}" in more.stdout
    assert "was made again from the journal" in more.stdout
    assert not (tmp_path / "runs" / "teachers" / "trapped").exists()
    after = Record.read(folder)
    for number in range(3):
        key = f"trial-{number:04d}"
        assert after.jobs[key].epochs == before.jobs[key].epochs
        assert after.jobs[key].outcome == before.jobs[key].outcome
    assert len(after.proposals()) == 5
    agreed = audit(tmp_path)
    assert agreed.returncode == 0, agreed.stdout
    flip(folder / "checkpoints" / "trial-0000.pt")
    named = audit(tmp_path)
    assert named.returncode == 1
    assert "trial-0000" in named.stdout
    assert "there is no whole checkpoint of it, and the journal has 12 epochs" in named.stdout
