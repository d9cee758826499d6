"""One input by itself, as a trained model takes it: an image, a clip of sound or a text, from files and tables."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyarrow.fs import FileInfo

from ltsd.config import DataConfig
from ltsd.data import clips, texts
from ltsd.data.decode import Images, decode_image
from ltsd.data.filesystems import Place, find_place
from ltsd.data.layouts import tables, text_files
from ltsd.data.layouts.folders import readable_suffixes
from ltsd.data.layouts.layout import is_hidden
from ltsd.data.layouts.table_files import AUDIO_COLUMN, IMAGE_COLUMNS, TEXT_COLUMN, Table
from ltsd.data.units import Kind
from ltsd.data.vocabulary import Vocabulary
from ltsd.errors import UserError
from ltsd.packages import require

SLACK = 0.02
"""How far the proportion of the sides of an image may be from the model's, if that is not square."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in grey (ITU-R BT.601), for models of one channel."""


@dataclass(frozen=True)
class Form:
    """What inputs are made of for a model: the shape of its inputs, the data configuration of its training, and of
    texts the vocabulary.
    """

    shape: Sequence[int]
    data: DataConfig
    vocabulary: Vocabulary | None = None


@dataclass(frozen=True)
class ItemReader:
    """How inputs of a kind are read one by one.

    Attributes:
        name: what one is called.
        suffixes: () -> endings of the files that hold one.
        columns: names of the column of tables.
        decode: (encoded bytes, its place, the form of the model's inputs) -> what is stored of it; raises a UserError.
        lists: by the ending of files that hold several, what yields (place, encoded bytes) of each.
    """

    name: str
    suffixes: Callable[[], Collection[str]]
    columns: Sequence[str]
    decode: Callable[[bytes, str, Form], NDArray[Any]]
    lists: Mapping[str, Callable[[Place, FileInfo], Iterator[tuple[str, bytes]]]] = field(default_factory=dict)

    def encoded(self, source: str) -> Iterator[tuple[str, bytes]]:
        """Yield (path, encoded bytes) of the inputs at a path or URI: a file, all files below a folder, the rows of
        Parquet and Arrow files. Hidden files and files of other formats are left out.

        Raises:
            UserError: nothing is there, it cannot be read, or it holds none.
        """
        if "://" not in source and not Path(source).expanduser().exists():
            raise UserError(f"{source}: no such file or folder; give files or folders that hold {self.name}s")
        place, found, known = find_place(source), False, self.suffixes()
        for file in place.files:
            relative = place.relative(file)
            suffix = Path(relative).suffix.casefold()
            if is_hidden(relative) or suffix not in (*known, *self.lists, *tables.SUFFIXES):
                continue
            if suffix in (*self.lists, *tables.SUFFIXES):
                for item in self._rows_of(place, file, suffix):
                    found = True
                    yield item
            else:
                found = True
                with place.filesystem.open_input_file(file.path) as opened:
                    yield place.shown(file), bytes(opened.read())
        if not found:
            endings = "".join(f"{ending}, " for ending in self.lists)
            raise UserError(
                f"{source}: holds no {self.name}, and no {endings}Parquet or Arrow file; give files or folders that do"
            )

    def _rows_of(self, place: Place, file: FileInfo, suffix: str) -> Iterator[tuple[str, bytes]]:
        if suffix in self.lists:
            return self.lists[suffix](place, file)
        return Table(place, file, place.shown(file)).encoded(self.columns)


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


def fitted_clip(encoded: bytes, path: str, form: Form) -> NDArray[np.int16]:
    """Return a clip as int16 [1, T] of a model's shape, at its sampling rate.

    Raises:
        UserError: as `decode_clip`.
        MissingPackageError: soundfile is not installed.
    """
    require(clips.PACKAGES, clips.EXTRA, "sound")
    clip, _ = clips.decode_clip(encoded, path, rate=form.data.sampling_rate, length=form.shape[-1])
    return clip


def numbered_text(encoded: bytes, path: str, form: Form) -> NDArray[np.int32]:
    """Return the numbers of the word pieces of a text, int32 [L].

    Raises:
        UserError: it is empty, not UTF-8, or of unknown word pieces alone.
        MissingPackageError: tokenizers is not installed.
    """
    assert form.vocabulary is not None
    (numbers,) = texts.numbered([(path, texts.decoded(encoded, path))], form.vocabulary, form.shape[-1])
    return np.asarray(numbers)


def lines_of(place: Place, file: FileInfo) -> Iterator[tuple[str, bytes]]:
    """Yield (place, text) of the lines of a file that are not blank."""
    name, content = place.shown(file), place.filesystem.open_input_file(file.path)
    with content:
        for number, line in enumerate(bytes(content.read()).splitlines(), start=1):
            if line.strip():
                yield f"{name} line {number}", line


def rows_of(place: Place, file: FileInfo) -> Iterator[tuple[str, bytes]]:
    """Yield (place, text) of the rows of a file of texts.

    Raises:
        UserError: as `TextFile.texts`.
    """
    found = text_files.TextFile(place, file)
    return ((f"{found.name} row {row}", text) for row, text in enumerate(found.texts()))


READERS: Mapping[Kind, ItemReader] = {
    "image": ItemReader(
        "image", readable_suffixes, IMAGE_COLUMNS, lambda encoded, path, form: fitted_image(encoded, path, form.shape)
    ),
    "clip": ItemReader("clip", lambda: clips.SUFFIXES, (AUDIO_COLUMN,), fitted_clip),
    "text": ItemReader(
        "text",
        tuple,
        (TEXT_COLUMN,),
        numbered_text,
        lists={".txt": lines_of, **dict.fromkeys(text_files.SUFFIXES, rows_of)},
    ),
}
