"""The registered model: encoded images in; classes with their probabilities, masks or boxes out.

MLflow copies this file into the model and runs it wherever the model is loaded, without ltsd. So it repeats the lines
of `ltsd.data.decode`, `ltsd.predict` and `ltsd.predict_maps` that make pixels of an encoded image and a mask of logits;
tests compare them.
"""

import io
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torchvision.ops import batched_nms

BATCH = 64
"""How many decoded images are in memory at a time."""
MAX_PIXELS = 4096 * 4096
SLACK = 0.02
"""How far the proportion of the sides may be from the model's, if that is not square."""
LUMA = np.array([0.299, 0.587, 0.114])
TURNED = range(2, 9)
UNREADABLE = (OSError, ValueError, SyntaxError, KeyError, TypeError, struct.error)
VOID = 255
STRIDES, BOX, LARGEST = (4, 8, 16), 5, 5.0
"""The locations of a detector, the outputs of each besides classes, and the largest logarithm of a distance."""
LEAST_SCORE, SAME_OBJECT = 0.3, 0.5
"""The least score of a box in the answer, and the IoU from which the weaker of two boxes of a class is left out."""
Size = tuple[int, int]


class ServedNetwork(PythonModel):
    """An exported network that takes encoded images: PNG, JPEG or another format that Pillow reads."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the artifact `network`, a file of `python -m ltsd export --to torch-export`."""
        files = {"about.json": ""}
        program = torch.export.load(context.artifacts["network"], extra_files=files)
        about = json.loads(files["about.json"])
        self.network = program.module()
        self.shape: Sequence[int] = about["shape"]
        self.class_names: Sequence[str] = about["class_names"]
        self.columns, self.answers = KINDS[self.network(torch.zeros(1, *self.shape)).ndim]

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Classify every image or every pixel, or detect objects.

        Args:
            context: not used.
            model_input: one column `image` of bytes, one row per image; images are resized as for the training.
            params: not used.

        Returns:
            One row per image. The columns of a classifier are `class`, the name of the most probable class;
            `probability` in [0, 1]; `probabilities`, a dict from class name to probability. Those of a segmentation
            model are `mask`, a PNG of the image's own size with the index of the most probable class of every pixel,
            VOID where its logits are not finite; `shares`, a dict from class name to its share of the pixels, in
            [0, 1]. A detector has `boxes`, dicts with `class`, `score` in [0, 1], at least LEAST_SCORE, and the corners
            `x0`, `y0`, `x1`, `y1` in pixels of the image, the highest score first.

        Raises:
            MlflowException: a row holds no image that can be read, or one whose sides are in another proportion than
                those of a model for images that are not square.
        """
        encoded = model_input["image"].tolist()
        starts = range(0, len(encoded), BATCH)
        answers = [one for start in starts for one in self._answers(encoded[start : start + BATCH], start)]
        return pd.DataFrame(answers, columns=self.columns)

    @torch.no_grad()
    def _answers(self, encoded: Sequence[bytes], first: int) -> Iterator[tuple[Any, ...]]:
        decoded = [pixels_of(image, first + number, self.shape) for number, image in enumerate(encoded)]
        answers = self.network(torch.from_numpy(np.stack([pixels for pixels, _ in decoded])).float() / 255)
        for answer, (_, size) in zip(answers, decoded, strict=True):
            yield self.answers(answer, self.class_names, self.shape, size)


def classified(
    logits: torch.Tensor, names: Sequence[str], shape: Sequence[int], size: Size
) -> tuple[str, float, dict[str, float]]:
    """Return the class of logits [num_classes], its probability, and those of all classes."""
    probabilities = logits.softmax(0)
    label = int(probabilities.argmax())
    return names[label], float(probabilities[label]), dict(zip(names, probabilities.tolist(), strict=True))


def masked(
    logits: torch.Tensor, names: Sequence[str], shape: Sequence[int], size: Size
) -> tuple[bytes, dict[str, float]]:
    """Return the mask of logits [H, W, num_classes] as PNG of a size, and the shares of the classes."""
    classes = torch.where(logits.isfinite().all(-1), logits.argmax(-1), VOID).byte()
    counts = torch.bincount(classes.flatten(), minlength=VOID + 1)[: len(names)]
    mask = io.BytesIO()
    Image.fromarray(classes.numpy()).resize(size, Image.Resampling.NEAREST).save(mask, format="PNG")
    return mask.getvalue(), dict(zip(names, (counts / classes.numel()).tolist(), strict=True))


def boxed(answers: torch.Tensor, names: Sequence[str], shape: Sequence[int], size: Size) -> tuple[list[dict[str, Any]]]:
    """Return the boxes of the answers [L, num_classes + 1 + BOX] of all locations, in pixels of a size."""
    if not answers.isfinite().all():
        return ([],)
    scores = answers[:, :-BOX].softmax(-1)[:, :-1] * answers[:, -1:].sigmoid()
    where = locations(*shape[1:])
    far = where[:, 2:] * answers[:, -BOX:-1].clamp_max(LARGEST).exp()
    corners = torch.cat([where[:, :2] - far[:, :2], where[:, :2] + far[:, 2:]], -1)
    scale = torch.tensor([size[0] / shape[2], size[1] / shape[1]]).repeat(2)
    corners = corners.clamp(torch.zeros(4), torch.tensor([shape[2], shape[1]]).repeat(2)) * scale
    location, label = (scores >= LEAST_SCORE).nonzero().unbind(1)
    own = scores[location, label]
    kept = batched_nms(corners[location], own, label, SAME_OBJECT)
    return (
        [
            {"class": names[c], "score": score, **dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))}
            for c, score, box in zip(
                label[kept].tolist(), own[kept].tolist(), corners[location[kept]].tolist(), strict=True
            )
        ],
    )


def locations(height: int, width: int) -> torch.Tensor:
    """Return x, y and stride of all locations, float32 [L, 3], in pixels."""
    levels = []
    for stride in STRIDES:
        rows, columns = (torch.arange(-(-side // stride)) for side in (height, width))
        y, x = torch.meshgrid(stride * (rows + 0.5), stride * (columns + 0.5), indexing="ij")
        levels.append(torch.stack([x, y, torch.full_like(x, stride)], -1).flatten(0, 1))
    return torch.cat(levels)


KINDS: dict[int, tuple[Sequence[str], Callable[..., tuple[Any, ...]]]] = {
    2: (("class", "probability", "probabilities"), classified),
    3: (("boxes",), boxed),
    4: (("mask", "shares"), masked),
}
"""By the number of dimensions of the network's output: the columns, and the function that makes a row of an answer."""


