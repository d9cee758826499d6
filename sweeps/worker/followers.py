"""The other ranks of a job that several GPUs train: processes beside the worker, which is the first rank.

They train in step with the worker, and report and write nothing. If one of them dies, the worker exits as if it had
died itself, so that Ray restarts the job from its last checkpoint. If the worker dies, they exit.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ltsd import ranks
from ltsd.data import load_splits
from ltsd.errors import UserError
from ltsd.precision import device_of
from sweeps.journal.jobs import Job
from sweeps.worker.job_runs import run_of

PATIENCE_S = 5.0
"""The wait between an error of the worker and its report: if a follower's death caused it, the worker exits first."""


@dataclass(frozen=True)
class Part:
    """The task of a follower.

    Attributes:
        params: of the job.
        folder: with the decoded images.
        store: URI of the file through which the ranks meet.
        rank: of the follower, from 1.
        size: number of ranks.
        gpu: whether the ranks train on GPUs.
    """

    params: dict[str, Any]
    folder: Path
    store: str
    rank: int
    size: int
    gpu: bool


@contextmanager
def followed(job: Job, folder: Path, *, size: int, gpu: bool) -> Iterator[None]:
    """Start the other ranks of a job, and be rank 0 in the body; each rank has its own GPU. Do nothing if `size` is 1.

    Args:
        job: its files are at hand.
        folder: with the decoded images.
        size: number of ranks.
        gpu: whether they train on GPUs.
    """
    if size == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="ltsd-ranks-") as scratch:
        store = (Path(scratch) / "store").as_uri()
        followers = [_started(Part(job.params(), folder, store, rank, size, gpu)) for rank in range(1, size)]
        over = threading.Event()
        for follower in followers:
            threading.Thread(target=_end_with, args=(follower, over), daemon=True).start()
        try:
            with ranks.joined(gpu=0 if gpu else None, init_method=store, rank=0, world_size=size):
                try:
                    yield
                except UserError:
                    raise
                except Exception:
                    # A collective operation fails if a rank is gone, possibly before `_end_with` has noticed its end.
                    time.sleep(PATIENCE_S)
                    raise
        finally:
            over.set()
            for follower in followers:
                follower.kill()
                follower.wait()


def _started(part: Part) -> "subprocess.Popen[bytes]":
    """Start a follower. Its input stays open as long as this process lives."""
    around = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    follower = subprocess.Popen(
        [sys.executable, "-m", "sweeps.worker.followers"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=around
    )
    assert follower.stdin is not None
    pickle.dump(part, follower.stdin)
    follower.stdin.flush()
    return follower


def _end_with(follower: "subprocess.Popen[bytes]", over: threading.Event) -> None:
    """End this process if a follower fails before all is over: collective operations would wait for it forever."""
    if follower.wait() != 0 and not over.is_set():
        os._exit(1)


def _follow(part: Part) -> None:
    """Train as a follower."""
    torch.set_num_threads(1)
    job = Job.of(part.params)
    gpu = part.rank if part.gpu else None
    with ranks.joined(gpu=gpu, init_method=part.store, rank=part.rank, world_size=part.size):
        try:
            run = run_of(job, load_splits(job.config.data, folder=part.folder), device_of(gpu=part.gpu))
            for _ in run.epochs():
                pass
        except UserError:
            pass  # the first rank raises the same, and reports it


def _end_with_input() -> None:
    """End this process when its input ends: the worker is gone."""
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    """Read a `Part` from the standard input, and train as that follower."""
    part = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_input, daemon=True).start()
    _follow(part)


if __name__ == "__main__":
    main()
