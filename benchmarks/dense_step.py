"""Does a training step on label maps keep the rate of one on whole images? Operations a second, side by side.

    python benchmarks/dense_step.py      # results/dense_step.md, a minute on one core

The steps take turns in one process; the ratio is the median of the ratios turn by turn. All are LTSD with PGD-3 on
random images, so that what a step multiplies and adds is the same multiple of a forward pass.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from machine import RESULTS, hardware, versions
from torch.utils.flop_counter import FlopCounterMode

from ltsd.config import Config
from ltsd.files import publishing
from ltsd.knobs import Value
from ltsd.markdown import table
from ltsd.methods import METHODS
from ltsd.models import build_model
from ltsd.models.frozen import frozen
from ltsd.state import TrainState
from ltsd.step import batch_of, budget_of, context_of, train_step
from ltsd.tasks import TASKS

CPU = torch.device("cpu")
CLASSES, STEPS = 11, 3
COUNTS = [1000 // 2**c + 10 for c in range(CLASSES)]
PASSES = 2 * STEPS + 8
"""Forward passes that a step is worth: an attack step 2, the update on two inputs 6, the teacher on both 2."""
CASES: Mapping[str, tuple[str, Mapping[str, Value], tuple[int, int], int]] = {
    "small-resnet, 32x32, batch 64": ("classification", {"model.name": "small-resnet"}, (32, 32), 64),
    "small-cnn, 32x32, batch 64": ("classification", {"model.name": "small-cnn"}, (32, 32), 64),
    "small-unet of width 8, 32x32, batch 8": ("segmentation", {"model.width": 8}, (32, 32), 8),
    "small-unet of width 16, 72x96, batch 8": ("segmentation", {"model.width": 16}, (72, 96), 8),
}
"""Task, knobs, (height, width) and batch; the first is what the others are compared with."""


def step_of(
    task_name: str, knobs: Mapping[str, Value], size: tuple[int, int], batch: int
) -> tuple[Callable[[], object], int]:
    """Return a step on random images, and the floating-point operations that it is worth."""
    fixed = {"method": "ltsd", "attack.steps": STEPS, "precision": "fp32", **knobs}
    config = Config.preset("path", task_name).override(fixed)
    network = build_model(config.model, 3, CLASSES).eval().requires_grad_(False)
    inputs = torch.rand(batch, 3, *size)
    shape = (batch,) if task_name == "classification" else (batch, *size)
    labels = torch.randint(CLASSES, shape, dtype=torch.int64 if len(shape) == 1 else torch.uint8)
    with FlopCounterMode(display=False) as counter:
        network(inputs)
    state, teacher = TrainState.fresh(config, 3, CLASSES, CPU), frozen(network)
    state.student.train()
    context = context_of(config, COUNTS, config.epochs // 2, None, teacher, CPU)
    budget = budget_of(config, COUNTS, config.epochs // 2, CPU)
    task, method, generator = TASKS[task_name], METHODS["ltsd"], torch.Generator().manual_seed(0)

    def step() -> object:
        batch = batch_of(task, method, inputs, labels, budget, generator)
        return train_step(task, method, state, batch, context, budget)

    return step, PASSES * counter.get_total_flops()


def timed(step: Callable[[], object]) -> float:
    """Seconds of processor time that a step takes."""
    started = time.process_time()
    step()
    return time.process_time() - started


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="turns that count (default: 15)")
    parser.add_argument("--out", type=Path, default=RESULTS / "dense_step.md", help="where the table goes")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    steps = {name: step_of(*case) for name, case in CASES.items()}
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(-1, flags.rounds):
        for name, (step, operations) in steps.items():
            rate = operations / timed(step)
            if turn >= 0:
                rates[name].append(rate)
    first = rates[next(iter(CASES))]
    rows = [["step", "GFLOP", "GFLOP/s", "rate beside the first"]]
    for name, found in rates.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(found, first, strict=True))
        rows.append([name, f"{steps[name][1] / 1e9:.2f}", f"{statistics.median(found) / 1e9:.1f}", f"{ratio:.2f}"])
    with publishing(flags.out) as temporary:
        temporary.write_text(
            "# The training step on label maps beside that on whole images\n\n"
            f"Made by `python benchmarks/dense_step.py`; LTSD with PGD-{STEPS}, fp32, random images; "
            f"{versions('torch', 'ltsd')}; {hardware()}, one thread. Medians of {flags.rounds} turns; operations are "
            f"{PASSES} forward passes, counted; processor time.\n\n{table(rows)}\n"
        )
    print(flags.out.read_text())


if __name__ == "__main__":
    main()
