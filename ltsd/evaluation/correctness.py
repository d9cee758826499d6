"""Correctness files: one Parquet file per exam, to compare models image by image and to resume an exam."""

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
from ltsd.evaluation.evaluate import Correctness
from ltsd.files import publishing

LABEL, BLOCK = "label", "block"


def write_correctness(path: Path, correctness: Mapping[str, Correctness], fingerprint: str) -> None:
    """Write one row per image, in the order of the split; the file is written atomically.

    The columns are `label`, `block` if the images have blocks, and a bool for each attack: true where the model is
    right, null where its answer has NaN or infinity.

    Args:
        correctness: by attack, at least one, all of the same images.
        fingerprint: of what was examined, see `fingerprint_of`.
    """
    first = next(iter(correctness.values()))
    columns = {LABEL: pa.array(first.labels.numpy())}
    if first.blocks is not None:
        columns[BLOCK] = pa.array(first.blocks.numpy())
    columns |= {name: _column(one) for name, one in correctness.items()}
    table = pa.table(columns).replace_schema_metadata(
        {"fingerprint": fingerprint, "num_classes": str(first.num_classes)}
    )
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    with publishing(path) as temporary:  # written by Python, whose errors distinguish a full disk from other failures
        temporary.write_bytes(buffer.getvalue())


def _column(correctness: Correctness) -> pa.Array:
    is_null = np.zeros(len(correctness.right), dtype=bool)
    is_null[list(correctness.unanswered)] = True
    return pa.array(correctness.right.numpy(), mask=is_null)


def read_correctness(path: Path) -> tuple[dict[str, Correctness], str]:
    """Return the correctness in a file by attack, and the fingerprint of what was examined.

    Raises:
        UserError: there is no such file, or it is damaged or another kind of file.
    """
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        fingerprint, num_classes = metadata["fingerprint"], int(metadata["num_classes"])
        labels = torch.tensor(table[LABEL].to_numpy())
        blocks = torch.tensor(table[BLOCK].to_numpy()) if BLOCK in table.column_names else None
        attacks = [name for name in table.column_names if name not in (LABEL, BLOCK)]
        found = {name: _correctness(table[name], labels, num_classes, blocks) for name in attacks}
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is not the correctness file of an exam ({error}); delete it and examine the model again"
        ) from error
    return found, fingerprint


def _correctness(column: pa.ChunkedArray, labels: Tensor, num_classes: int, blocks: Tensor | None) -> Correctness:
    unanswered = frozenset(np.flatnonzero(column.is_null().to_numpy()).tolist())
    return Correctness(torch.tensor(column.fill_null(False).to_numpy()), labels, num_classes, unanswered, blocks)


CHUNK = 512
"""Images that are read at a time."""


def fingerprint_of(model: nn.Module, split: Split, conditions: Sequence[object]) -> str:
    """Return the SHA-256 of all that correctness depends on: architecture, weights, images, labels, conditions.

    Args:
        conditions: plain values, among them whatever decides the bits: radius, seed, batch size, device, versions.
    """
    digest = hashlib.sha256(json.dumps([repr(model), *conditions]).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    batches = split.rows.split(CHUNK)  # type: ignore[no-untyped-call]
    for shape, read in (
        (split.images.shape, split.stored(batches)),
        (split.labels.shape, (split.labels[rows] for rows in batches)),
    ):
        digest.update(str([len(split), *shape[1:]]).encode())
        for part in read:
            digest.update(part.cpu().contiguous().numpy().data)
    return digest.hexdigest()
