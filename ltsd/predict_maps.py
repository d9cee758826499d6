"""The answers of a trained segmentation model to images of your own: a map of classes for each, as a PNG."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ltsd.answers import VOID, class_map
from ltsd.attacks.dense_losses import cross_entropy, segpgd
from ltsd.attacks.domains import PIXELS
from ltsd.attacks.pgd import pgd
from ltsd.config import AttackConfig
from ltsd.data.decode import decode_image
from ltsd.data.items import READERS, fitted_image
from ltsd.data.layouts.folders import readable_suffixes
from ltsd.errors import UserError
from ltsd.evaluation.pixel_attacks import CHUNK, maximised
from ltsd.files import check_writable, publishing
from ltsd.map_pictures import palette
from ltsd.models.frozen import frozen
from ltsd.predict import STEPS

ATTACK_LOSSES = (cross_entropy, segpgd)
"""What the attacks maximise, in turn."""
TABLE = "classes.csv"
FALLS = ".falls"
"""What a mask's name has behind that of its map."""

Map = NDArray[np.uint8]


@dataclass(frozen=True)
class MapPrediction:
    """The answer to one image.

    `name` is the path of its map in the output folder, without an ending. `classes` is uint8 [H, W] of the image's own
    size: indices of classes, and VOID where the answer has NaN or infinity. `falls` is 255 where the answer does not
    stand under PGD-20 or SegPGD-20 within eps, else 0, uint8 [H, W]; None if they were not run.
    """

    name: str
    classes: Map
    falls: Map | None


def predict_maps(
    model: nn.Module, shape: Sequence[int], sources: Iterable[str], *, attack: AttackConfig | None
) -> Iterator[MapPrediction]:
    """Yield the model's answer to every image.

    Args:
        model: [B, C, H, W] in [0, 1] -> logits [B, H, W, num_classes], in eval mode, on the CPU or a GPU.
        shape: (C, H, W) of the images that it was trained on; images are resized to it, and the answers to the size of
            the image, upright, by the nearest pixel.
        sources: see `ltsd.data.items`.
        attack: radius and step size of the attacks; None to run none.

    Raises:
        UserError: as `ltsd.predict.predict`.
    """
    model, taken = frozen(model), set[str]()
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    images = (
        (_unused(name_of(path, source), taken), path, one)
        for source in sources
        for path, one in READERS["image"].encoded(source)
    )
    while chunk := list(islice(images, CHUNK)):
        pixels = np.stack([fitted_image(encoded, path, shape) for _, path, encoded in chunk])
        inputs = torch.from_numpy(pixels).to(device).float() / 255
        with torch.no_grad():
            answers = class_map(model(inputs))
        falls = None if attack is None else _falls(model, inputs, answers, attack, generator)
        for position, (name, path, encoded) in enumerate(chunk):
            size = decode_image(encoded, path, None)[0].shape[1:]
            classes, fallen = (None if each is None else _resized(each[position], size) for each in (answers, falls))
            assert classes is not None
            yield MapPrediction(name, classes, fallen)


def _falls(
    model: nn.Module, inputs: Tensor, answers: Tensor, attack: AttackConfig, generator: torch.Generator
) -> Tensor:
    """Return 255 where an attack changes the answers, uint8 [B, H, W], or where there is none; else 0."""
    labels, falls = answers.long(), answers == VOID
    start = PIXELS.uniform(inputs, eps=attack.eps, generator=generator)
    for loss in ATTACK_LOSSES:
        objective, size = maximised(model, labels, loss, STEPS), attack.resolved_step_size
        adv_inputs = pgd(objective, inputs, domain=PIXELS, eps=attack.eps, step_size=size, steps=STEPS, start=start)
        with torch.no_grad():
            falls |= class_map(model(adv_inputs)) != answers
    return 255 * falls.byte()


def _resized(values: Tensor, size: Sequence[int]) -> Map:
    """Return uint8 [h, w] at a size (H, W), each pixel the nearest one's value."""
    height, width = size
    image = Image.fromarray(values.cpu().numpy()).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(image, dtype=np.uint8)


def name_of(image: str, source: str) -> str:
    """Return the path below a source of an image that is read, without its ending; `file-row-3` for a
    row of a table.
    """
    root = source.partition("?")[0] if "://" in source else str(Path(source).expanduser().absolute())
    path, folder = PurePosixPath(image), PurePosixPath(root)
    below = path.relative_to(folder) if folder in path.parents else PurePosixPath(path.name)
    if below.suffix.casefold() in readable_suffixes():
        return str(below.with_suffix(""))
    file, _, row = str(below).rpartition(" row ")
    return f"{file}-row-{row}"


def _unused(name: str, taken: set[str]) -> str:
    """Return the name, or with `-2`, `-3`, … if a map or mask has it; take it."""
    candidates = (name if number == 1 else f"{name}-{number}" for number in count(1))
    free = next(one for one in candidates if not {one, one + FALLS} & taken)
    taken |= {free, free + FALLS}
    return free


def check_folder(out: Path | None, sources: Sequence[str]) -> Path:
    """Return the folder that maps will be written to.

    Raises:
        UserError: none is given; it is no folder, is not empty, cannot be written, or is among the images.
    """
    if out is None or out.suffix in (".csv", ".json"):
        given = "" if out is None else f" {out}"
        raise UserError(f"--out{given}: a segmentation model answers with a PNG for each image; give a folder for them")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out}: is not empty; give another folder")
    if any(out.resolve().is_relative_to(Path(source).resolve()) for source in sources):
        raise UserError(f"--out {out}: would be among the images that are read; give a folder elsewhere")
    check_writable(out / TABLE)
    return out


def write_maps(predictions: Iterable[MapPrediction], class_names: Sequence[str], folder: Path) -> int:
    """Write `name.png` of every image and, if it was attacked, `name.falls.png`; then classes.csv. Return how many
    images there were.

    A map is a PNG of indices with the palette of `ltsd.map_pictures.palette`; VOID is no class. A row of classes.csv
    has a class's index, name, colour (#rrggbb), and its share of the pixels of all images, in [0, 1].
    """
    colours, images = palette(len(class_names)), 0
    pixels = np.zeros(VOID + 1, dtype=np.int64)
    for one in predictions:
        images += 1
        pixels += np.bincount(one.classes.ravel(), minlength=VOID + 1)
        drawn = Image.fromarray(one.classes)
        drawn.putpalette(colours.tobytes())
        _write_png(folder / f"{one.name}.png", drawn)
        if one.falls is not None:
            _write_png(folder / f"{one.name}{FALLS}.png", Image.fromarray(one.falls))
    with publishing(folder / TABLE) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "name", "colour", "share"])
        for index, name in enumerate(class_names):
            share = pixels[index] / pixels.sum()
            writer.writerow([index, name, f"#{colours[index].tobytes().hex()}", f"{share:.6f}"])
    return images


def _write_png(path: Path, image: Image.Image) -> None:
    with publishing(path) as temporary:
        image.save(temporary, format="PNG")


def maps_command(
    model: nn.Module, about: Mapping[str, Any], sources: Sequence[str], out: Path | None, attack: AttackConfig | None
) -> int:
    """`python -m ltsd predict` of a segmentation checkpoint.

    Raises:
        UserError: as `check_folder` and `predict_maps`.
    """
    folder = check_folder(out, sources)
    images = write_maps(predict_maps(model, about["shape"], sources, attack=attack), about["class_names"], folder)
    print(f"saved maps of {images} image(s) and {TABLE} in {folder}")
    return 0
