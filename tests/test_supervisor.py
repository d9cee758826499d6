"""The supervisor: what is begun again, and what is not. Real processes; the work is a shell's."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's process control")


def start(folder: Path, work: str) -> subprocess.Popen[str]:
    """A process that supervises `work`, a function body; progress is the length of the file `record`."""
    program = f"""
import os, signal, subprocess, sys, time
from pathlib import Path
from sweeps.machines.supervisor import BeginAgainError, supervised
record = Path("record")
def work(again):
    with record.open("a") as file:
{textwrap.indent(textwrap.dedent(work), "        ")}
sys.exit(supervised(work, lambda: record.stat().st_size if record.exists() else 0))
"""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", program], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(folder: Path, work: str) -> tuple[int, str, str]:
    process = start(folder, work)
    _, said = process.communicate(timeout=60)
    record = folder / "record"
    return process.returncode, record.read_text() if record.exists() else "", said


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_work_that_ends_by_itself_is_not_begun_again(tmp_path: Path, code: int) -> None:
    assert ended(tmp_path, f"file.write('x')\nreturn {code}") == (code, "x", "")


def test_work_that_is_killed_is_begun_again_and_told_so(tmp_path: Path) -> None:
    code, record, said = ended(
        tmp_path,
        """
        file.write("again " if again else "first ")
        file.flush()
        if record.stat().st_size < 18:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0
        """,
    )
    assert (code, record) == (0, "first again again ")
    assert said.count("died (SIGKILL: killed, or out of memory)") == 2


def test_work_that_asks_for_a_process_of_its_own_gets_one(tmp_path: Path) -> None:
    work = "file.write('x')\nfile.flush()\nif not again:\n    raise BeginAgainError\nreturn 0"
    code, record, said = ended(tmp_path, work)
    assert (code, record) == (0, "xx")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("death", "cause"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL: killed, or out of memory"),
        ("signal.alarm(1)\ntime.sleep(60)", "Ray did not answer in time"),
        ("os._exit(1)", "it raised an error, or Ray brought it down"),
    ],
)
def test_work_that_dies_with_nothing_on_record_is_given_up(tmp_path: Path, death: str, cause: str) -> None:
    code, record, said = ended(tmp_path, death)
    assert (code, record) == (1, "")
    assert said.rstrip().endswith(f"StillbornError: {cause}")


def test_three_deaths_in_a_row_that_bring_nothing_are_the_end(tmp_path: Path) -> None:
    code, record, said = ended(
        tmp_path, "if not again:\n    file.write('x')\n    file.flush()\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    assert (code, record, said.count("died")) == (1, "x", 4)


def test_what_the_work_left_running_ends_with_it(tmp_path: Path) -> None:
    work = """
    child = subprocess.Popen(["sh", "-c", "setsid sleep 300 & echo $! ; wait"], stdout=file, start_new_session=True)
    while not record.stat().st_size:
        time.sleep(0.01)
    if not again:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0
    """
    code, record, _ = ended(tmp_path, work)
    assert code == 0
    left = [pid for pid in record.split() if Path(f"/proc/{pid}").exists()]
    assert left == []
    assert len(record.split()) == 2


def test_a_first_signal_is_passed_on_and_a_second_ends_everything(tmp_path: Path) -> None:
    work = """
    signal.signal(signal.SIGTERM, lambda *_: (file.write("asked"), file.flush()))
    file.write("ready ")
    file.flush()
    while True:
        time.sleep(0.05)
    """
    process = start(tmp_path, work)
    for expected in ("ready ", "ready asked"):
        deadline = time.monotonic() + 20
        while not (tmp_path / "record").exists() or (tmp_path / "record").read_text() != expected:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM
    process.communicate()


def test_a_supervisor_that_is_killed_takes_its_work_along(tmp_path: Path) -> None:
    process = start(tmp_path, "file.write(str(os.getpid()))\nfile.flush()\ntime.sleep(300)\nreturn 0")
    while not (tmp_path / "record").exists() or not (tmp_path / "record").read_text():
        time.sleep(0.02)
    child = int((tmp_path / "record").read_text())
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while _is_alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]