def pixels_of(encoded: bytes, row: int, shape: Sequence[int]) -> tuple[NDArray[np.uint8], Size]:
    """Return an encoded image as uint8 [C, H, W] of a shape, and its own (width, height); `row` is its number, for
    errors.

    Raises:
        MlflowException: as `ServedNetwork.predict`.
    """
    channels, height, width = shape
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            check(image, row)
            turned = image.getexif().get(ExifTags.Base.Orientation) in TURNED
            upright = ImageOps.exif_transpose(image) if turned else image
            size = upright.size
            if height != width and abs(size[0] * height - size[1] * width) > SLACK * size[1] * width:
                raise refused(
                    row, f"is {size[0]}x{size[1]}, and the model takes {width}x{height}; crop it to that form"
                )
            resized = upright.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
            colours = np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1)
    except Image.DecompressionBombError as error:
        raise refused(row, f"{error}; more than {MAX_PIXELS} pixels are refused") from error
    except UNREADABLE as error:
        raise refused(row, f"a broken image ({str(error).partition(' <_io')[0]})") from error
    if channels == 1:
        return np.rint(np.tensordot(LUMA, colours.astype(np.float64), axes=1)).astype(np.uint8)[None], size
    return colours, size


def check(image: Image.Image, row: int) -> None:
    """Check the header of an image.

    Raises:
        MlflowException: more than MAX_PIXELS, or more than 8 bits a channel.
    """
    if image.width * image.height > MAX_PIXELS:
        raise refused(row, f"an image of {image.width}x{image.height} pixels, more than {MAX_PIXELS} are refused")
    if image.mode[0] in "IF":
        raise refused(row, f"has more than 8 bits a channel (mode {image.mode}); images of 8 are read")


def refused(row: int, why: str) -> MlflowException:
    """Return the error of a row, counted from 0; a server answers it with status 400."""
    return MlflowException(f"row {row}: {why}", error_code=INVALID_PARAMETER_VALUE)


mlflow.models.set_model(ServedNetwork())
