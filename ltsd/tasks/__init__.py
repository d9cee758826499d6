"""Tasks: what a target is, which rows it makes, how an answer is scored. A task is a file here and a name in TASKS."""

from collections.abc import Mapping

from ltsd.tasks import classification
from ltsd.tasks.task import Task

TASKS: Mapping[str, Task] = {"classification": classification.TASK}
