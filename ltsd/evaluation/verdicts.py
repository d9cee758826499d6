"""Verdicts on the disk: one Parquet file an exam, so that models are compared image by image and exams go on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from ltsd.data.batches import Split
from ltsd.errors import UserError
from ltsd.evaluation.evaluate import Verdicts
from ltsd.files import publishing

LABEL = "label"


def write_verdicts(path: Path, verdicts: Mapping[str, Verdicts], fingerprint: str) -> None:
    """Write a row an image, in the order of the split: `label` and a bool column an attack, true where the model
    is right under it, null where it answers NaN or infinity. The file appears whole or not at all.

    Args:
        verdicts: by attack, at least one, all of the same images.
        fingerprint: of what was examined, see `fingerprint_of`.
    """
    first = next(iter(verdicts.values()))
    columns = {LABEL: pa.array(first.labels.numpy())} | {name: _column(one) for name, one in verdicts.items()}
    table = pa.table(columns).replace_schema_metadata(
        {"fingerprint": fingerprint, "num_classes": str(first.num_classes)}
    )
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    with publishing(path) as temporary:  # written by Python, whose errors tell a full disk from others
        temporary.write_bytes(buffer.getvalue())


def _column(verdicts: Verdicts) -> pa.Array:
    is_null = np.zeros(len(verdicts.right), dtype=bool)
    is_null[list(verdicts.unanswered)] = True
    return pa.array(verdicts.right.numpy(), mask=is_null)


def read_verdicts(path: Path) -> tuple[dict[str, Verdicts], str]:
    """The verdicts of a file by attack, and the fingerprint of what was examined.

    Raises:
        UserError: there is no such file, or it is damaged or another kind of file.
    """
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        fingerprint, num_classes = metadata["fingerprint"], int(metadata["num_classes"])
        label, *columns = table.columns
        labels = torch.tensor(label.to_numpy())
        found = [_verdicts(column, labels, num_classes) for column in columns]
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} holds no verdicts of an exam ({error}); delete it and examine the model again"
        ) from error
    return dict(zip(table.column_names[1:], found, strict=True)), fingerprint


def _verdicts(column: pa.ChunkedArray, labels: Tensor, num_classes: int) -> Verdicts:
    unanswered = frozenset(np.flatnonzero(column.is_null().to_numpy()).tolist())
    return Verdicts(torch.tensor(column.fill_null(False).to_numpy()), labels, num_classes, unanswered)


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
