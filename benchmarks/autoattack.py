"""AutoAttack here against the reference implementation: the same verdict on every image, member by member?

    git clone https://github.com/fra31/auto-attack peer && git -C peer checkout a39220048b3c9f2cca9a4d3a54604793c68eca7e
    python benchmarks/autoattack.py --peer peer    # writes benchmarks/results/autoattack.md, three minutes on one core

Both attack one model, adversarially trained here on the digits, with the same seed and batch size, here frozen as exams
have it: every member alone, on all images that the model tells rightly, and then both ensembles as a whole.
"""

import argparse
import contextlib
import hashlib
import io
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, hardware
from torch import Tensor, nn

from ltsd.attacks.autoattack import MEMBERS, STANDARD, Round, autoattack
from ltsd.config import Config
from ltsd.data import load_splits
from ltsd.files import publishing
from ltsd.models.frozen import frozen
from ltsd.runs import open_run

IMAGES, BATCH_SIZE, SEED = 160, 64, 0
WHOLE = {"apgd-ce+t, whole": MEMBERS["apgd-ce+t"], "standard, whole": MEMBERS["standard"]}


def trained() -> tuple[nn.Module, Tensor, Tensor, float]:
    """A model of AT with its defaults, the images and labels to attack, evenly spaced in the test set, and eps."""
    config = Config.preset("digits").override({"method": "at"})
    splits = load_splits(config.data)
    run = open_run(config, splits, splits.complete, None, torch.device("cpu"), teacher=None, resume=None)
    list(run.epochs())
    inputs, labels = splits.test.take(torch.linspace(0, len(splits.test) - 1, IMAGES).round().long())
    return run.state.model.eval().requires_grad_(False), inputs, labels, config.attack.eps


def ours(model: nn.Module, inputs: Tensor, labels: Tensor, eps: float, members: Sequence[str]) -> Tensor:
    """Who stands after a member alone, or after a version."""
    model = frozen(model)
    versions = [name for name, whole in MEMBERS.items() if whole == members]
    if versions:
        run = autoattack(model, inputs, labels, eps=eps, version=versions[0], seed=SEED, batch_size=BATCH_SIZE)
    else:
        logits = model(inputs)
        right, classes = logits.argmax(1) == labels, logits.shape[1]
        alone = Round(model, inputs, labels, classes, right, members, eps, SEED, BATCH_SIZE)
        run = alone.joined({shard: alone.attacked(shard) for shard in alone.shards})
    return [standing for _, standing in run][-1]


def theirs(peer: Any, model: nn.Module, inputs: Tensor, labels: Tensor, eps: float, members: Sequence[str]) -> Tensor:
    """The same by the reference implementation."""
    with contextlib.redirect_stdout(io.StringIO()):
        runner = peer(model, norm="Linf", eps=eps, seed=SEED, version="standard", device="cpu", verbose=False)
        runner.attacks_to_run = list(members)
        adv_inputs = runner.run_standard_evaluation(inputs, labels, bs=BATCH_SIZE)
    return model(adv_inputs).argmax(1) == labels


def timed(attack: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What it gives, and its seconds of processor time, in which other work on the machine does not count."""
    started = time.process_time()
    standing = attack()
    return standing, time.process_time() - started


def compare(peer: Any) -> list[str]:
    """The rows of the table."""
    model, inputs, labels, eps = trained()
    right = model(inputs).argmax(1) == labels
    rows = [
        "| attack | images | stand here | stand there | same verdict | CPU s here | CPU s there |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, members in {**{f"{member} alone": (member,) for member in STANDARD}, **WHOLE}.items():
        mine, my_time = timed(partial(ours, model, inputs, labels, eps, members))
        other, other_time = timed(partial(theirs, peer, model, inputs, labels, eps, members))
        agree = int((mine == other).sum())
        rows.append(
            f"| {name} | {int(right.sum())} right of {len(labels)} | {int(mine.sum())} | {int(other.sum())} | "
            f"{agree} of {len(labels)} | {my_time:.1f} | {other_time:.1f} |"
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run both and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, help="folder of the reference implementation")
    parser.add_argument("--out", type=Path, default=RESULTS / "autoattack.md", help="where the table goes")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(flags.peer))
    from autoattack import AutoAttack

    sources = sorted((flags.peer / "autoattack").glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    rows = compare(AutoAttack)
    with publishing(flags.out) as temporary:
        temporary.write_text(
            "# AutoAttack here and by the reference implementation\n\n"
            f"One model (AT on the digits, seed 0), {IMAGES} images of the test set, eps 0.1, batches of {BATCH_SIZE}, "
            f"seed {SEED}. Every member alone attacks all images that are told rightly. Here: pyautoattack "
            f"{version('pyautoattack')}, and a Square of this project's own; there: fra31/auto-attack at a392200 (its "
            f"sources, SHA-256 {digest}); torch {torch.__version__}, one thread, {hardware()}.\n"
            "Made by `python benchmarks/autoattack.py --peer peer`.\n\n" + "\n".join(rows) + "\n"
        )


if __name__ == "__main__":
    main()
