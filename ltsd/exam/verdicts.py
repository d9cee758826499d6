"""Verdicts on the disk: one Parquet file an exam, so that models are compared image by image and exams go on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from ltsd.data.batches import Split
from ltsd.errors import UserError
from ltsd.evaluate import Verdicts
from ltsd.files import publishing

LABEL = "label"


def write_verdicts(path: Path, verdicts: Mapping[str, Verdicts], fingerprint: str) -> None:
    """Write a row an image, in the order of the split: `label` and a bool column an attack, true where the model
    is right under it. The file appears whole or not at all.

    Args:
        verdicts: by attack, at least one, all of the same images.
        fingerprint: of what was examined, see `fingerprint_of`.
    """
    first = next(iter(verdicts.values()))
    columns = {LABEL: first.labels.numpy()} | {name: one.right.numpy() for name, one in verdicts.items()}
    table = pa.table(columns).replace_schema_metadata(
        {"fingerprint": fingerprint, "num_classes": str(first.num_classes)}
    )
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    with publishing(path) as temporary:  # written by Python, whose errors tell a full disk from others
        temporary.write_bytes(buffer.getvalue())


def read_verdicts(path: Path) -> tuple[dict[str, Verdicts], str]:
    """The verdicts of a file by attack, and the fingerprint of what was examined.

    Raises:
        UserError: there is no such file, or it is damaged or another kind of file.
    """
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        fingerprint, num_classes = metadata["fingerprint"], int(metadata["num_classes"])
        labels, *columns = (torch.tensor(column.to_numpy()) for column in table.columns)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} holds no verdicts of an exam ({error}); delete it and examine the model again"
        ) from error
    names = table.column_names[1:]
    return {name: Verdicts(c, labels, num_classes) for name, c in zip(names, columns, strict=True)}, fingerprint


def verdicts_kept(path: Path, fingerprint: str) -> dict[str, Verdicts]:
    """What a file has of exactly this exam; nothing where there is none, or it is damaged or of another exam."""
    try:
        verdicts, found = read_verdicts(path)
    except UserError:
        return {}
    return verdicts if found == fingerprint else {}


def fingerprint_of(model: nn.Module, split: Split, conditions: Sequence[object]) -> str:
    """SHA-256 of all that verdicts depend on: architecture, weights, images, labels, and the conditions of the exam.

    Args:
        conditions: plain values, among them whatever decides the bits: radius, seed, batch size, device, versions.
    """
    digest = hashlib.sha256(json.dumps([repr(model), *conditions]).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    for part in (split.images[split.rows], split.labels[split.rows]):
        digest.update(str(list(part.shape)).encode())
        digest.update(part.cpu().contiguous().numpy().data)
    return digest.hexdigest()
