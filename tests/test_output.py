"""What commands print: in terminals and files of any encoding, and when whoever reads it leaves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sweeping import SMALLEST, command, run_search

from sweeps.journal.record import Record

PRINTS = """
import sys
from ltsd.flags import exit_code_of
def main():
    print("125…6 ± 1 – naïve, ε, 日" + chr(0xDCFF))
    return 0
sys.exit(exit_code_of(main))
"""
ENDLESS = """
import sys
from ltsd.flags import exit_code_of
def main():
    while True:
        print("a line")
sys.exit(exit_code_of(main))
"""


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [
        ("ascii", "125...6 +- 1 - naive, eps, ??"),
        ("latin-1", "125...6 ± 1 - naïve, eps, ??"),
        ("utf-8", "125…6 ± 1 – naïve, ε, 日?"),
        ("utf-8:strict", "125…6 ± 1 – naïve, ε, 日?"),
    ],
)
def test_characters_that_an_encoding_lacks_have_readable_substitutes(encoding: str, printed: str) -> None:
    env = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", PRINTS], env=env, capture_output=True, check=True)
    assert done.stdout.decode(encoding.partition(":")[0]).rstrip() == printed


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_command_whose_reader_leaves_ends_quietly(unbuffered: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS],
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"a line\n"
    process.stdout.close()
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (141, b"")


def test_a_command_that_nobody_ever_read_ends_as_any_other() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, PRINTS], stderr=subprocess.PIPE, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
def test_a_sweep_in_a_locale_that_knows_ascii_alone_whose_reader_leaves_is_saved_and_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LC_ALL", "C"), ("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0")):
        monkeypatch.setenv(name, value)
    process = subprocess.Popen(
        command("--name", "piped", *SMALLEST, "--final-seeds", "2"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    read = b""
    while b"done" not in read:
        read += (line := process.stdout.readline())
        assert line, read
    process.stdout.close()
    _, said = process.communicate(timeout=120)
    assert b" training images, 125...6 a class" in read
    assert (process.returncode, said) == (141, b"")
    assert "done" in {known.outcome for known in Record.read(tmp_path / "runs" / "piped").jobs.values()}
    done = run_search(tmp_path, "--name", "piped", "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " training images, 125...6 a class" in done.stdout
    assert " ± " in (tmp_path / "runs" / "piped" / "table.md").read_text("utf-8")
