"""What a worker uses is what its process used since the last lap."""

import time
from pathlib import Path

import pytest
import torch

from sweeps.worker.usage import Usage

CPU = torch.device("cpu")


def work(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_a_lap_has_the_time_and_the_processor_since_the_last_one() -> None:
    usage = Usage(CPU)
    time.sleep(0.2)
    asleep = usage.lap()
    work(0.2)
    awake = usage.lap()
    assert asleep["system/seconds"] >= 0.2
    assert awake["system/seconds"] >= 0.2
    assert asleep["system/cpu_percent"] < 50
    spent = awake["system/cpu_percent"] / 100 * awake["system/seconds"]
    assert spent == pytest.approx(0.2, abs=0.05)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell the peak")
def test_memory_is_the_most_that_the_process_had() -> None:
    told = Usage(CPU).lap()["system/memory_mib"]
    (peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    assert told == pytest.approx(int(peak) / 1024, rel=0.01)
