"""What does it cost not to hold a data set in memory? Images a second of an epoch of natural training.

python benchmarks/streaming.py        # writes benchmarks/results/streaming.md, about two minutes on two cores
"""

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import RESULTS, hardware, versions
from PIL import Image

from ltsd.config import Config
from ltsd.data import load_splits
from ltsd.data.batches import Split
from ltsd.files import publishing
from ltsd.runs import open_run

SIDE = 64
CLASSES = 4
FORMS = {
    "resident": {"data.resident_gib": 64.0},
    "streamed": {"data.resident_gib": 0.0},
    "decoded on the fly": {"data.resident_gib": 0.0, "data.decoded_gib": 0.0},
}


def draw(folder: Path, images: int) -> None:
    """Write smooth JPEG images of 128 pixels a side: about as many bytes a pixel as photographs have."""
    random = np.random.RandomState(0)
    for row in range(images):
        small = Image.fromarray(random.randint(0, 256, (24, 24, 3)).astype(np.uint8))
        path = folder / f"class {row % CLASSES}" / f"{row:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        small.resize((2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC).save(path, quality=85)


def trained(config: Config, split: Split) -> float:
    """Return the images a second of an epoch."""
    splits = load_splits(config.data)
    run = open_run(config, splits, split, None, torch.device("cpu"), teacher=None, resume=None)
    started = time.perf_counter()
    next(run.epochs())
    return len(split) / (time.perf_counter() - started)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000, help="in the set, of which 70%% train (default: 4000)")
    parser.add_argument("--rounds", type=int, default=7, help="epochs of each, in turn (default: 7)")
    parser.add_argument("--out", type=Path, default=RESULTS / "streaming.md", help="where the table goes")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    rates: dict[str, list[float]] = {name: [] for name in FORMS}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "images")
        source.mkdir()
        draw(source, flags.images)
        os.environ["XDG_CACHE_HOME"] = str(Path(folder, "cache"))
        data = {"data.source": str(source), "data.image_size": SIDE, "data.imbalance_ratio": 1.0}
        network = {"model.name": "small-cnn", "model.width": 8, "optim.batch_size": 64}
        base = Config.preset(str(source)).override(data | network | {"method": "natural", "epochs": 2})
        configs = {name: base.override(form) for name, form in FORMS.items()}
        splits = {name: load_splits(config.data).complete for name, config in configs.items()}
        splits["resident"] = replace(splits["resident"], images=splits["resident"].images[:].clone())
        for _ in range(flags.rounds):
            for name, config in configs.items():
                rates[name].append(trained(config, splits[name]))
                print(f"{name}: {rates[name][-1]:.0f} images a second", flush=True)
    rows = ["| images | images a second | beside resident |", "|---|---|---|"]
    for name, found in rates.items():
        beside = statistics.median(one / of for one, of in zip(found, rates["resident"], strict=True))
        rows.append(f"| {name} | {statistics.median(found):.0f} ({min(found):.0f}…{max(found):.0f}) | {beside:.2f} |")
    with publishing(flags.out) as temporary:
        temporary.write_text(
            f"# Images that are not held in memory: an epoch of natural training\n\n"
            f"Made by `python benchmarks/streaming.py --images {flags.images} --rounds {flags.rounds}`; "
            f"{versions('torch', 'pillow', 'ltsd')}; {hardware()}, "
            "shared with other work.\n"
            f"{len(splits['resident'])} JPEG images of {2 * SIDE}x{2 * SIDE} pixels, read as {SIDE}x{SIDE}; "
            f"`small-cnn` of width 8 on one thread, batch 64.\nMedians of {flags.rounds} rounds that take turns, with "
            "the range. The files are in the page cache: this is what reading costs without the disk.\n\n"
            + "\n".join(rows)
            + "\n"
        )


if __name__ == "__main__":
    main()
