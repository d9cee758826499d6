"""The defaults of a kind of data where they differ from those of the knobs, by dotted name."""

from collections.abc import Mapping

from ltsd.knobs import Value

DIGITS: Mapping[str, Value] = {
    "epochs": 40,
    "data.imbalance_ratio": 20.0,
    "optim.ema_decay": 0.98,
    # Chosen on validation: a longer stage 1 learns its few tail images by heart and teaches less.
    "teacher.epochs": 7,
    "teacher.ema_decay": 0.98,
    # Images so small gain a fifth by bf16; the same result on every processor is worth more.
    "precision": "fp32",
    # A validation costs as much as two to four epochs of a trial, and stopping trials early finds no more:
    # benchmarks/results/strategies.md.
    "evaluate.every": 20,
    # Ten steps rank configurations as well as twenty: benchmarks/results/scores.md.
    "evaluate.steps": 10,
}
SCENES: Mapping[str, Value] = {
    **DIGITS,
    "task": "segmentation",
    "epochs": 25,
    "data.imbalance_ratio": None,
    "model.name": "small-unet",
    "model.width": 8,
    "attack.eps": 0.05,
    "attack.steps": 3,
    "attack.step_size": 0.025,
    "optim.batch_size": 8,
    "teacher.epochs": 15,
    "teacher.batch_size": 8,
    # All classes weigh alike: half of the imbalance ratio, 210, would level none but the background.
    "balance.teacher_gamma": 1.0,
}
MAPS: Mapping[str, Value] = {
    "task": "segmentation",
    "epochs": 30,
    "data.augmentation": "crop-flip",
    "model.name": "small-unet",
    "attack.eps": 4 / 255,
    "attack.steps": 3,
    # Three steps of eps / 4 would not reach the edge of the ball.
    "attack.step_size": 2 / 255,
    "optim.batch_size": 8,
    "optim.ema_decay": 0.98,
    "teacher.epochs": 15,
    "teacher.batch_size": 8,
    # As for the scenes.
    "balance.teacher_gamma": 1.0,
    # A validation of boxes costs as much as five epochs and more: every fifth epoch, it took more than half of a trial.
    "evaluate.every": 15,
}
SOUND: Mapping[str, Value] = {
    "task": "speech",
    "epochs": 30,
    "data.augmentation": "shift-gain-noise",
    "model.name": "mel-resnet",
    "attack.eps": 0.002,
    "attack.steps": 3,
    "attack.step_size": 0.001,
    "optim.batch_size": 64,
    "optim.ema_decay": 0.98,
    "teacher.epochs": 15,
    "teacher.batch_size": 64,
    "teacher.ema_decay": 0.98,
    "evaluate.every": 15,
    "evaluate.steps": 10,
}
TEXT: Mapping[str, Value] = {
    "task": "text",
    "epochs": 20,
    "data.tokens": 24,
    "data.augmentation": "word-dropout",
    "model.name": "text-cnn",
    "attack.eps": 0.1,
    "attack.steps": 3,
    "attack.step_size": 0.05,
    # At 0.1, LTSD came to 40% on validation with one seed of three, at 0.05 with the same seed to 64% (banking77).
    "optim.lr": 0.05,
    "teacher.lr": 0.05,
    "optim.ema_decay": 0.98,
    "teacher.epochs": 15,
    "teacher.ema_decay": 0.98,
    "evaluate.every": 15,
    "evaluate.steps": 10,
}
SCENE_BOXES: Mapping[str, Value] = {
    **SCENES,
    "task": "detection",
    "data.labels": "boxes",
    "model.name": "small-fcos",
}
BOXES: Mapping[str, Value] = {
    **MAPS,
    "task": "detection",
    "data.labels": "boxes",
    "data.image_size": 128,
    "model.name": "small-fcos",
}
CIFAR: Mapping[str, Value] = {
    "data.val_per_class": 100,
    "data.augmentation": "crop-flip",
    "model.name": "resnet18",
    "attack.eps": 8 / 255,
}
CIFAR100: Mapping[str, Value] = {
    **CIFAR,
    "data.imbalance_ratio": 10.0,
    "data.val_per_class": 20,
    "distill.igdm_weight": 10.0,
}
EMBEDDED: Mapping[str, Mapping[str, Mapping[str, Value]]] = {
    "digits": {"": DIGITS},
    "digits-scenes": {"": SCENES, "detection": SCENE_BOXES},
    "cifar100": {"": CIFAR100},
}
"""By name of a source, and by task where it serves for several; "" for all others."""
