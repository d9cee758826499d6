"""The answers of a trained model to inputs of your own: probabilities, and whether the answer survives attacks."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import nn

from ltsd.config import AttackConfig, Config
from ltsd.data.batches import Split
from ltsd.data.items import READERS, ItemReader
from ltsd.errors import UserError
from ltsd.evaluation.evaluate import standing_correctness
from ltsd.files import check_writable, publishing
from ltsd.models.frozen import frozen
from ltsd.tasks import TASKS
from ltsd.tasks.classification import VALIDATION_LOSSES

CHUNK = 250
STEPS = 20


@dataclass(frozen=True)
class Prediction:
    """The answer to one input.

    `item` is its path, or file and row; `label` the most probable class; `probabilities` [C] in [0, 1]; `stands` tells
    whether the answer survives PGD-20, CW-20 and LSA-20 within eps, None if they were not run.
    """

    item: str
    label: str
    probabilities: tuple[float, ...]
    stands: bool | None


def reader_of(config: Config) -> ItemReader:
    """Return what reads the inputs of a model one by one.

    Raises:
        UserError: nothing does.
    """
    task = TASKS[config.task]
    if task.kind not in READERS:
        raise UserError(f"predict does not read {task.items} yet; python -m ltsd evaluate examines such a model")
    return READERS[task.kind]


def predict(
    model: nn.Module,
    shape: Sequence[int],
    class_names: Sequence[str],
    sources: Iterable[str],
    *,
    config: Config,
    attack: AttackConfig | None,
) -> Iterator[Prediction]:
    """Yield the model's answer to every image, or every clip of sound.

    Args:
        model: inputs [B, ...] -> logits, in eval mode, on the CPU or a GPU.
        shape: of the inputs that it was trained on; others are fitted to it.
        class_names: in the order of the logits.
        sources: see `ltsd.data.items`.
        config: of the training: its task and data say how inputs are read.
        attack: radius and step size of the attacks; None to run none.

    Raises:
        UserError: as `ItemReader.encoded` and as it decodes: a broken image or clip; an image of another size than a
            model for images that are not square has.
    """
    task = TASKS[config.task]
    reader = reader_of(config)
    model = frozen(model)
    device = next(model.parameters()).device
    items = (item for source in sources for item in reader.encoded(source))
    while chunk := list(islice(items, CHUNK)):
        stored = torch.from_numpy(np.stack([reader.decode(one, path, shape, config.data) for path, one in chunk]))
        rows = torch.arange(len(chunk), device=device)
        split = Split(stored.to(device), torch.zeros_like(rows), rows, len(class_names))
        with torch.no_grad():
            probabilities = model(split.take(rows)[0]).softmax(1)
        labels = probabilities.argmax(1)
        stands: list[bool | None] = [None] * len(chunk)
        if attack is not None:
            split = replace(split, labels=labels)
            size, eps = attack.resolved_step_size, attack.eps
            *_, worst = standing_correctness(
                model, split, VALIDATION_LOSSES, domain=task.domain, eps=eps, step_size=size, steps=STEPS, seed=0
            ).values()
            stands = worst.right.tolist()
        answers = zip(chunk, labels.tolist(), probabilities.tolist(), stands, strict=True)
        for (path, _), label, of_classes, stood in answers:
            yield Prediction(path, class_names[label], tuple(of_classes), stood)


def write_csv(predictions: Iterable[Prediction], class_names: Sequence[str], file: TextIO, name: str) -> None:
    """Write a header and a row an input, as they come: `name`, label, stands, and a column a class."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([name, "label", "stands", *class_names])
    for one in predictions:
        stands = "" if one.stands is None else str(one.stands).lower()
        writer.writerow([one.item, one.label, stands, *(f"{value:.6f}" for value in one.probabilities)])


def write_json(predictions: Iterable[Prediction], class_names: Sequence[str], file: TextIO, name: str) -> None:
    """Write a list of objects: `name`, label, stands, and probabilities by class."""
    content: list[dict[str, Any]] = [
        {
            name: one.item,
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
    names, config = about["class_names"], Config.recorded(about["config"])
    name = reader_of(config).name
    predictions = predict(model, about["shape"], names, sources, config=config, attack=attack)
    if out is None:
        write_csv(predictions, names, sys.stdout, name)
        return 0
    write = write_json if out.suffix == ".json" else write_csv
    with publishing(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        write(predictions, names, file, name)
    print(f"saved {out}")
    return 0
