"""Several processes that train one model: the same model as one process trains, up to the order of sums."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import rank_program
import torch
from bits import same_bits

from ltsd.checkpoint import load_checkpoint

CPU = torch.device("cpu")
HERE = Path(__file__).parent
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--local-ranks-filter", "0")


def launched(*arguments: str) -> subprocess.CompletedProcess[str]:
    around = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    return subprocess.run([*TORCHRUN, *arguments], env=around, capture_output=True, text=True, timeout=300)


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
    """What torchrun starts: both stages; a batch that does not divide among the ranks is refused."""
    train = ("-m", "ltsd", "train", "--method", "ltsd", *small_flags, "--epochs", "20")
    whole, broken = tmp_path / "whole.pt", tmp_path / "broken.pt"
    done = launched(*train, "--out", str(whole))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("saved ") == 1
    around = os.environ | {"PYTHONPATH": str(HERE.parent)}
    with subprocess.Popen([*TORCHRUN, *train, "--out", str(broken)], env=around, stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 120
        while not broken.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        _, second = sorted(psutil.Process(running.pid).children(), key=lambda child: child.pid)
        second.kill()
        assert running.wait(120) != 0
    assert len(load_checkpoint(broken, CPU)["history"]) < 20
    done = launched(*train, "--out", str(broken), "--resume")
    assert done.returncode == 0, done.stderr
    states = [load_checkpoint(path, CPU) for path in (whole, broken)]
    assert same_bits(*(state["student"] for state in states))
    refused = launched(*train, "--out", str(tmp_path / "odd.pt"), "--optim.batch-size", "33")
    assert refused.returncode != 0
    assert "a training batch of 33 does not divide among 2 GPUs" in refused.stderr + refused.stdout
