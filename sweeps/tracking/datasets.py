"""The data sets that MLflow shows for a run."""

import hashlib
import json
import statistics
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag

from ltsd.data import Splits
from ltsd.data.batches import Split
from ltsd.data.names import told_apart
from sweeps.settings.sweep import data_name

LISTED, ENDS, NAME_WIDTH = 100, 5, 60


def dataset_input(source: str, splits: Splits, split: Split, context: str) -> DatasetInput:
    """Describe a split by its purpose, with the image counts of its classes."""
    # MLflow keeps one profile for a name and digest, so the digest must differ for splits of the same images.
    digest = hashlib.sha256(splits.fingerprint.encode() + split.rows.numpy().tobytes())
    data = Dataset(
        name=f"{data_name(source)}-{context}",
        digest=digest.hexdigest()[:8],
        source_type="ltsd",
        source=json.dumps({"source": source}),
        profile=json.dumps({"images": len(split)} | _counted(splits, split)),
    )
    return DatasetInput(data, [InputTag("mlflow.data.context", context)])


def _counted(splits: Splits, split: Split) -> dict[str, Any]:
    """Count the images of every class; with more than LISTED classes, only of the largest and smallest ones, because
    MLflow returns the profiles of all runs in every search for runs.
    """
    counts = dict(zip(told_apart(splits.class_names, NAME_WIDTH), split.class_counts(), strict=True))
    if len(counts) <= LISTED:
        return {"class_counts": counts}
    falling = sorted(counts.items(), key=lambda item: -item[1])
    return {
        "classes": len(counts),
        "median_class_count": statistics.median(counts.values()),
        "class_counts_of_the_largest": dict(falling[:ENDS]),
        "class_counts_of_the_smallest": dict(falling[-ENDS:]),
    }
