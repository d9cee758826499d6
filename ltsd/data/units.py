"""What is stored, an image, a clip of sound or a text, and what has a label: all of it, a pixel or a box."""

from typing import Any, Literal, Protocol

from numpy.typing import NDArray
from torch import Tensor

Kind = Literal["image", "clip", "text"]
Unit = Literal["image", "pixel", "box"]

ITEMS: dict[Kind, str] = {"image": "images", "clip": "clips", "text": "texts"}
"""What they are called."""
_KINDS: dict[str, Kind] = {"uint8": "image", "int16": "clip", "int32": "text"}
_UNITS: dict[str, Unit] = {"int64": "image", "uint8": "pixel", "float32": "box"}


class Typed(Protocol):
    """Rows of one dtype, of numpy or of torch."""

    @property
    def dtype(self) -> Any:
        """Return it."""


def kind_of(stored: Typed) -> Kind:
    """Return what is stored: images, uint8 [N, C, H, W]; clips of sound, int16 [N, C, T]; or texts as the numbers of
    their word pieces, int32 [N, L].
    """
    return _KINDS[str(stored.dtype).removeprefix("torch.")]


def unit_of(labels: Tensor | NDArray[Any]) -> Unit:
    """Return what has a label: an image, int64 [N]; a pixel, uint8 [N, H, W]; or a box, float32 [N, M, 5]."""
    return _UNITS[str(labels.dtype).removeprefix("torch.")]
