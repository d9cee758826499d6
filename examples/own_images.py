"""Train LTSD on a folder of your own images, one subfolder for each class, and examine it on images that it never saw.

    python examples/own_images.py PATH

The folder needs no splits: 30% of every class are the test set (docs/data.md). The dotted names in `override` are the
flags of `python -m ltsd train`, whose `--help` lists them all.
"""

import sys
from pathlib import Path

import torch

from ltsd.config import Config
from ltsd.data import load_splits
from ltsd.data.description import introduction
from ltsd.data.longtail import class_groups
from ltsd.evaluation.exam import TITLES, examine
from ltsd.flags import exit_code_of
from ltsd.precision import device_of
from ltsd.runs import open_run
from ltsd.teacher import teacher_config, teacher_gamma, teacher_split


def main() -> int:
    """Train both stages, save the student, and print its accuracies."""
    config = Config.preset(sys.argv[1]).override(
        {"data.image_size": 32, "model.name": "small-resnet", "teacher.epochs": 10, "epochs": 20}
    )
    device = device_of(gpu=torch.cuda.is_available())
    splits = load_splits(config.data)
    print(*introduction(splits, config.data), sep="\n")

    # Stage 1: the teacher sees equally many images of every class.
    gamma = teacher_gamma(config, splits.imbalance_ratio)
    balanced = teacher_split(config, splits.complete, gamma)
    teacher = open_run(teacher_config(config, gamma), splits, balanced, None, device, teacher=None, resume=None)
    for metrics in teacher.epochs():
        print(f"teacher epoch {metrics.epoch}, loss {metrics.values['train/loss']:.3f}", flush=True)

    # Stage 2: the student sees the images as they are, and learns from the teacher too.
    student = open_run(config, splits, splits.complete, None, device, teacher=teacher.state.model, resume=None)
    for metrics in student.epochs():
        print(f"student epoch {metrics.epoch}, loss {metrics.values['train/loss']:.3f}", flush=True)
    student.save(Path("runs/own_images.pt"))

    test, groups = splits.test.to(device), class_groups(splits.complete.class_counts(), config.data.groups)
    *_, last = examine(student.state.model.eval(), test, groups, config.attack, "none")
    print(f"{len(test)} test images, means over classes\n{'accuracy':>8} {'all':>8} {'tail':>8}")
    for name, title in TITLES.items():
        accuracy = last[1].accuracies[name]
        print(f"{title:>8} {accuracy.balanced:8.1%} {accuracy.group('tail'):8.1%}")
    print("classify images with: python -m ltsd predict runs/own_images.pt PATH --attack")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
