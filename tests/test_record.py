"""The record: whatever happens to its file, it tells what was acknowledged, once."""

import errno
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imagesets import flip

from ltsd.checkpoint import load_checkpoint, save_checkpoint
from ltsd.config import Config
from sweeps.journal.exchange import SharedFolder
from sweeps.journal.jobs import Job, Report, drop_previous_checkpoint, keep_checkpoint, newest_checkpoint
from sweeps.journal.record import Record, fill_from_checkpoint, open_mended
from sweeps.settings.sweep import JOURNAL_FILE

EPOCHS = 3


def job(folder: Path, number: int = 0) -> Job:
    return Job("trial", f"trial-{number:04d}", Config.preset("digits"), "train", str(folder.absolute()))


def epoch(number: int, value: float = 0.5) -> Report:
    return Report(number, values={"val/robust_acc": value + number / 100}, per_class={"clean": [0.5, 1.0]})


def written(folder: Path) -> Record:
    """A record of one trial that was trained to its end."""
    record = Record.open(folder)
    record.proposed(0, {"distill.temperature": 2.0})
    record.started(job(folder), 0)
    for number in range(1, EPOCHS + 1):
        assert record.reported(job(folder), epoch(number))
    record.ended(job(folder), "done", "")
    return record


def test_a_record_that_is_read_again_is_the_one_that_was_written(tmp_path: Path) -> None:
    before, after = written(tmp_path), Record.read(tmp_path)
    assert (after.proposals(), after.jobs, after.damaged) == (before.proposals(), before.jobs, [])
    known = after.jobs["trial-0000"]
    assert (known.job, known.last_epoch, known.outcome) == (job(tmp_path), EPOCHS, "done")
    assert known.epochs[2] == epoch(2)


def test_what_is_told_twice_is_on_record_once(tmp_path: Path) -> None:
    record = written(tmp_path)
    size = (tmp_path / JOURNAL_FILE).stat().st_size
    assert not record.reported(job(tmp_path), epoch(2, value=0.9))
    record.proposed(0, {"distill.temperature": 3.0})
    assert (tmp_path / JOURNAL_FILE).stat().st_size == size
    exam = Report(EPOCHS, "examined", values={"test/clean_acc": 0.9})
    assert [record.reported(job(tmp_path), exam), record.reported(job(tmp_path), exam)] == [True, False]


@settings(max_examples=300)
@given(cut=st.integers(0, 10_000))
def test_a_journal_cut_at_any_byte_loses_only_what_was_not_acknowledged(memory: Path, cut: int) -> None:
    folder = Path(tempfile.mkdtemp(dir=memory))
    written(folder)
    path = folder / JOURNAL_FILE
    whole = path.read_bytes()
    cut %= len(whole) + 1
    path.write_bytes(whole[:cut])
    record = Record.open(folder)
    assert record.damaged == []
    lines = whole[:cut].count(b"\n")
    known = record.jobs.get("trial-0000")
    assert len(record.proposals()) == min(1, lines)
    assert (known.last_epoch if known else 0) == max(0, min(EPOCHS, lines - 2))
    assert (known.outcome if known else None) == ("done" if lines == 3 + EPOCHS else None)
    record.started(job(folder), 0)
    record.reported(job(folder), epoch(EPOCHS))
    assert Record.read(folder).jobs["trial-0000"].epochs[EPOCHS] == epoch(EPOCHS)


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed_and_named_and_costs_its_line_alone(memory: Path, place: int, bit: int) -> None:
    folder = Path(tempfile.mkdtemp(dir=memory))
    before = written(folder)
    path = folder / JOURNAL_FILE
    content = bytearray(path.read_bytes())
    place %= len(content) - 1
    content[place] ^= 1 << bit
    path.write_bytes(content)
    line = bytes(content[:place]).count(b"\n") + 1
    record = Record.open(folder)
    assert line in record.damaged
    assert set(record.damaged) <= {line, line + 1}
    assert list(folder.glob("journal.damaged-*"))
    for number, report in record.jobs["trial-0000"].epochs.items() if record.jobs else ():
        assert report == before.jobs["trial-0000"].epochs[number]
    assert Record.open(folder).damaged == []


def test_a_write_that_fails_leaves_the_journal_whole(tmp_path: Path) -> None:
    """/dev/full answers every write as a full disk does."""
    record = written(tmp_path)
    before = (tmp_path / JOURNAL_FILE).read_bytes()
    sound, full = record._file, os.open("/dev/full", os.O_WRONLY)
    record._file = full
    with pytest.raises(OSError, match="No space left") as caught:
        record.started(job(tmp_path, 1), 0)
    assert caught.value.errno == errno.ENOSPC
    assert (tmp_path / JOURNAL_FILE).read_bytes() == before
    assert "trial-0001" not in record.jobs
    record._file = sound
    record.started(job(tmp_path, 1), 0)
    assert list(Record.read(tmp_path).jobs) == ["trial-0000", "trial-0001"]


