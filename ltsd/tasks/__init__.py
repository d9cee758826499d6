"""The tasks: the kind of target, the rows that a batch makes, the score. To add one, define its TASK in a new module
and list it in TASKS.
"""

from collections.abc import Mapping

from ltsd.config import Config
from ltsd.data.arrow import ImageSet
from ltsd.data.batches import Split
from ltsd.data.units import kind_of, unit_of
from ltsd.errors import UserError
from ltsd.methods import METHODS
from ltsd.models import check_model
from ltsd.tasks import classification, detection, segmentation, speech, text
from ltsd.tasks.task import Task

TASKS: Mapping[str, Task] = {
    task.title: task for task in (classification.TASK, segmentation.TASK, detection.TASK, speech.TASK, text.TASK)
}


def metric(config: Config, name: str) -> str:
    """Return the name of a score in the measure of the task: `val/robust` is `val/robust_acc` in classification."""
    return f"{name}_{TASKS[config.task].measure}"


def validated(config: Config) -> str:
    """Describe `val/robust_*` in words."""
    return TASKS[config.task].validated(config.evaluate.steps)


def fitting(data: Split | ImageSet) -> str:
    """Return the name of the task that fits the data."""
    found = kind_of(data.images), unit_of(data.labels)
    return next(name for name, task in TASKS.items() if (task.kind, task.unit) == found)


def check_task(config: Config, data: Split) -> str:
    """Check that data, network, augmentation and method fit the task; return the message of `check_model` about the
    initial weights.

    Raises:
        UserError: one of them does not fit, or `check_model` raises it.
    """
    task, method = TASKS[config.task], METHODS[config.method]
    if (kind_of(data.images), unit_of(data.labels)) != (task.kind, task.unit):
        other = fitting(data)
        raise UserError(
            f"--task {config.task}: wants a label for {task.target}, and {config.data.source} has one for "
            f"{TASKS[other].target}; give --task {other}"
        )
    if config.model.architecture not in task.networks:
        raise UserError(
            f"--model.name {config.model.name}: does not answer for {task.target}; for {config.task} choose "
            f"{', '.join(task.networks)}"
        )
    if config.data.augmentation not in task.augmentations:
        raise UserError(
            f"--data.augmentation {config.data.augmentation}: is not for {task.items} with a label for {task.target}; "
            f"for {config.task} choose {' or '.join(task.augmentations)}"
        )
    if method.of_images and task.unit != "image":
        others = ", ".join(name for name, other in METHODS.items() if not other.of_images)
        raise UserError(
            f"--method {config.method}: compares the features of whole images, and {config.task} has a label for "
            f"{task.target}; choose {others}"
        )
    return check_model(config.model, data.shape)
