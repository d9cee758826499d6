"""Train a few small runs, alone or as one of the ranks that torchrun started: python rank_program.py FOLDER."""

import sys
from copy import deepcopy
from pathlib import Path

import torch
from small import SMALL

from ltsd import ranks
from ltsd.config import Config
from ltsd.data import load_splits
from ltsd.methods import METHODS
from ltsd.runs import open_run
from ltsd.state import TrainState

CPU = torch.device("cpu")
PLAIN = {"epochs": 1, "attack.steps": 1, "evaluate.every": 1, "precision": "fp32"}
RUNS = {
    "at": {"awp.gamma": 5e-3, "optim.ema_decay": 0.9, "robustlt.strength": 0.3, "data.augmentation": "crop-flip"},
    "ltsd": {"optim.clip_grad_norm": 1.0},
    "trades": {},
    "reat": {},
    "taet": {},
    "robal": {"optim.batch_size": 31},
}
"""By method; what its loss is a function of is never a mean over images alone."""


def main(folder: Path) -> None:
    """Write the state of each run to FOLDER/METHOD.pt."""
    torch.set_num_threads(1)
    small = Config.preset("digits").override(SMALL)
    splits = load_splits(small.data)
    with ranks.joined_by_torchrun():
        for method, knobs in RUNS.items():
            config = small.override({**PLAIN, "method": method, **knobs})
            teacher = None
            if METHODS[method].needs_teacher:
                teacher = deepcopy(TrainState.fresh(config.override({"seed": 7}), 1, 10, CPU).student)
            run = open_run(config, splits, splits.train, splits.val, CPU, teacher=teacher, resume=None)
            (metrics,) = run.epochs()
            if ranks.is_first():
                content = {"state": run.state.student.state_dict(), "values": metrics.values}
                torch.save(content, folder / f"{method}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
