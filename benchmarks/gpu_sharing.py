"""How much more do several trials train on one GPU than one alone? As processes, and as graphs on streams of one.

    python benchmarks/gpu_sharing.py                                  # digits: results/gpu_sharing.md
    python benchmarks/gpu_sharing.py --data cifar10 --model resnet18

One, two, four and eight trials of LTSD at a time: as the worker processes of a sweep, which take turns on the GPU; the
same under NVIDIA's Multi-Process Service, where it can be started; and in one process, each recorded as a graph of its
own on a stream of its own. A trial trains whole epochs of up to fifty batches for ten seconds. Without a GPU the worker
processes alone are measured, on the processors, which tries the script.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import ray
import torch
from machine import RESULTS, hardware, versions

from ltsd import cuda_graphs
from ltsd.config import Config
from ltsd.data import load_splits
from ltsd.files import publishing
from sweeps.journal.exchange import SharedFolder
from sweeps.machines.machine import OwnMachine
from sweeps.machines.sharing import SECONDS, TRIALS, Load, Probe, load_of
from sweeps.settings.flags import Settings

MPS = "nvidia-cuda-mps-control"


def as_processes(config: Config) -> Iterator[Load]:
    """One load after another, of Ray's workers."""
    gpus = min(1, torch.cuda.device_count())
    machine = OwnMachine(Settings(gpus_per_trial="auto" if gpus else 0.0))
    machine.start(Path(), load_splits(config.data), SharedFolder())
    try:
        for trials in TRIALS:
            if trials <= (machine.processors_per_gpu() if gpus else machine.carries()):
                yield load_of(config, None, trials, gpus)
    finally:
        machine.stop()


def as_streams(config: Config) -> Iterator[Load]:
    """One load after another, each in a process of its own."""
    ray.init(include_dashboard=False, log_to_driver=False)
    try:
        for trials in TRIALS:
            yield ray.get(ray.remote(num_gpus=1, max_calls=1)(on_streams).remote(config, trials))
    finally:
        ray.shutdown()


def on_streams(config: Config, trials: int) -> Load:
    """Train so many trials on as many streams of this process."""
    probes = []
    for _ in range(trials):
        cuda_graphs._latest.clear()  # a recording for each
        probes.append(Probe(config, 1.0, None))

    def rate(probe: Probe) -> float:
        with torch.cuda.stream(torch.cuda.Stream()):
            return probe.images_per_s(SECONDS)

    with ThreadPoolExecutor(trials) as pool:
        rates = list(pool.map(rate, probes))
    return Load(trials, sum(rates), probes[0].memory() / trials)


@contextmanager
def multi_process_service() -> Iterator[None]:
    """Inside, processes that use the GPU share it through NVIDIA's service."""
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        os.environ |= {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        subprocess.run([MPS, "-d"], check=True)
        try:
            yield
        finally:
            subprocess.run([MPS], input="quit\n", text=True, check=False)
            del os.environ["CUDA_MPS_PIPE_DIRECTORY"], os.environ["CUDA_MPS_LOG_DIRECTORY"]


def measure(config: Config) -> Iterator[str]:
    """The rows of the table."""
    yield from rows("processes that take turns", as_processes(config))
    if not torch.cuda.is_available():
        return
    if shutil.which(MPS):
        with multi_process_service():
            yield from rows("processes under MPS", as_processes(config))
    else:
        yield f"| processes under MPS | not measured: {MPS} is not installed | | | |"
    yield from rows("graphs on streams of one process", as_streams(config))


def rows(how: str, loads: Iterator[Load]) -> Iterator[str]:
    """A row a load."""
    alone = 0.0
    for load in loads:
        alone = alone or load.images_per_s
        ratio = load.images_per_s / alone
        yield f"| {how} | {load.trials} | {load.images_per_s:.0f} | {ratio:.2f} | {load.memory:.1%} |"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="source of the images (default: digits)")
    parser.add_argument("--model", help="network (default: that of the source)")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_sharing.md", help="where the table goes")
    flags = parser.parse_args()
    config = Config.preset(flags.data).override({"model.name": flags.model} if flags.model else {})
    table = []
    for row in measure(config):
        print(row, flush=True)
        table.append(row)
    command = f"python benchmarks/gpu_sharing.py --data {flags.data} --model {config.model.name}"
    with publishing(flags.out) as temporary:
        temporary.write_text(
            f"# Several trials of LTSD on one GPU: {config.model.name}, {flags.data}\n\n"
            f"Made by `{command}`; {versions('torch', 'ray', 'ltsd')}; {hardware()}.\n\n"
            "| how | trials | images/s of all | to one alone | memory of the GPU, each |\n|---|---|---|---|---|\n"
            + "\n".join(table)
            + "\n"
        )


if __name__ == "__main__":
    main()
