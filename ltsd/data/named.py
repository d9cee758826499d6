"""Sources that have a name instead of a path: scikit-learn's digits, and CIFAR as torchvision reads it."""

from collections.abc import Callable, Mapping

import numpy as np

from ltsd.config import DataConfig
from ltsd.data.arrow import cache_folder
from ltsd.data.decoding import Decoded
from ltsd.data.parts import Parts
from ltsd.data.scenes import BACKGROUND, CLASS_NAMES, digits_scenes
from ltsd.errors import UserError


def _digits(data: DataConfig) -> tuple[list[str], Parts]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return [str(c) for c in range(10)], {"train": Decoded(images, digits.target.astype(np.int64), 0)}


def _scenes(data: DataConfig) -> tuple[list[str], Parts]:
    drawn = digits_scenes()
    if data.labels == "boxes":
        names = [name for name in CLASS_NAMES if name != BACKGROUND]
        return names, {part: Decoded(scenes.images, scenes.boxes, 0) for part, scenes in drawn.items()}
    return list(CLASS_NAMES), {part: Decoded(scenes.images, scenes.labels, 0) for part, scenes in drawn.items()}


def _torchvision(data: DataConfig) -> tuple[list[str], Parts]:
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[data.source]
    root = cache_folder() / "torchvision"
    try:
        sets = {part: kind(str(root), train=part == "train", download=True) for part in ("train", "test")}
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"--data.source {data.source}: not in {root} and it could not be downloaded ({error}); put torchvision's "
            f"archive there, or give the path of a Parquet or Arrow file or image folder"
        ) from error
    parts = {
        part: Decoded(images.data.transpose(0, 3, 1, 2), np.asarray(images.targets, dtype=np.int64), 0)
        for part, images in sets.items()
    }
    return list(sets["train"].classes), parts


NAMED: Mapping[str, Callable[[DataConfig], tuple[list[str], Parts]]] = {
    "digits": _digits,
    "digits-scenes": _scenes,
    "cifar10": _torchvision,
    "cifar100": _torchvision,
}
"""Class names, and images by role."""
