"""Files of pixel counts: one Parquet file per exam, to compare models with intervals and to resume an exam."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ltsd.errors import UserError
from ltsd.evaluation.pixels import PixelCounts
from ltsd.files import publishing

LABELLED, BLOCK = "labelled", "block"


def write_counts(path: Path, counts: Mapping[str, PixelCounts], fingerprint: str) -> None:
    """Write one row per image; the file is written atomically.

    The columns are `labelled`, `block` if the images have blocks, and for every attack `<attack>/hits`,
    `<attack>/predicted` and `<attack>/finite`. Counts are lists with one number per class.

    Args:
        counts: by attack, at least one, all of the same images.
        fingerprint: of what was examined, see `fingerprint_of`.
    """
    first = next(iter(counts.values()))
    columns = {LABELLED: _lists(first.labelled)}
    if first.blocks is not None:
        columns[BLOCK] = pa.array(first.blocks.numpy())
    for name, one in counts.items():
        columns |= {f"{name}/hits": _lists(one.hits), f"{name}/predicted": _lists(one.predicted)}
        columns[f"{name}/finite"] = pa.array(one.finite.numpy())
    table = pa.table(columns).replace_schema_metadata({"fingerprint": fingerprint, "attacks": json.dumps(list(counts))})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    with publishing(path) as temporary:  # written by Python, whose errors distinguish a full disk from other failures
        temporary.write_bytes(buffer.getvalue())


def read_counts(path: Path) -> tuple[dict[str, PixelCounts], str]:
    """Return the counts in a file by attack, and the fingerprint of what was examined.

    Raises:
        UserError: there is no such file, or it is damaged or another kind of file.
    """
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
        metadata = table.schema.metadata or {}
        labelled = _tensor(table[LABELLED])
        blocks = torch.tensor(table[BLOCK].to_numpy()) if BLOCK in table.column_names else None
        found = {
            name: PixelCounts(
                hits=_tensor(table[f"{name}/hits"]),
                predicted=_tensor(table[f"{name}/predicted"]),
                labelled=labelled,
                finite=torch.tensor(table[f"{name}/finite"].to_numpy()),
                blocks=blocks,
            )
            for name in json.loads(metadata[b"attacks"])
        }
        return found, metadata[b"fingerprint"].decode()
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} is not the file of an exam of label maps ({error}); delete it and examine the model again"
        ) from error


def _lists(rows: Tensor) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.flatten().numpy()), rows.shape[1])


def _tensor(column: pa.ChunkedArray) -> Tensor:
    return torch.from_numpy(np.stack(column.to_numpy()))
