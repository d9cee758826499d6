"""Several processes that train one model: the same model as one process trains, up to the order of sums."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rank_program
import torch
from bits import same_bits

from ltsd.checkpoint import load_checkpoint

CPU = torch.device("cpu")
HERE = Path(__file__).parent
AROUND = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
JOBS = "checkpoints/trial-0000.pt"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--local-ranks-filter", "0")


def launched(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TORCHRUN, *arguments], env=AROUND, capture_output=True, text=True, timeout=300)


def test_two_ranks_train_the_model_that_one_process_trains(tmp_path: Path) -> None:
    """Losses of all methods, batch statistics, the perturbation of weights, clipped gradients and validation."""
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder in (alone, together):
        folder.mkdir()
    rank_program.main(alone)
    done = launched(str(HERE / "rank_program.py"), str(together))
    assert done.returncode == 0, done.stderr
    for method in rank_program.RUNS:
        ours, theirs = (torch.load(folder / f"{method}.pt", weights_only=True) for folder in (together, alone))
        for name, tensor in theirs["state"].items():
            torch.testing.assert_close(ours["state"][name], tensor, rtol=1e-3, atol=1e-4, msg=f"{method}: {name}")
        for name in ("train/loss", "val/clean_acc"):
            assert ours["values"][name] == pytest.approx(theirs["values"][name], rel=1e-3), (method, name)


@pytest.mark.slow
def test_a_run_whose_rank_is_killed_is_resumed_to_the_same_bits(tmp_path: Path, small_flags: list[str]) -> None:
    """What torchrun starts: both stages."""
    train = ("-m", "ltsd", "train", "--method", "ltsd", *small_flags, "--epochs", "20")
    whole, broken = tmp_path / "whole.pt", tmp_path / "broken.pt"
    done = launched(*train, "--out", str(whole))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("saved ") == 1
    with subprocess.Popen([*TORCHRUN, *train, "--out", str(broken)], env=AROUND, stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 120
        while not broken.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(children(running.pid)[-1], signal.SIGKILL)
        assert running.wait(120) != 0
    assert len(load_checkpoint(broken, CPU)["history"]) < 20
    done = launched(*train, "--out", str(broken), "--resume")
    assert done.returncode == 0, done.stderr
    states = [load_checkpoint(path, CPU) for path in (whole, broken)]
    assert same_bits(*(state["student"] for state in states))


JOB = """
import sys
from pathlib import Path
import torch
from small import SMALL
from ltsd.config import Config
from ltsd.data import load_splits
from sweeps.journal.jobs import Job, keep_checkpoint
from sweeps.worker.followers import followed
from sweeps.worker.job_runs import run_of

torch.set_num_threads(1)
config = Config.preset("digits").override({**SMALL, "method": "at", "epochs": int(sys.argv[3])})
job = Job("trial", "trial-0000", config, "train", sys.argv[1])
splits = load_splits(config.data)
try:
    with followed(job, splits.folder, size=int(sys.argv[2]), gpu=False):
        run = run_of(job, splits, torch.device("cpu"))
        for metrics in run.epochs():
            keep_checkpoint(job, run.save)
            print(metrics.epoch, flush=True)
except Exception as error:
    print("reported as failed:", error)
"""
"""What a worker does with a job that several GPUs train: an error is reported, and the worker lives on."""


def begun(folder: Path, size: int, epochs: int) -> "subprocess.Popen[str]":
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    arguments = [sys.executable, "-c", JOB, str(folder), str(size), str(epochs)]
    return subprocess.Popen(arguments, env=AROUND, stdout=subprocess.PIPE, text=True)


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.slow
def test_a_job_of_several_ranks_ends_whole_whichever_of_them_dies_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """A worker whose follower dies ends with an error, so that Ray starts it again; a follower ends with its worker."""
    epochs = 12
    for name, victim in (("whole", ""), ("follower", "follower"), ("worker", "worker")):
        with begun(tmp_path / name, 2, epochs) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "1\n"
            (follower,) = children(worker.pid)
            if victim:
                os.kill(follower if victim == "follower" else worker.pid, signal.SIGKILL)
            assert (worker.wait(120) != 0) == bool(victim)
            deadline = time.monotonic() + 60
            while Path(f"/proc/{follower}").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not Path(f"/proc/{follower}").exists()
        if victim:
            with begun(tmp_path / name, 2, epochs) as worker:
                assert worker.wait(120) == 0
    whole, *others = (load_checkpoint(tmp_path / name / JOBS, CPU) for name in ("whole", "follower", "worker"))
    assert len(whole["history"]) == epochs
    assert all(same_bits(other["student"], whole["student"]) for other in others)
