"""A run so small that it takes a moment: digits, 3 epochs with 5 batches each."""

from collections.abc import Mapping

from ltsd.knobs import Value

SMALL: Mapping[str, Value] = {
    "epochs": 3,
    "data.n_max": 30,
    "data.imbalance_ratio": 5.0,
    "data.val_per_class": 3,
    "data.test_per_class": 4,
    "model.name": "small-cnn",
    "model.width": 8,
    "attack.steps": 2,
    "optim.batch_size": 32,
    "teacher.epochs": 1,
    "evaluate.every": 2,
    "evaluate.steps": 2,
}
