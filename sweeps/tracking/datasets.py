"""The data sets that MLflow shows of a run."""

import json

from mlflow.entities import Dataset, DatasetInput, InputTag

from ltsd.data import Splits
from ltsd.data.batches import Split
from sweeps.settings.sweep import data_name


def dataset_input(source: str, splits: Splits, split: Split, context: str) -> DatasetInput:
    """A split of the data of a source, by what it serves for, with its images counted by class."""
    counts = dict(zip(splits.class_names, split.class_counts(), strict=True))
    data = Dataset(
        name=f"{data_name(source)}-{context}",
        digest=splits.fingerprint[:36],
        source_type="ltsd",
        source=json.dumps({"source": source}),
        profile=json.dumps({"images": len(split), "class_counts": counts}),
    )
    return DatasetInput(data, [InputTag("mlflow.data.context", context)])
