"""The answers of a trained model to inputs of your own: probabilities, and whether the answer survives attacks."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import nn

from ltsd.config import AttackConfig, Config
from ltsd.data.batches import Split
from ltsd.data.items import READERS, Form
from ltsd.data.units import Kind
from ltsd.data.vocabulary import Vocabulary
from ltsd.evaluation.edits import BUDGETS, edit_correctness
from ltsd.evaluation.evaluate import Correctness, standing_correctness
from ltsd.files import check_writable, publishing
from ltsd.models.frozen import frozen
from ltsd.runs import vocabulary_of
from ltsd.tasks import TASKS
from ltsd.tasks.classification import VALIDATION_LOSSES

CHUNK = 250
STEPS = 20


@dataclass(frozen=True)
class Prediction:
    """The answer to one input.

    `item` is its path, or file and row; `label` the most probable class; `probabilities` [C] in [0, 1]; `stands` tells
    whether the answer survives PGD-20, CW-20 and LSA-20 within eps, of a text any one or two edits that a search finds;
    None if no attack was run.
    """

    item: str
    label: str
    probabilities: tuple[float, ...]
    stands: bool | None


def predict(
    model: nn.Module,
    shape: Sequence[int],
    class_names: Sequence[str],
    sources: Iterable[str],
    *,
    config: Config,
    attack: AttackConfig | None,
    vocabulary: Vocabulary | None = None,
) -> Iterator[Prediction]:
    """Yield the model's answer to every image, clip of sound or text.

    Args:
        model: inputs [B, ...] -> logits, in eval mode, on the CPU or a GPU.
        shape: of the inputs that it was trained on; others are fitted to it.
        class_names: in the order of the logits.
        sources: see `ltsd.data.items`.
        config: of the training: its task and data say how inputs are read.
        attack: radius and step size of the attacks; None to run none.
        vocabulary: of texts.

    Raises:
        UserError: as `ItemReader.encoded` and as it decodes: a broken image or clip; an image of another size than a
            model for images that are not square has; a text without a known word.
    """
    kind, form = TASKS[config.task].kind, Form(shape, config.data, vocabulary)
    reader, attacked = READERS[kind], STANDING.get(kind, under_gradients)
    model = frozen(model)
    device = next(model.parameters()).device
    items = (item for source in sources for item in reader.encoded(source))
    while chunk := list(islice(items, CHUNK)):
        stored = torch.from_numpy(np.stack([reader.decode(one, path, form) for path, one in chunk]))
        rows = torch.arange(len(chunk), device=device)
        split = Split(stored.to(device), torch.zeros_like(rows), rows, len(class_names), vocabulary=vocabulary)
        with torch.no_grad():
            probabilities = model(split.take(rows)[0]).softmax(1)
        labels = probabilities.argmax(1)
        stands: list[bool | None] = [None] * len(chunk)
        if attack is not None:
            stands = attacked(model, replace(split, labels=labels), config.task, attack).right.tolist()
        answers = zip(chunk, labels.tolist(), probabilities.tolist(), stands, strict=True)
        for (path, _), label, of_classes, stood in answers:
            yield Prediction(path, class_names[label], tuple(of_classes), stood)


def under_gradients(model: nn.Module, split: Split, task: str, attack: AttackConfig) -> Correctness:
    """Return the worst case of PGD-20, CW-20 and LSA-20."""
    size, eps, domain = attack.resolved_step_size, attack.eps, TASKS[task].domain
    *_, worst = standing_correctness(
        model, split, VALIDATION_LOSSES, domain=domain, eps=eps, step_size=size, steps=STEPS, seed=0
    ).values()
    return worst


def under_edits(model: nn.Module, split: Split, task: str, attack: AttackConfig) -> Correctness:
    """Return the worst case of greedy edits; nobody can send what gradients find in the vectors of a text."""
    *_, most = BUDGETS
    return edit_correctness(model, split, seed=0)[most]


STANDING: Mapping[Kind, Callable[[nn.Module, Split, str, AttackConfig], Correctness]] = {"text": under_edits}
"""(model, inputs with the answers as labels, task, attack) -> which answers stand, by kind of input; `under_gradients`
for others.
"""


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
        UserError: as `predict`; as `vocabulary_of`; the file cannot be written.
    """
    if out is not None:
        check_writable(out)
    names, config = about["class_names"], Config.recorded(about["config"])
    name, vocabulary = READERS[TASKS[config.task].kind].name, vocabulary_of(about)
    predictions = predict(model, about["shape"], names, sources, config=config, attack=attack, vocabulary=vocabulary)
    if out is None:
        write_csv(predictions, names, sys.stdout, name)
        return 0
    write = write_json if out.suffix == ".json" else write_csv
    with publishing(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        write(predictions, names, file, name)
    print(f"saved {out}")
    return 0
