"""What has a label: an image, a pixel or a box."""

from typing import Any, Literal

from numpy.typing import NDArray
from torch import Tensor

Unit = Literal["image", "pixel", "box"]

_UNITS: dict[str, Unit] = {"int64": "image", "uint8": "pixel", "float32": "box"}


def unit_of(labels: Tensor | NDArray[Any]) -> Unit:
    """Return what has a label: an image, int64 [N]; a pixel, uint8 [N, H, W]; or a box, float32 [N, M, 5]."""
    return _UNITS[str(labels.dtype).removeprefix("torch.")]
