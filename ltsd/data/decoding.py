"""Decoding of all images and labels of a part of a source, one after the other onto the disk."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ltsd.answers import VOID
from ltsd.config import DataConfig
from ltsd.data.boxes import Boxes, BoxLabels, padded
from ltsd.data.decode import TURNED, Encoded, Label, Mask, Size, Upright, decode_mask, upright
from ltsd.data.encoded import EncodedImages
from ltsd.data.on_disk import Spool
from ltsd.errors import UserError

Labels = NDArray[Any]


class SizesDiffer(UserError):
    """Images of one class each have several sizes, and none was given."""


class Decoded(NamedTuple):
    """Images uint8 [N, C, H, W], or of another kind, or still encoded; labels, see `ltsd.data.units`; how many images
    were turned upright by their orientation tag; and the groups of images that belong together, int64 [N], if a column
    names them.
    """

    images: NDArray[Any] | EncodedImages
    labels: Labels
    oriented: int
    groups: NDArray[np.int64] | None = None


def resized_to(data: DataConfig) -> tuple[int, int] | None:
    """Return the (width, height) that images are resized to; None for their own.

    Raises:
        UserError: there is a height without a width.
    """
    if data.image_size is None:
        if data.image_height is not None:
            raise UserError(
                f"--data.image-height {data.image_height}: needs the width beside it; add --data.image-size"
            )
        return None
    return data.image_size, data.image_height or data.image_size


def decode_all(
    rows: Encoded,
    source: str,
    size: Size | None,
    num_classes: int = VOID,
    *,
    folder: Path,
    stays_encoded: bool = False,
) -> Decoded:
    """Decode images and their masks or boxes, resized to a size (width, height) where it is given.

    Args:
        rows: all with a class, all with a mask, or all with boxes; these are of the image as it is seen upright.
        source: what messages call the whole.
        size: see above.
        num_classes: indices in masks are below it, or VOID.
        folder: images and masks are in temporary files there, mapped into memory.
        stays_encoded: keep encoded images instead of decoded ones, once each was decoded to see that it can be.

    Raises:
        UserError: as `decode_image`, `decode_mask` and `Boxes.scaled`; images whose sizes differ, `SizesDiffer` if they
            have a class each; none at all; no mask has a class; no image has a box; the disk is full.
    """
    images, maps, sizes, labels = Spool(folder), Spool(folder), list[int](), list[Any]()
    shape: tuple[int, ...] = ()
    oriented, first, is_labelled, of_maps = 0, "", False, False
    for place, encoded, label in rows:
        image = upright(encoded, place, size)
        shape, first = shape or image.pixels.shape, first or place
        if image.pixels.shape != shape:
            raise (SizesDiffer if isinstance(label, int) else UserError)(
                f"{place}: is {_told(image.pixels.shape)} and the first image {_told(shape)}; give --data.image-size "
                f"to resize"
            )
        images.add(np.frombuffer(encoded, dtype=np.uint8) if stays_encoded else image.pixels[None])
        sizes.append(len(encoded))
        found = _label(label, image, size, num_classes)
        if of_maps := isinstance(label, Mask):
            maps.add(np.asarray(found)[None])
            is_labelled = is_labelled or bool((found != VOID).any())  # type: ignore[union-attr]
        else:
            labels.append(found)
        oriented += image.orientation in TURNED
    if not sizes:
        raise UserError(f"--data.source {source}: holds no images")
    if of_maps and not is_labelled:
        raise UserError(
            f"{first}: its mask, and every other one of its part, is {VOID}, void, throughout; write class indices, 0 "
            f"for the first class, or leave the split out with --data.split-map"
        )
    stored = EncodedImages(images.mapped(), np.cumsum(sizes), shape, size) if stays_encoded else images.mapped()
    return Decoded(stored, maps.mapped() if of_maps else _stacked(labels, first), oriented)


def _stacked(labels: list[Any], first: str) -> Labels:
    """Return classes int64 [N], or boxes float32 [N, M, 5]."""
    if isinstance(labels[0], int):
        return np.asarray(labels, dtype=np.int64)
    if not any(map(len, labels)):
        raise UserError(f"{first}: has no box, as all other images of its part; leave the split out, or mend it")
    return padded(labels)


def _label(label: Label, image: Upright, size: Size | None, num_classes: int) -> int | NDArray[np.uint8] | BoxLabels:
    if isinstance(label, Boxes):
        height, width = image.pixels.shape[1:]
        return label.scaled(image.size, (width, height))
    if isinstance(label, Mask):
        return decode_mask(label, image.size, image.orientation, size, num_classes)
    return label


def _told(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]}"
