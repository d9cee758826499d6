"""The answers of a trained model to images of your own: probabilities, and whether the answer survives attacks."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import nn

from ltsd.attacks.domains import PIXELS
from ltsd.config import AttackConfig
from ltsd.data.batches import Split
from ltsd.data.decode import Images, decode_image
from ltsd.data.filesystems import find_place
from ltsd.data.folders import readable_suffixes
from ltsd.data.layout import is_hidden
from ltsd.data.table_files import Table
from ltsd.data.tables import SUFFIXES
from ltsd.errors import UserError
from ltsd.evaluation.evaluate import standing_correctness
from ltsd.files import check_writable, publishing
from ltsd.models.frozen import frozen
from ltsd.tasks.classification import VALIDATION_LOSSES

CHUNK = 250
STEPS = 20
SLACK = 0.02
"""How far the proportion of the sides of an image may be from the model's, if that is not square."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in grey (ITU-R BT.601), for models of one channel."""


@dataclass(frozen=True)
class Prediction:
    """The answer to one image.

    `image` is its path, or file and row; `label` the most probable class; `probabilities` [C] in [0, 1]; `stands` tells
    whether the answer survives PGD-20, CW-20 and LSA-20 within eps, None if they were not run.
    """

    image: str
    label: str
    probabilities: tuple[float, ...]
    stands: bool | None


def encoded_images(source: str) -> Iterator[tuple[str, bytes]]:
    """Yield (path, encoded bytes) of the images at a path or URI: a file, all files below a folder, the rows of Parquet
    and Arrow files. Hidden files and files of other formats are left out.

    Raises:
        UserError: nothing is there, it cannot be read, or it holds no image.
    """
    place, found = find_place(source), False
    for file in place.files:
        relative = place.relative(file)
        suffix = Path(relative).suffix.casefold()
        if is_hidden(relative) or suffix not in (*readable_suffixes(), *SUFFIXES):
            continue
        found = True
        if suffix in SUFFIXES:
            yield from Table(place, file, place.shown(file)).images()
        else:
            with place.filesystem.open_input_file(file.path) as opened:
                yield place.shown(file), bytes(opened.read())
    if not found:
        raise UserError(f"{source}: holds no image, and no Parquet or Arrow file; give files or folders that do")


def predict(
    model: nn.Module,
    shape: Sequence[int],
    class_names: Sequence[str],
    sources: Iterable[str],
    *,
    attack: AttackConfig | None,
) -> Iterator[Prediction]:
    """Yield the model's answer to every image.

    Args:
        model: [B, C, H, W] in [0, 1] -> logits, in eval mode, on the CPU or a GPU.
        shape: (C, H, W) of the images that it was trained on; images are resized to it.
        class_names: in the order of the logits.
        sources: see `encoded_images`.
        attack: radius and step size of the attacks; None to run none.

    Raises:
        UserError: as `encoded_images`; a broken image; an image of another size than a model for images that are not
            square has.
    """
    model = frozen(model)
    device = next(model.parameters()).device
    images = (image for source in sources for image in encoded_images(source))
    while chunk := list(islice(images, CHUNK)):
        pixels = np.stack([fitted(encoded, path, shape) for path, encoded in chunk])
        inputs = torch.from_numpy(pixels).to(device)
        with torch.no_grad():
            probabilities = model(inputs.float() / 255).softmax(1)
        labels = probabilities.argmax(1)
        stands: list[bool | None] = [None] * len(chunk)
        if attack is not None:
            split = Split(inputs, labels, torch.arange(len(chunk), device=device), len(class_names))
            size, eps = attack.resolved_step_size, attack.eps
            *_, worst = standing_correctness(
                model, split, VALIDATION_LOSSES, domain=PIXELS, eps=eps, step_size=size, steps=STEPS, seed=0
            ).values()
            stands = worst.right.tolist()
        rows = zip(chunk, labels.tolist(), probabilities.tolist(), stands, strict=True)
        for (path, _), label, of_classes, stood in rows:
            yield Prediction(path, class_names[label], tuple(of_classes), stood)


def fitted(encoded: bytes, path: str, shape: Sequence[int]) -> Images:
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


def write_csv(predictions: Iterable[Prediction], class_names: Sequence[str], file: TextIO) -> None:
    """Write a header and a row an image, as they come: image, label, stands, and a column a class."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["image", "label", "stands", *class_names])
    for one in predictions:
        stands = "" if one.stands is None else str(one.stands).lower()
        writer.writerow([one.image, one.label, stands, *(f"{value:.6f}" for value in one.probabilities)])


def write_json(predictions: Iterable[Prediction], class_names: Sequence[str], file: TextIO) -> None:
    """Write a list of objects: image, label, stands, and probabilities by class."""
    content: list[dict[str, Any]] = [
        {
            "image": one.image,
            "label": one.label,
            "stands": one.stands,
            "probabilities": dict(zip(class_names, one.probabilities, strict=True)),
        }
        for one in predictions
    ]
    json.dump(content, file, indent=1)


def classes_command(
    model: nn.Module, about: Mapping[str, Any], sources: Sequence[str], out: Path | None, attack: AttackConfig | None
) -> int:
    """`python -m ltsd predict` of a classifier.

    Raises:
        UserError: as `predict`; the file cannot be written.
    """
    if out is not None:
        check_writable(out)
    names = about["class_names"]
    predictions = predict(model, about["shape"], names, sources, attack=attack)
    if out is None:
        write_csv(predictions, names, sys.stdout)
        return 0
    write = write_json if out.suffix == ".json" else write_csv
    with publishing(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        write(predictions, names, file)
    print(f"saved {out}")
    return 0
