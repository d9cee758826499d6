"""The other ranks of a job that several GPUs train: processes beside the worker, which is the first rank.

They train in step with the worker, and report and write nothing. If one of them dies the worker ends, as if it had died
itself, so that Ray starts the job again from its last checkpoint. If the worker dies they end.
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
"""Between an error of the worker and its report: does it come from the end of a follower?"""


@dataclass(frozen=True)
class Part:
    """What a follower has to do: be one of `size` ranks, which meet at `store`, the URI of a file, on a GPU or on the
    processor. `folder` holds the decoded images.
    """

    params: dict[str, Any]
    folder: Path
    store: str
    rank: int
    size: int
    gpu: bool


@contextmanager
def followed(job: Job, folder: Path, *, size: int, gpu: bool) -> Iterator[None]:
    """Be the first of `size` ranks that train a job in the body, each on a GPU of its own; of one, do nothing.

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
                    # What the ranks do together fails when one is gone, and this may be noticed before its end.
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
    """End this process if a follower fails before all is over: what the ranks do together would never end."""
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
    """Read a `Part` from the input, and do it."""
    part = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_input, daemon=True).start()
    _follow(part)


if __name__ == "__main__":
    main()
