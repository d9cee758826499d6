"""Images with boxes that are drawn in files beside them, before classes are numbered and images are read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ltsd.data.boxes import Boxes
from ltsd.data.names import listed
from ltsd.errors import UserError

SHOWN = 3
"""Missing files that a message names."""


class DrawnBox(NamedTuple):
    """A box: what messages call it, its class, and its sides as they were written."""

    name: str
    category: str
    sides: Sequence[float]


class AnnotatedImage(NamedTuple):
    """The path of an image, the place of its annotation in messages, the (width, height) that the image has by that,
    and its boxes.
    """

    path: str
    place: str
    size: tuple[int, int] | None
    boxes: Sequence[DrawnBox]


@dataclass(frozen=True)
class AnnotatedSplit:
    """The images of a split.

    `categories` are the classes in the order of the annotation, empty if it has none. `files` are the paths of the
    annotation. `left_out` names the boxes that are not read.
    """

    images: Sequence[AnnotatedImage]
    categories: Sequence[str]
    files: Sequence[str]
    left_out: Sequence[str]


@dataclass(frozen=True)
class AnnotatedSet:
    """A data set: the folder that it lies in, by the name of each split what `read` reads it from, how sides of boxes
    become `Boxes`, and which boxes are left out, in words.
    """

    home: str
    splits: Mapping[str, str]
    read: Callable[[str], AnnotatedSplit]
    boxes: Callable[[str, Sequence[str], Sequence[int], Sequence[Sequence[float]], tuple[int, int] | None], Boxes]
    leaves_out: str


def refuse_missing(place: str, what: str, missing: Sequence[str]) -> None:
    """Check that all that a file names is there.

    Args:
        place: of the file that names it.
        what: is missing, in words.
        missing: the names of what is.

    Raises:
        UserError: something is missing.
    """
    if missing:
        raise UserError(
            f"{place}: names {len(missing):,} {what} that are not there: {listed(missing, SHOWN)}; bring them, or take "
            f"their names away"
        )
