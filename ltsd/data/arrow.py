"""Decoded images in an Arrow IPC file that every process of a machine maps into memory: one copy for all."""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltsd.data.units import unit_of
from ltsd.errors import UserError
from ltsd.files import publishing

Labels = NDArray[Any]


@dataclass(frozen=True)
class ImageSet:
    """Labelled images. `images`, uint8 [N, C, H, W] or of another kind, and `labels` see `ltsd.data.units`; both are
    read-only maps of one file.

    `hashes` is int64 [N], equal for images that are equal pixel by pixel. `fingerprint` is the SHA-256 of images,
    labels and class names. `about` is what else was written, plain values by name. `groups` is int64 [N], equal for
    images that belong together; None if nothing tells.
    """

    images: Tensor
    labels: Tensor
    hashes: NDArray[np.int64]
    class_names: tuple[str, ...]
    fingerprint: str
    about: Mapping[str, str]
    groups: NDArray[np.int64] | None


def write_image_set(
    path: Path,
    images: NDArray[Any],
    labels: Labels,
    class_names: Sequence[str],
    about: Mapping[str, str] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> None:
    """Write images [N, ...], labels [N, ...] and groups [N] as one record batch; the file appears whole or not."""
    metadata = {
        **(about or {}),
        "shape": json.dumps(images.shape[1:]),
        "stored": images.dtype.name,
        "label": json.dumps([labels.dtype.name, *labels.shape[1:]]),
        "class_names": json.dumps(list(class_names)),
        "fingerprint": _fingerprint(images, labels, class_names),
    }
    label_column = pa.array(labels) if unit_of(labels) == "image" else _bytes_column(labels)
    columns = {"image": _bytes_column(images), "label": label_column, "hash": pa.array(_hashes_of(images))}
    if groups is not None:
        columns["group"] = pa.array(groups)
    batch = pa.record_batch(columns)
    schema = batch.schema.with_metadata(metadata)
    with publishing(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        writer.write_batch(batch.replace_schema_metadata(metadata))


def _bytes_column(rows: NDArray[Any]) -> pa.FixedSizeBinaryArray:
    """Return [N, ...] as a column with the bytes of a row in a row."""
    size = int(np.prod(rows.shape[1:])) * rows.itemsize
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(size), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows))]
    )


def read_image_set(path: Path) -> ImageSet:
    """Map an image set into memory without copying it.

    Raises:
        UserError: the file is not one of `write_image_set`, or was cut short.
    """
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        metadata = {key.decode(): value.decode() for key, value in batch.schema.metadata.items()}
        shape = json.loads(metadata["shape"])
        images = _rows_of(batch.column("image"), shape, metadata.get("stored", "uint8"))
        column, hashes = batch.column("label"), batch.column("hash").to_numpy()
        kind, *of_one = json.loads(metadata["label"])
        labels = _rows_of(column, of_one, kind) if of_one else column.to_numpy()
        groups = batch.column("group").to_numpy() if "group" in batch.schema.names else None
    except (pa.ArrowException, OSError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a decoded image set ({error}); delete it, it is made again") from error
    return ImageSet(
        _read_only(images),
        _read_only(labels),
        hashes,
        tuple(json.loads(metadata["class_names"])),
        metadata["fingerprint"],
        metadata,
        groups,
    )


def _rows_of(column: pa.FixedSizeBinaryArray, shape: Sequence[int], kind: str) -> NDArray[Any]:
    """Return the rows of a column of bytes, [N, *shape]."""
    content = np.frombuffer(column.buffers()[1], dtype=kind)
    return content[: len(column) * int(np.prod(shape))].reshape(len(column), *shape)


def _hashes_of(images: NDArray[Any]) -> NDArray[np.int64]:
    """Return a 64-bit hash of every image [N, ...]."""
    digests = b"".join(hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest() for image in images)
    return np.frombuffer(digests, dtype=np.int64)


def check_image_set(path: Path) -> None:
    """Read a whole image set and compare it with its fingerprint.

    Raises:
        UserError: it is damaged.
    """
    found = read_image_set(path)
    if _fingerprint(found.images.numpy(), found.labels.numpy(), found.class_names) != found.fingerprint:
        raise UserError(f"{path} is damaged: its images are not those that were decoded")


def _read_only(array: NDArray[Any]) -> Tensor:
    with warnings.catch_warnings():  # of a read-only array; nothing here writes to it
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def _fingerprint(images: NDArray[Any], labels: Labels, class_names: Sequence[str]) -> str:
    digest = hashlib.sha256(json.dumps([images.shape, list(class_names)]).encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Return the folder of decoded images: $XDG_CACHE_HOME/ltsd, else ~/.cache/ltsd."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ltsd"
