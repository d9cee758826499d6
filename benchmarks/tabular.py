"""Random configurations of the widest space, each trained on several seeds: a table on which searches are replayed.

    python benchmarks/tabular.py                   # the digits: 400 configurations, three seeds; five hours of a core

Each run keeps its scores at every validated epoch, and at the end which images of the reserve and of the test set are
right: bit by bit, so that a replay can validate on any part of the reserve. Runs are written to the Parquet file one
by one, a seed of all configurations before the next, and not made again: the command goes on where it was broken off.
`benchmarks/strategies.py` reads the table.
"""

import argparse
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from machine import RESULTS
from replays.wide import SPACE

from ltsd.attacks.autoattack import autoattack
from ltsd.attacks.domains import PIXELS
from ltsd.config import Config
from ltsd.data import load_splits
from ltsd.data.batches import Split
from ltsd.evaluation.evaluate import CHUNK, Correctness, clean_correctness, standing_correctness
from ltsd.files import publishing
from ltsd.knobs import Value
from ltsd.models.frozen import frozen
from ltsd.runs import open_run
from ltsd.tasks.classification import VALIDATION_LOSSES
from ltsd.teacher import teacher_config, teacher_gamma, teacher_split
from sweeps.study.space import published_defaults

BASE = Config.preset("digits").override({"evaluate.every": 4})
TRUTH = "APGD-CE+T"
SCORES = ("clean_acc", "tail_clean_acc", "pgd_acc", "robust_acc", "tail_robust_acc")
RESERVE_SEED = 1


def draw_configurations(count: int) -> list[dict[str, Value]]:
    """The defaults, then random points of the wide space."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(published_defaults(BASE, load_splits(BASE.data).imbalance_ratio, SPACE))
    return [dict(study.ask(dict(SPACE)).params) for _ in range(count)]


def run_of(number: int, params: Mapping[str, Value], seed: int, steps: int) -> dict[str, Any]:
    """Train one configuration on one seed, with so many PGD steps; all that is kept of it. One thread."""
    torch.set_num_threads(1)
    began = time.process_time()
    config = BASE.override(params).override({"seed": seed, "attack.steps": steps})
    if steps < BASE.attack.steps:
        config = config.override({"attack.step_size": config.attack.resolved_step_size * BASE.attack.steps / steps / 2})
    splits, device = load_splits(config.data), torch.device("cpu")
    gamma = teacher_gamma(config, splits.imbalance_ratio)
    data = teacher_split(config, splits.train, gamma)
    taught = open_run(teacher_config(config, gamma), splits, data, splits.val, device, teacher=None, resume=None)
    *_, teacher = taught.epochs()
    teacher_seconds = time.process_time() - began
    run = open_run(config, splits, splits.train, splits.val, device, teacher=taught.state.model, resume=None)
    curve = [(m.epoch, m.values) for m in run.epochs() if "val/robust_acc" in m.values]
    seconds = time.process_time() - began
    model = frozen(run.state.model.eval().requires_grad_(False))
    return {
        "configuration": number,
        "seed": seed,
        "steps": steps,
        **params,
        "teacher_seconds": teacher_seconds,
        "seconds": seconds,
        **{f"teacher/{name}": teacher.values[f"val/{name}"] for name in SCORES},
        "epochs": [epoch for epoch, _ in curve],
        **{f"val/{name}": [values[f"val/{name}"] for _, values in curve] for name in SCORES},
        **reserve_bits(model, splits.reserve, config),
        **test_bits(model, splits.test, config),
    }


def reserve_bits(model: torch.nn.Module, reserve: Split, config: Config) -> dict[str, bytes]:
    """Which images of the reserve are right, clean and under each attack and those before it."""
    found = standing_correctness(
        model,
        reserve,
        VALIDATION_LOSSES,
        domain=PIXELS,
        eps=config.attack.eps,
        step_size=config.attack.eps / 4 * 20 / config.evaluate.steps,
        steps=config.evaluate.steps,
        seed=RESERVE_SEED,
    )
    return {f"reserve/{name}": packed(correctness) for name, correctness in found.items()}


def test_bits(model: torch.nn.Module, test: Split, config: Config) -> dict[str, bytes]:
    """Which test images are right, clean and under AutoAttack's first half."""
    inputs, labels = test.take(torch.arange(len(test)))
    *_, (_, standing) = autoattack(
        model, inputs, labels, eps=config.attack.eps, version="apgd-ce+t", seed=0, batch_size=CHUNK
    )
    hard = Correctness(standing, labels, test.num_classes)
    return {"test/clean": packed(clean_correctness(model, test)), f"test/{TRUTH}": packed(hard)}


def packed(correctness: Correctness) -> bytes:
    """A bit an image, in order."""
    return np.packbits(correctness.right.numpy()).tobytes()


def main() -> None:
    """Make the runs that are missing, two at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configurations", type=int, default=400, help="how many (default: 400)")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--steps", type=int, default=BASE.attack.steps, help="PGD steps in training (default: 10)")
    parser.add_argument("--out", type=Path, default=RESULTS / "tabular.parquet", help="where the table lies")
    flags = parser.parse_args()
    rows: list[dict[str, Any]] = pq.read_table(flags.out).to_pylist() if flags.out.exists() else []
    done = {(row["configuration"], row["seed"], row["steps"]) for row in rows}
    drawn = draw_configurations(flags.configurations)
    wanted = [(n, params, seed, flags.steps) for seed in range(flags.seeds) for n, params in enumerate(drawn)]
    missing = [run for run in wanted if (run[0], *run[2:]) not in done]
    with ProcessPoolExecutor(2) as pool:
        for future in as_completed([pool.submit(run_of, *run) for run in missing]):
            rows.append(future.result())
            rows.sort(key=lambda row: (row["steps"], row["seed"], row["configuration"]))
            with publishing(flags.out) as temporary:
                pq.write_table(pa.Table.from_pylist(rows), temporary, compression="zstd")
            print(f"{len(rows)}: {rows[-1]['val/robust_acc'][-1]:.3f}", flush=True)


if __name__ == "__main__":
    main()
