"""Checkpoints: whole or not at all, and never a way to run code."""

import hashlib
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ltsd.checkpoint import MAGIC, CheckpointError, load_checkpoint, save_checkpoint
from ltsd.config import Config
from ltsd.data import Splits
from ltsd.files import publishing
from ltsd.runs import load_model, open_run

CONTENT = {
    "weights": torch.arange(6.0).reshape(2, 3),
    "epoch": 3,
    "name": "run",
    "history": [{"loss": 0.5}],
    "no": None,
}
tensors = st.lists(st.floats(width=32), max_size=5).map(torch.tensor) | st.just(torch.tensor([[1, 2]]))
plain = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text()
contents = st.dictionaries(
    st.text(),
    st.recursive(
        plain | tensors, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_size=4,
)
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return (
            one.dtype == other.dtype and one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and bool(one == other)


def with_true_checksum(path: Path, payload: bytes) -> Path:
    path.write_bytes(MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
    return path


@in_one_folder
@given(contents)
def test_what_was_saved_is_loaded(tmp_path: Path, content: dict[str, Any]) -> None:
    save_checkpoint(tmp_path / "a.pt", content)
    assert equal(load_checkpoint(tmp_path / "a.pt"), content)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@in_one_folder
@given(st.data())
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    save_checkpoint(tmp_path / "a.pt", CONTENT)
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(CheckpointError, match=r"cut\.pt"):
        load_checkpoint(tmp_path / "cut.pt")


@in_one_folder
@given(st.data())
def test_a_file_of_which_one_bit_changed_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    save_checkpoint(tmp_path / "a.pt", CONTENT)
    changed = bytearray((tmp_path / "a.pt").read_bytes())
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (tmp_path / "changed.pt").write_bytes(changed)
    with pytest.raises(CheckpointError, match=r"changed\.pt"):
        load_checkpoint(tmp_path / "changed.pt")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "plain.pt")
    (tmp_path / "empty.pt").touch()
    for name, said in [
        ("plain.pt", "is not an ltsd checkpoint"),
        ("empty.pt", "is not an ltsd checkpoint"),
        ("missing.pt", "cannot be read"),
        (".", "cannot be read"),
    ]:
        with pytest.raises(CheckpointError, match=said):
            load_checkpoint(tmp_path / name)


class Creates:
    """Pickled, it makes a folder when it is loaded by a reader that runs code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    """Also where whoever made the file gave it a true checksum."""
    bait = Creates(tmp_path / "executed")
    save_checkpoint(tmp_path / "zip.pt", {"weights": torch.zeros(2), "epoch": bait})
    with_true_checksum(tmp_path / "pickle.pt", pickle.dumps({"epoch": bait}, protocol=2))
    for name in ("zip.pt", "pickle.pt"):
        with pytest.raises(CheckpointError, match="more than tensors and plain values"):
            load_checkpoint(tmp_path / name)
    assert not bait.folder.exists()
    pickle.loads(pickle.dumps(bait))
    assert bait.folder.exists()


def test_a_checkpoint_of_another_architecture_is_refused(small: Config, splits: Splits, tmp_path: Path) -> None:
    config = small.override({"method": "at", "epochs": 1})
    run = open_run(config, splits, splits.train, None, torch.device("cpu"), teacher=None, resume=None)
    list(run.epochs())
    run.save(tmp_path / "run.pt")
    model, about = load_model(tmp_path / "run.pt", torch.device("cpu"))
    torch.testing.assert_close(model.state_dict(), run.state.model.state_dict(), rtol=0, atol=0)
    assert about["class_counts"] == splits.train.class_counts()
    content = load_checkpoint(tmp_path / "run.pt")
    content["config"]["model.width"] = 16
    save_checkpoint(tmp_path / "wide.pt", content)
    with pytest.raises(CheckpointError, match="another architecture"):
        load_model(tmp_path / "wide.pt", torch.device("cpu"))
    with pytest.raises(CheckpointError, match="another architecture"):
        open_run(
            config.override({"model.width": 16}),
            splits,
            splits.train,
            None,
            torch.device("cpu"),
            teacher=None,
            resume=tmp_path / "wide.pt",
        )


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def write() -> None:
        with publishing(path) as temporary:
            temporary.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["a.json"]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from ltsd.files import publishing\n"
        "with publishing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('ne')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parent.parent
    killed = subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_a_file_is_published_into_folders_that_do_not_exist_yet(tmp_path: Path) -> None:
    with publishing(tmp_path / "a" / "b" / "c.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "new"
