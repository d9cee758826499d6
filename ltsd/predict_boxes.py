"""The boxes that a detector finds in images of one's own."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import nn

from ltsd.data.decode import decode_image
from ltsd.data.items import READERS, fitted_image
from ltsd.errors import UserError
from ltsd.evaluation.detections import SHOWN_SCORE, Detections
from ltsd.files import check_writable, publishing
from ltsd.models.frozen import frozen

CHUNK = 32
COLUMNS = ("image", "class", "score", "x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class FoundBox:
    """A box in an image: its class, its score in [0, 1], and its corners (x0, y0, x1, y1) in pixels of that image."""

    label: str
    score: float
    corners: tuple[float, float, float, float]


def predict_boxes(
    model: nn.Module, shape: Sequence[int], class_names: Sequence[str], sources: Iterable[str]
) -> Iterator[tuple[str, list[FoundBox]]]:
    """Yield every image's path and its boxes, the highest score first.

    Args:
        model: images [B, C, H, W] in [0, 1] -> [B, L, num_classes + 1 + BOX], in eval mode, on the CPU or a GPU.
        shape: (C, H, W) of the images that it was trained on; images are resized to it, and boxes to the image.
        class_names: in label order.
        sources: see `ltsd.data.items`.

    Raises:
        UserError: as `ltsd.predict.predict`.
    """
    model, (_, height, width) = frozen(model), shape
    device = next(model.parameters()).device
    images = (image for source in sources for image in READERS["image"].encoded(source))
    while chunk := list(islice(images, CHUNK)):
        pixels = np.stack([fitted_image(encoded, path, shape) for path, encoded in chunk])
        with torch.no_grad():
            answers = model(torch.from_numpy(pixels).to(device).float() / 255)
        found = Detections.of(answers, height, width)
        for number, (path, encoded) in enumerate(chunk):
            own = decode_image(encoded, path, None)[0].shape[1:]
            scale = torch.tensor([own[1] / width, own[0] / height]).repeat(2)
            told = (found.image == number) & (found.scores >= SHOWN_SCORE)
            order = found.scores[told].argsort(descending=True, stable=True)
            parts = (found.classes[told][order], found.scores[told][order], found.boxes[told][order] * scale)
            rows = zip(*(part.tolist() for part in parts), strict=True)
            yield path, [FoundBox(class_names[c], score, tuple(corners)) for c, score, corners in rows]


def boxes_command(
    model: nn.Module, about: dict[str, Any], sources: Sequence[str], out: Path | None, *, is_attacked: bool
) -> int:
    """`python -m ltsd predict` of a detector: CSV with a row a box, or JSON with a list an image.

    Raises:
        UserError: attacks are asked for; as `predict_boxes`.
    """
    if is_attacked:
        raise UserError("--attack: is not for detectors, whose boxes do not stand or fall one by one; leave it out")
    if out is not None:
        check_writable(out)
    found = predict_boxes(model, about["shape"], about["class_names"], sources)
    if out is None:
        _write_csv(found, sys.stdout)
        return 0
    with publishing(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        (_write_json if out.suffix == ".json" else _write_csv)(found, file)
    print(f"saved {out}")
    return 0


def _write_csv(found: Iterable[tuple[str, list[FoundBox]]], file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for path, boxes in found:
        writer.writerows(
            [path, box.label, f"{box.score:.4f}", *(f"{side:.1f}" for side in box.corners)] for box in boxes
        )


def _write_json(found: Iterable[tuple[str, list[FoundBox]]], file: TextIO) -> None:
    told = [
        {
            "image": path,
            "boxes": [
                {"class": box.label, "score": box.score, **dict(zip(COLUMNS[3:], box.corners, strict=True))}
                for box in boxes
            ],
        }
        for path, boxes in found
    ]
    json.dump(told, file, indent=1)
