"""Restart a sweep whose driver process was ended, by the kernel because memory ran out, or by Ray.

Ray ends the process that started it if one of Ray's own processes dies. So the driver runs as a child process here. It
is started again and continues from the record.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from sweeps.machines import environment

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
FRUITLESS = 3
ASKED_TO_LEAVE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class BeginAgainError(Exception):
    """Raised by work that can only continue in another process."""


class StillbornError(Exception):
    """The work's process died before anything was on record; the message says why."""


def supervised(work: Callable[[bool], int], progress: Callable[[], int]) -> int:
    """Run `work` in a child process until it ends by itself; return its exit code.

    A child that dies otherwise is started again, unless a signal asked it to leave, nothing is on record, or
    `FRUITLESS` deaths in a row brought no `progress`, a number that grows with the record. The first signal that asks
    to leave is passed on (a terminal that closes counts as SIGTERM); a second one ends everything at once. On systems
    other than Linux, `work` runs in this process.

    Args:
        work: receives whether it continues after a death.
        progress: returns how much is on record.

    Raises:
        StillbornError: the child died, and nothing is on record.
    """
    if sys.platform != "linux":
        return work(False)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    again, fruitless = False, 0
    while True:
        before = progress()
        code, number = _run_child(work, again)
        _end_descendants()
        environment.remove_scratch()
        if code is not None:
            return code
        if number in ASKED_TO_LEAVE:
            return 128 + number
        if progress() == 0:
            raise StillbornError(_cause(number))
        again = True
        fruitless = 0 if progress() > before else fruitless + 1
        print(f"the sweep's process died ({_cause(number)})", file=sys.stderr, flush=True)
        if fruitless == FRUITLESS:
            print("nothing new came on record, so it is not begun again", file=sys.stderr)
            return 1
        print("it is begun again and goes on from its record", file=sys.stderr, flush=True)


def _run_child(work: Callable[[bool], int], again: bool) -> tuple[int | None, int]:
    """Run `work` in a child with its own process group; return the exit code (None if it has none), and the signal that
    ended it or asked it to leave.
    """
    reading, writing = os.pipe2(os.O_NONBLOCK)
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        try:
            code = work(again)
        except KeyboardInterrupt:
            code = 128 + signal.SIGINT
        except BeginAgainError:
            sys.exit(1)
        os.write(writing, bytes([code]))
        sys.exit(code)
    asked = _passing_on(child)
    _, status = os.waitpid(child, 0)
    os.close(writing)
    told = os.read(reading, 1)
    os.close(reading)
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return (told[0] if told else None), (asked[0] if asked else number)


def _passing_on(child: int) -> list[int]:
    """Pass the first signal that asks to leave to the child; let a second one end everything.

    Returns:
        The signals, as they come.
    """
    came: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        came.append(number)
        first = signal.SIGTERM if number == signal.SIGHUP else number
        os.kill(child, first if len(came) == 1 else signal.SIGKILL)

    for number in ASKED_TO_LEAVE:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, pass_on)
    return came


def _end_descendants() -> None:
    """Kill what the child left: Ray's processes and workers, which this process inherited when the child died."""
    while children := _children():
        for child in children:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _cause(number: int) -> str:
    if number == signal.SIGALRM:
        return "Ray did not answer in time"
    return (
        f"{signal.Signals(number).name}: killed, or out of memory"
        if number
        else "it raised an error, or Ray brought it down"
    )
