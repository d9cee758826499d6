"""Detection files: one Parquet file per exam, to compare models image by image and to resume an exam."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ltsd.errors import UserError
from ltsd.evaluation.detections import Detections
from ltsd.files import publishing

CORNERS = ("x0", "y0", "x1", "y1")


def write_detections(path: Path, detections: Mapping[str, Detections], fingerprint: str) -> None:
    """Write one row per box: `attack`, `image`, `class`, `score`, and its corners in pixels; the file is written
    atomically.

    Args:
        detections: by attack, all of the same images.
        fingerprint: of what was examined, see `fingerprint_of`.
    """
    names = [name for name, one in detections.items() for _ in range(len(one.image))]
    parts = list(detections.values())
    columns = {
        "attack": pa.array(names, pa.string()),
        "image": pa.array(np.concatenate([one.image.numpy() for one in parts])),
        "class": pa.array(np.concatenate([one.classes.numpy() for one in parts])),
        "score": pa.array(np.concatenate([one.scores.numpy() for one in parts])),
    }
    corners = np.concatenate([one.boxes.numpy() for one in parts])
    columns |= {name: pa.array(corners[:, k]) for k, name in enumerate(CORNERS)}
    about = {
        "fingerprint": fingerprint,
        "images": str(len(parts[0].finite)),
        "not_finite": json.dumps({name: (~one.finite).nonzero()[:, 0].tolist() for name, one in detections.items()}),
    }
    if parts[0].blocks is not None:
        about["blocks"] = json.dumps(parts[0].blocks.tolist())
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata(about), buffer)
    with publishing(path) as temporary:  # written by Python, whose errors distinguish a full disk from other failures
        temporary.write_bytes(buffer.getvalue())


def read_detections(path: Path) -> tuple[dict[str, Detections], str]:
    """Return the detections in a file by attack, and the fingerprint of what was examined.

    Raises:
        UserError: there is no such file, or it is damaged or another kind of file.
    """
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
        about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        attacks = np.asarray(table["attack"].to_pylist(), dtype=object)
        columns = {name: torch.tensor(table[name].to_numpy()) for name in ("image", "class", "score", *CORNERS)}
        corners = torch.stack([columns[name] for name in CORNERS], 1)
        blocks = torch.tensor(json.loads(about["blocks"])) if "blocks" in about else None
        found = {}
        for name, wrong in json.loads(about["not_finite"]).items():
            own = torch.from_numpy(attacks == name)
            finite = torch.ones(int(about["images"]), dtype=torch.bool)
            finite[wrong] = False
            parts = (columns["image"][own], columns["class"][own], columns["score"][own], corners[own])
            found[name] = Detections(*parts, finite, blocks)
        return found, about["fingerprint"]
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise UserError(
            f"{path} is not the file of an exam of boxes ({error}); delete it and examine the model again"
        ) from error
