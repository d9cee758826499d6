"""From the name, path or URI of a source to its training and test `ImageSet`, decoded once per machine."""

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from ltsd.config import DataConfig
from ltsd.data.arrow import ImageSet, cache_folder, check_image_set, read_image_set, write_image_set
from ltsd.data.decode import Images, Labels, decode_all
from ltsd.data.folders import read_folder
from ltsd.data.longtail import hold_out
from ltsd.data.places import Place, find_place
from ltsd.data.tables import read_tables
from ltsd.errors import UserError

NAMED = ("digits", "cifar10", "cifar100")
DECODER_VERSION = 2
DECODED_FILES = ("train.arrow", "test.arrow")

Parts = dict[str, tuple[Images, Labels]]


@dataclass(frozen=True)
class Source:
    """The training and the test images of a data set."""

    train: ImageSet
    test: ImageSet

    @property
    def fingerprint(self) -> str:
        """Tells these images from others."""
        return f"{self.train.fingerprint[:16]}-{self.test.fingerprint[:16]}"


def load_source(data: DataConfig, *, check: bool = False) -> Source:
    """The images of `data.source`, decoded on first use and mapped into memory from then on; see `decoded`."""
    return read_decoded(decoded(data, check=check))


def read_decoded(folder: Path) -> Source:
    """The images that `decoded` left in a folder, mapped into memory."""
    return Source(*(read_image_set(folder / part) for part in DECODED_FILES))


def decoded(data: DataConfig, *, check: bool = False) -> Path:
    """The folder of this machine where the images of `data.source` lie decoded, in `DECODED_FILES`.

    With `check` they are held against their checksum; damaged ones are decoded again, with a warning.

    Raises:
        UserError: a path or URI that is missing, cannot be read or holds no images; a broken or huge image (its row
            is named), a label outside the classes, sizes that differ.
    """
    place = None if data.source in NAMED else find_place(data.source)
    folder = cache_folder() / _key(data, place)
    train, test = (folder / part for part in DECODED_FILES)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the image cache {folder} cannot be written ({error.strerror}); set XDG_CACHE_HOME to a folder that can"
        ) from error
    with FileLock(folder / "lock"):
        if not (train.exists() and test.exists()) or (check and _are_damaged(train, test)):
            _decode(data, place, train, test)
    return folder


def _are_damaged(*paths: Path) -> bool:
    try:
        for path in paths:
            check_image_set(path)
    except UserError as error:
        warnings.warn(f"{error}; they are decoded again", stacklevel=3)
        return True
    return False


def _decode(data: DataConfig, place: Place | None, train: Path, test: Path) -> None:
    if place is None:
        names, parts = _digits() if data.source == "digits" else _torchvision(data.source)
    else:
        names, encoded = read_tables(place) or read_folder(place)
        parts = {part: decode_all(rows, data.source, data.image_size) for part, rows in encoded.items()}
    if "test" not in parts:
        images, labels = parts["train"]
        kept, held_out = hold_out(labels, len(names), data.test_fraction)
        parts = {"train": (images[kept], labels[kept]), "test": (images[held_out], labels[held_out])}
    write_image_set(train, *parts["train"], names)
    write_image_set(test, *parts["test"], names)


def _key(data: DataConfig, place: Place | None) -> str:
    """Names the decoded form of a source: changes with the files behind it and with how they are decoded."""
    identity = [DECODER_VERSION, data.source, data.image_size, data.test_fraction, place and place.identity()]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _digits() -> tuple[list[str], Parts]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return [str(c) for c in range(10)], {"train": (images, digits.target.astype(np.int64))}


def _torchvision(name: str) -> tuple[list[str], Parts]:
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    root = cache_folder() / "torchvision"
    try:
        sets = {part: kind(str(root), train=part == "train", download=True) for part in ("train", "test")}
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"--data.source {name}: not in {root} and it could not be downloaded ({error}); put torchvision's "
            f"archive there, or give the path of a Parquet or Arrow file or image folder"
        ) from error
    parts = {
        part: (images.data.transpose(0, 3, 1, 2), np.asarray(images.targets, dtype=np.int64))
        for part, images in sets.items()
    }
    return list(sets["train"].classes), parts
