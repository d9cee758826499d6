"""Images, decoded or still encoded, in an Arrow IPC file that every process of a machine maps into memory."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltsd.data.encoded import EncodedImages, Stored, chunks
from ltsd.data.on_disk import full
from ltsd.data.units import unit_of
from ltsd.errors import UserError
from ltsd.files import publishing

Labels = NDArray[Any]


@dataclass(frozen=True)
class ImageSet:
    """Labelled images. `images`, uint8 [N, C, H, W] or of another kind, and `labels` see `ltsd.data.units`; both are
    read-only maps of one file. Images that were kept encoded are decoded when they are read.

    `hashes` is int64 [N], equal for images that are equal pixel by pixel. `fingerprint` is the SHA-256 of images,
    labels and class names. `about` is what else was written, plain values by name. `groups` is int64 [N], equal for
    images that belong together; None if nothing tells.
    """

    images: Stored
    labels: Tensor
    hashes: NDArray[np.int64]
    class_names: tuple[str, ...]
    fingerprint: str
    about: Mapping[str, str]
    groups: NDArray[np.int64] | None


def write_image_set(
    path: Path,
    images: NDArray[Any] | EncodedImages,
    labels: Labels,
    class_names: Sequence[str],
    about: Mapping[str, str] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> None:
    """Write images [N, ...], labels [N, ...] and groups [N] as one record batch; the file appears whole or not.

    Raises:
        UserError: the disk is full.
    """
    read = chunks(images) if isinstance(images, EncodedImages) else [images]
    hashes, fingerprint = _read_through(read, images.shape, labels, class_names)
    metadata = {
        **(about or {}),
        "shape": json.dumps(images.shape[1:]),
        "stored": "uint8" if isinstance(images, EncodedImages) else images.dtype.name,
        "label": json.dumps([labels.dtype.name, *labels.shape[1:]]),
        "class_names": json.dumps(list(class_names)),
        "fingerprint": fingerprint,
    }
    if isinstance(images, EncodedImages):
        metadata |= {"resized_to": json.dumps(images.size), "encoded": _digest_of_encoded(images, labels)}
    label_column = pa.array(labels) if unit_of(labels) == "image" else _bytes_column(labels)
    image_column = _encoded_column(images) if isinstance(images, EncodedImages) else _bytes_column(images)
    columns = {"image": image_column, "label": label_column, "hash": pa.array(hashes)}
    if groups is not None:
        columns["group"] = pa.array(groups)
    batch = pa.record_batch(columns)
    schema = batch.schema.with_metadata(metadata)
    try:
        with publishing(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
            writer.write_batch(batch.replace_schema_metadata(metadata))
    except OSError as error:
        raise full(path.parent, error) from error


def _encoded_column(images: EncodedImages) -> pa.LargeBinaryArray:
    starts = np.concatenate([[0], images.ends]).astype(np.int64)
    buffers = [None, pa.py_buffer(starts), pa.py_buffer(images.content)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(images), buffers)


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
        images: Stored
        if "encoded" in metadata:
            images = _encoded_rows(batch.column("image"), shape, json.loads(metadata["resized_to"]))
        else:
            images = _read_only(_rows_of(batch.column("image"), shape, metadata["stored"]))
        column, hashes = batch.column("label"), batch.column("hash").to_numpy()
        kind, *of_one = json.loads(metadata["label"])
        labels = _rows_of(column, of_one, kind) if of_one else column.to_numpy()
        groups = batch.column("group").to_numpy() if "group" in batch.schema.names else None
    except (pa.ArrowException, OSError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a decoded image set ({error}); delete it, it is made again") from error
    return ImageSet(
        images,
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


def _encoded_rows(column: pa.LargeBinaryArray, shape: Sequence[int], size: Sequence[int] | None) -> EncodedImages:
    _, offsets, content = column.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[1 : len(column) + 1]
    return EncodedImages(
        np.frombuffer(content, dtype=np.uint8), ends, shape, None if size is None else (size[0], size[1])
    )


def check_image_set(path: Path) -> None:
    """Read a whole image set and compare it with its fingerprint; images that stay encoded, as they are stored.

    Raises:
        UserError: it is damaged.
    """
    found = read_image_set(path)
    images, labels = found.images, found.labels.numpy()
    if isinstance(images, EncodedImages):
        is_whole = _digest_of_encoded(images, labels) == found.about["encoded"]
    else:
        is_whole = _fingerprint([images.numpy()], images.shape, labels, found.class_names) == found.fingerprint
    if not is_whole:
        raise UserError(f"{path} is damaged: its images are not those that were decoded")


def _read_only(array: NDArray[Any]) -> Tensor:
    with warnings.catch_warnings():  # of a read-only array; nothing here writes to it
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def _read_through(
    read: Iterable[NDArray[Any]], shape: Sequence[int], labels: Labels, class_names: Sequence[str]
) -> tuple[NDArray[np.int64], str]:
    """Return a 64-bit hash of every image and the fingerprint of the set; `read` yields images [B, ...] in order."""
    digests: list[bytes] = []

    def seen() -> Iterable[NDArray[Any]]:
        for images in read:
            digests.extend(
                hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest() for image in images
            )
            yield images

    fingerprint = _fingerprint(seen(), shape, labels, class_names)
    return np.frombuffer(b"".join(digests), dtype=np.int64), fingerprint


def _fingerprint(read: Iterable[NDArray[Any]], shape: Sequence[int], labels: Labels, class_names: Sequence[str]) -> str:
    digest = hashlib.sha256(json.dumps([shape, list(class_names)]).encode())
    for images in read:
        digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def _digest_of_encoded(images: EncodedImages, labels: Labels) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(images.ends).data)
    digest.update(np.ascontiguousarray(images.content).data)
    digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Return the folder of decoded images: $XDG_CACHE_HOME/ltsd, else ~/.cache/ltsd."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ltsd"
