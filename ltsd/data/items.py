"""One input by itself, as a trained model takes it: an image or a clip of sound, from files and tables."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltsd.config import DataConfig
from ltsd.data import clips, tables
from ltsd.data.decode import Images, decode_image
from ltsd.data.filesystems import find_place
from ltsd.data.folders import readable_suffixes
from ltsd.data.layout import is_hidden
from ltsd.data.table_files import AUDIO_COLUMN, IMAGE_COLUMNS, Table
from ltsd.data.units import Kind
from ltsd.errors import UserError
from ltsd.packages import require

SLACK = 0.02
"""How far the proportion of the sides of an image may be from the model's, if that is not square."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in grey (ITU-R BT.601), for models of one channel."""


@dataclass(frozen=True)
class ItemReader:
    """How inputs of a kind are read one by one.

    Attributes:
        name: what one is called.
        suffixes: () -> endings of the files that hold one.
        columns: names of the column of tables.
        decode: (encoded bytes, its place, shape of the model's inputs, the model's data configuration) -> what is
            stored of it; raises a UserError.
    """

    name: str
    suffixes: Callable[[], Collection[str]]
    columns: Sequence[str]
    decode: Callable[[bytes, str, Sequence[int], DataConfig], NDArray[Any]]

    def encoded(self, source: str) -> Iterator[tuple[str, bytes]]:
        """Yield (path, encoded bytes) of the inputs at a path or URI: a file, all files below a folder, the rows of
        Parquet and Arrow files. Hidden files and files of other formats are left out.

        Raises:
            UserError: nothing is there, it cannot be read, or it holds none.
        """
        place, found, known = find_place(source), False, self.suffixes()
        for file in place.files:
            relative = place.relative(file)
            suffix = Path(relative).suffix.casefold()
            if is_hidden(relative) or (suffix not in known and suffix not in tables.SUFFIXES):
                continue
            found = True
            if suffix in tables.SUFFIXES:
                yield from Table(place, file, place.shown(file)).encoded(self.columns)
            else:
                with place.filesystem.open_input_file(file.path) as opened:
                    yield place.shown(file), bytes(opened.read())
        if not found:
            raise UserError(
                f"{source}: holds no {self.name}, and no Parquet or Arrow file; give files or folders that do"
            )


def fitted_image(encoded: bytes, path: str, shape: Sequence[int]) -> Images:
    """Return an image as uint8 [C, H, W] of a model's shape, resized.

    Raises:
        UserError: it is broken; its sides are in another proportion than those of a model for images that are not
            square.
    """
    channels, height, width = shape
    if height != width:
        own = decode_image(encoded, path, None)[0].shape[1:]
        if abs(own[1] * height - own[0] * width) > SLACK * own[0] * width:
            raise UserError(f"{path}: is {own[1]}x{own[0]}, and the model takes {width}x{height}; crop it to that form")
    image, _ = decode_image(encoded, path, (width, height))
    if channels == 1:
        grey = np.tensordot(LUMA, image.astype(np.float64), axes=1)
        return np.rint(grey).astype(np.uint8)[None]
    return image


def fitted_clip(encoded: bytes, path: str, shape: Sequence[int], data: DataConfig) -> NDArray[np.int16]:
    """Return a clip as int16 [1, T] of a model's shape, at its sampling rate.

    Raises:
        UserError: as `decode_clip`.
        MissingPackageError: soundfile is not installed.
    """
    require(clips.PACKAGES, clips.EXTRA, "sound")
    clip, _ = clips.decode_clip(encoded, path, rate=data.sampling_rate, length=shape[-1])
    return clip


READERS: Mapping[Kind, ItemReader] = {
    "image": ItemReader(
        "image", readable_suffixes, IMAGE_COLUMNS, lambda encoded, path, shape, _: fitted_image(encoded, path, shape)
    ),
    "clip": ItemReader("clip", lambda: clips.SUFFIXES, (AUDIO_COLUMN,), fitted_clip),
}
