"""The images that jobs bring to other machines, and the code and storage that these machines must have."""

import functools
import hashlib
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Self

import numpy as np
import ray
from filelock import FileLock

import ltsd
from ltsd.data import Splits
from ltsd.data.arrow import cache_folder
from ltsd.data.sources import DECODED_FILES, read_decoded
from ltsd.errors import UserError
from ltsd.files import publishing
from sweeps.journal.exchange import Exchange

PIECE = 2**27
VERSIONED = ("ray", "torch", "torchvision", "numpy")


class NodeUnfitError(UserError):
    """The machine of a job lacks something that all machines need."""


@dataclass(frozen=True)
class Shipment:
    """The data that every job of a sweep brings to its machine.

    Attributes:
        versions: the driver's, see `versions`.
        folder: of the sweep.
        exchange: of the sweep's files.
        name: the folder of the images in the machine's cache.
        fingerprint: of the images.
        images: for each file of images, references to its pieces, which Ray sends to a machine once.
    """

    versions: dict[str, str]
    folder: str
    exchange: Exchange
    name: str
    fingerprint: str
    images: tuple[tuple["ray.ObjectRef[np.ndarray]", ...], ...]

    @classmethod
    def packed(cls, folder: Path, splits: Splits, exchange: Exchange) -> Self:
        """Pack the data of the sweep in a folder; put the images into Ray's object store."""
        images = tuple(tuple(map(ray.put, _pieces(splits.folder / part))) for part in DECODED_FILES)
        return cls(versions(), str(folder.absolute()), exchange, splits.folder.name, splits.fingerprint, images)


def lacks_of_this_node(shipment: Shipment) -> str:
    """Return a sentence about what this machine lacks for the jobs of a sweep; "" for nothing."""
    own = versions()
    for name, wanted in shipment.versions.items():
        if own[name] != wanted:
            return f"it has {name} {own[name]}, the driver {wanted}; install the same on all nodes"
    return shipment.exchange.lacks(Path(shipment.folder))


def received(shipment: Shipment) -> Path:
    """Return this machine's folder of decoded images; the first job of a machine writes them there.

    Raises:
        NodeUnfitError: the folder has other images, or the machine lacks something that jobs need.
    """
    if lacks := lacks_of_this_node(shipment):
        raise NodeUnfitError(f"a node of the cluster cannot take part: {lacks}")
    folder = cache_folder() / shipment.name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        for part, pieces in zip(DECODED_FILES, shipment.images, strict=True):
            if not (folder / part).exists():
                with publishing(folder / part) as temporary, temporary.open("wb") as file:
                    for piece in pieces:
                        ray.get(piece).tofile(file)
    found = read_decoded(folder).fingerprint
    if found != shipment.fingerprint:
        raise NodeUnfitError(f"{folder} of a node has other images than the driver ({found}); delete it there")
    return folder


def _pieces(path: Path) -> Iterator["np.ndarray"]:
    """Yield the bytes of a file, PIECE at a time; Ray can spill pieces to disk if its object store is full."""
    for start in range(0, path.stat().st_size, PIECE):
        yield np.fromfile(path, dtype=np.uint8, count=PIECE, offset=start)


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions that must be equal on all machines; that of this project is a digest of its sources."""
    digest = hashlib.sha256()
    for package in (Path(ltsd.__file__).parent, Path(__file__).parents[1]):
        for path in sorted(package.rglob("*.py")):
            digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    packages = {name: version(name) for name in VERSIONED}
    return {"Python": platform.python_version(), **packages, "this project at": digest.hexdigest()[:12]}
