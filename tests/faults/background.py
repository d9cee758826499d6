"""A sweep that runs in the background while something happens to it, and the audit after it."""

import os
import subprocess
import time
from pathlib import Path

from kills import NAME, SHORT
from sweeping import command

LONG = (*SHORT, "--trials", "6", "--epochs", "24")


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
    """The audit command in a sweep's folder."""
    program = [*command()[:1], str(Path(command()[1]).with_name("audit.py")), NAME, *flags]
    return subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False)
