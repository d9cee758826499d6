"""A sweep that runs in the background while something happens to it, and the audit after it."""

import contextlib
import io
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from kills import NAME, SHORT
from sweeping import command

from ltsd.flags import exit_code_of
from sweeps.audit import main

BRIEF = (*SHORT, "--references", "at-bsl")
LONG = (*BRIEF, "--trials", "6", "--epochs", "24")
PREPARED = get_context("forkserver")
PREPARED.set_forkserver_preload(["sweeps.consistency"])


class Sweep:
    """A sweep that runs in the background."""

    def __init__(self, folder: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.log = (folder / "said.log").open("wb")
        self.process = subprocess.Popen(
            command("--name", NAME, *flags),
            cwd=folder,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | (env or {}),
        )

    def said(self) -> str:
        return (self.folder / "said.log").read_text()

    def until(self, text: str) -> None:
        deadline = time.monotonic() + 120
        while text not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)


def audit(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """What the audit of a sweep's folder ends with, in a process that finds imported what takes the command seconds.

    The command as it is typed: `kills.count`, and tests/test_compare.py.
    """
    with ProcessPoolExecutor(1, mp_context=PREPARED) as process:
        return process.submit(_audited, folder, (NAME, *flags), dict(os.environ)).result()


def _audited(folder: Path, arguments: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    os.environ.update(env)
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = exit_code_of(lambda: main(arguments))
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