def test_what_a_journal_lost_is_taken_from_the_checkpoint(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / JOURNAL_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"0.52", b"0.92")
    path.write_bytes(b"".join(lines))
    history = [{"epoch": n, "values": epoch(n).values, "per_class": epoch(n).per_class} for n in range(1, EPOCHS + 1)]
    save_checkpoint(job(tmp_path).checkpoint, {"history": history})
    record = Record.open(tmp_path)
    assert record.damaged == [4]
    assert sorted(record.jobs["trial-0000"].epochs) == [1, 3]
    fill_from_checkpoint(record, job(tmp_path), SharedFolder())
    assert Record.read(tmp_path).jobs["trial-0000"].epochs[2] == epoch(2)


def test_of_two_checkpoints_the_newest_whole_one_is_gone_on_from(tmp_path: Path) -> None:
    trial = job(tmp_path)
    assert newest_checkpoint(trial) is None
    for epochs in (1, 2, 3):
        keep_checkpoint(trial, lambda path, epochs=epochs: save_checkpoint(path, {"epochs": epochs}))  # type: ignore[misc]
        path = newest_checkpoint(trial)
        assert path is not None
        assert load_checkpoint(path)["epochs"] == epochs
    trial.checkpoint.write_bytes(trial.checkpoint.read_bytes()[:-1])
    path = newest_checkpoint(trial)
    assert path is not None
    assert load_checkpoint(path)["epochs"] == 2
    drop_previous_checkpoint(trial)
    assert newest_checkpoint(trial) is None


def test_a_folder_that_was_moved_is_read_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    written(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert Record.read(tmp_path / "new").jobs["trial-0000"].job == job(tmp_path / "new")


def test_a_line_is_readable_json_behind_its_checksum(tmp_path: Path) -> None:
    written(tmp_path)
    first = (tmp_path / JOURNAL_FILE).read_text().splitlines()[0]
    assert json.loads(first.partition(" ")[2])["params"] == {"distill.temperature": 2.0}


@pytest.mark.parametrize(
    ("fgsm", "pgd", "warning"), [(0.78, 0.74, ""), (0.8, 0.1, "catastrophic overfitting at epoch 2: FGSM 80%, PGD 10%")]
)
def test_one_step_withstood_far_better_than_many_is_flagged(
    tmp_path: Path, fgsm: float, pgd: float, warning: str
) -> None:
    record = Record.open(tmp_path)
    record.started(job(tmp_path), 0)
    record.reported(job(tmp_path), Report(1, values={"train/loss": 1.0}))
    record.reported(job(tmp_path), Report(2, values={"val/fgsm_acc": fgsm, "val/pgd_acc": pgd}))
    assert record.jobs["trial-0000"].warning == warning


def test_what_an_exam_doubts_is_a_warning_of_its_job(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    record.started(job(tmp_path), 0)
    exam = {"metrics": {}, "doubts": ["one step beats twenty", "no gradient"]}
    record.reported(job(tmp_path), Report(EPOCHS, "examined", values={"test/clean_acc": 0.9}, exam=exam))
    assert Record.read(tmp_path).jobs["trial-0000"].warning == "one step beats twenty; no gradient"


def test_a_mended_record_has_what_the_checkpoint_had_and_is_whole(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / JOURNAL_FILE
    path.write_bytes(path.read_bytes().replace(b"0.52", b"0.92"))
    history = [{"epoch": n, "values": epoch(n).values, "per_class": epoch(n).per_class} for n in range(1, EPOCHS + 1)]
    save_checkpoint(job(tmp_path).checkpoint, {"history": history})
    record, said = open_mended(tmp_path, SharedFolder())
    assert "was damaged in line 4" in said
    assert sorted(record.jobs["trial-0000"].epochs) == [1, 2, 3]
    assert (record.damaged, open_mended(tmp_path, SharedFolder())[1]) == ([], "")


def damage(path: Path, holding: bytes) -> None:
    """Flip a bit in the first line that holds something."""
    content = path.read_bytes()
    flip(path, content.index(b" ", content.rindex(b"\n", 0, content.index(holding))))


@pytest.mark.parametrize(("kind", "phase"), [("confirm", "confirmed"), ("final", "examined")])
def test_a_job_whose_result_is_lost_is_not_done(tmp_path: Path, kind: str, phase: str) -> None:
    record = Record.open(tmp_path)
    one = Job(kind, f"{kind}-0001-s0", Config(), "train", str(tmp_path.absolute()))
    record.started(one, 0)
    record.reported(one, Report(1, phase, values={"confirm/robust_acc": 0.5}))
    record.ended(one, "done", "")
    assert record.is_done(one)
    damage(tmp_path / JOURNAL_FILE, phase.encode())
    assert not open_mended(tmp_path, SharedFolder())[0].is_done(one)


def test_a_damaged_journal_is_there_until_its_mended_copy_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, or a kill, in between loses nothing."""
    written(tmp_path)
    path = tmp_path / JOURNAL_FILE
    damage(path, b'"ended"')
    left = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        patched.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            Record.open(tmp_path)
    assert path.read_bytes() == left
    assert Record.open(tmp_path).jobs["trial-0000"].last_epoch == EPOCHS
    assert [aside.read_bytes() for aside in tmp_path.glob("journal.damaged-*")] == [left]
