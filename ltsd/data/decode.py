"""Decoding of encoded images and label maps from any container to arrays; errors name the image by its place."""

import io
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from ltsd.answers import VOID
from ltsd.data.boxes import Boxes
from ltsd.errors import UserError

MAX_PIXELS = 4096 * 4096
INDICES = ("P", "L", "1")
"""Pillow's modes whose pixels are class indices."""
LOSSY = ("JPEG", "MPO")

Images = NDArray[np.uint8]


class Mask(NamedTuple):
    """An encoded label map, its place in messages, and the class index of each of the 256 values that its pixels may
    have; b"" if they are class indices.
    """

    place: str
    content: bytes
    indices: bytes = b""


Label = int | Mask | Boxes
Encoded = Iterator[tuple[str, bytes, Label]]
"""Place, encoded bytes and label of every image: a class, a mask with a class a pixel, or boxes."""
Size = tuple[int, int]
"""Width and height, as Pillow has them."""
TURNED = range(2, 9)
UNREADABLE = (OSError, ValueError, SyntaxError, KeyError, TypeError, struct.error)
ADDRESS = re.compile(r" <_io\.BytesIO object at 0x[0-9a-f]+>")


class Upright(NamedTuple):
    """An image uint8 [3, H, W], its (width, height) before it was resized, and its orientation tag; 1 for upright."""

    pixels: Images
    size: tuple[int, int]
    orientation: int


def decode_image(encoded: bytes, place: str, size: Size | None) -> tuple[Images, bool]:
    """Return an image as uint8 [3, H, W], resized to a size (width, height) where it is given, and whether its
    orientation tag had it turned or mirrored upright.

    Grey images have three equal channels.

    Raises:
        UserError: broken, of more than 8 bits a channel, or of more than 16.7 million pixels (told from its header,
            before decoding).
    """
    image = upright(encoded, place, size)
    return image.pixels, image.orientation in TURNED


def upright(encoded: bytes, place: str, size: Size | None) -> Upright:
    """Decode an image as `decode_image` does."""
    with _opened(encoded, place, "image") as image:
        if image.mode[0] in "IF":
            raise UserError(f"{place}: has more than 8 bits a channel (mode {image.mode}); images of 8 are read")
        orientation = _orientation(image)
        turned = ImageOps.exif_transpose(image) if orientation in TURNED else image
        resized = turned.convert("RGB").resize(size or turned.size, Image.Resampling.BILINEAR)
        return Upright(np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1), turned.size, orientation)


def decode_mask(mask: Mask, size: Size, orientation: int, resized: Size | None, num_classes: int) -> Images:
    """Return a label map as uint8 [H, W]: class indices below `num_classes`, and VOID for pixels of no class.

    Pixels of palette and grey images are class indices. They are never interpolated: a resized map takes the nearest
    pixel. A map that has the size of its image as that is stored is turned as the image is.

    Args:
        mask: the encoded map.
        size: (width, height) of its image, upright and before it is resized.
        orientation: the orientation tag of its image, for a map without one.
        resized: (width, height) of the map; None leaves the size as it is.
        num_classes: at most VOID.

    Raises:
        UserError: broken, in colours, of more than 8 bits, compressed with loss, of another size than its image, or
            with an index outside the classes.
    """
    with _opened(mask.content, mask.place, "mask") as image:
        _check_indices(image, mask.place)
        image.load()  # of a TIFF, Pillow turns the pixels here by its own tag
        own = _orientation(image)
        turned = _turned(image, own if own in TURNED else orientation)
        upright = turned if turned.size == size else image
        if upright.size != size:
            raise UserError(
                f"{mask.place}: a mask of {upright.width}x{upright.height} pixels, and its image has "
                f"{size[0]}x{size[1]}; both need one size"
            )
        classes = np.asarray(upright).astype(np.uint8)
    if mask.indices:
        classes = np.frombuffer(mask.indices, dtype=np.uint8)[classes]
    outside = classes[(classes >= num_classes) & (classes != VOID)]
    if len(outside):
        raise UserError(
            f"{mask.place}: has the class index {outside.max()}, outside of the {num_classes} classes, which are 0 to "
            f"{num_classes - 1}; mend it, or write {VOID} for pixels of no class"
        )
    if resized is None:
        return classes
    return np.asarray(Image.fromarray(classes).resize(resized, Image.Resampling.NEAREST))


def _check_indices(image: Image.Image, place: str) -> None:
    """Check that the pixels of a mask are class indices, as they were written."""
    if image.mode[0] in "IF":
        raise UserError(
            f"{place}: a mask with more than 8 bits a pixel (mode {image.mode}); write class indices of 8 bits: there "
            f"may be {VOID} classes, and {VOID} is void"
        )
    if image.mode not in INDICES:
        raise UserError(
            f"{place}: a mask in colours (mode {image.mode}); write class indices; of a palette image save mode P"
        )
    if image.format in LOSSY:
        raise UserError(f"{place}: a mask as {image.format}, which changes class indices; write it as PNG")


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    """Return an image turned and mirrored as an orientation tag says."""
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(image)


def _orientation(image: Image.Image) -> int:
    tag = image.getexif().get(ExifTags.Base.Orientation)
    return int(tag) if tag is not None and tag in TURNED else 1


@contextmanager
def _opened(encoded: bytes, place: str, what: str) -> Iterator[Image.Image]:
    """Open an image that is not too large; turn every error of decoding it into one that names the place."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(encoded)) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UserError(f"{place}: an image of {width}x{height} pixels, more than {MAX_PIXELS} are refused")
            yield image
    except Image.DecompressionBombError as error:
        raise UserError(f"{place}: {error}; more than {MAX_PIXELS} pixels are refused") from error
    except UNREADABLE as error:
        reason = ADDRESS.sub("", str(error))
        raise UserError(f"{place}: a broken {what} ({reason})") from error
