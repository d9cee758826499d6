"""Decoding of encoded images from any container to one array of pixels; errors name the image by its place."""

import io
import re
import struct
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from ltsd.errors import UserError

MAX_PIXELS = 4096 * 4096

Images = NDArray[np.uint8]
Labels = NDArray[Any]
Encoded = Iterator[tuple[str, bytes, int]]
"""Place, encoded bytes and label of every image."""
TURNED = range(2, 9)
UNREADABLE = (OSError, ValueError, SyntaxError, KeyError, TypeError, struct.error)
ADDRESS = re.compile(r" <_io\.BytesIO object at 0x[0-9a-f]+>")


class Decoded(NamedTuple):
    """Images uint8 [N, C, H, W]; labels int64 [N], or uint8 [N, H, W] for a label a pixel; and how many images were
    turned upright by their orientation tag.
    """

    images: Images
    labels: Labels
    oriented: int


def decode_all(rows: Encoded, source: str, image_size: int | None) -> Decoded:
    """Decode images, resized to `image_size` pixels a side where it is given.

    Raises:
        UserError: as `decode_image`; images whose sizes differ; none at all.
    """
    images: list[Images] = []
    labels: list[int] = []
    oriented = 0
    for place, encoded, label in rows:
        image, was_turned = decode_image(encoded, place, image_size)
        if images and image.shape != images[0].shape:
            raise UserError(
                f"{place}: is {_size(image)} and the first image {_size(images[0])}; give --data.image-size to resize"
            )
        images.append(image)
        labels.append(label)
        oriented += was_turned
    if not images:
        raise UserError(f"--data.source {source}: holds no images")
    return Decoded(np.stack(images), np.asarray(labels, dtype=np.int64), oriented)


def decode_image(encoded: bytes, place: str, image_size: int | None) -> tuple[Images, bool]:
    """Return an image as uint8 [3, H, W], and whether its orientation tag had it turned or mirrored upright.

    Grey images have three equal channels.

    Raises:
        UserError: broken, of more than 8 bits a channel, or of more than 16.7 million pixels (told from its header,
            before decoding).
    """
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(encoded)) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UserError(f"{place}: an image of {width}x{height} pixels, more than {MAX_PIXELS} are refused")
            if image.mode[0] in "IF":
                raise UserError(f"{place}: has more than 8 bits a channel (mode {image.mode}); images of 8 are read")
            turned = image.getexif().get(ExifTags.Base.Orientation) in TURNED
            upright = ImageOps.exif_transpose(image) if turned else image
            size = upright.size if image_size is None else (image_size, image_size)
            resized = upright.convert("RGB").resize(size, Image.Resampling.BILINEAR)
            return np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1), turned
    except Image.DecompressionBombError as error:
        raise UserError(f"{place}: {error}; more than {MAX_PIXELS} pixels are refused") from error
    except UNREADABLE as error:
        reason = ADDRESS.sub("", str(error))
        raise UserError(f"{place}: a broken image ({reason})") from error


def _size(image: Images) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"
