"""A run from configuration to checkpoint; the command line and the Ray trial share it."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ltsd.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ltsd.config import Config
from ltsd.data import Splits
from ltsd.data.batches import Split
from ltsd.data.longtail import Groups, class_groups
from ltsd.data.sources import load_source
from ltsd.data.vocabulary import Vocabulary
from ltsd.errors import UserError
from ltsd.knobs import Value
from ltsd.methods import METHODS
from ltsd.models import build_model
from ltsd.packages import MissingPackageError
from ltsd.precision import computes_in
from ltsd.ranks import check_batch
from ltsd.state import EpochMetrics, TrainState
from ltsd.tasks import TASKS, check_task, fitting
from ltsd.train import train

WHEREABOUTS = ("data.decoded_gib", "data.resident_gib")
"""Knobs that change no result: a run may go on with others."""


@dataclass(frozen=True)
class Run:
    """Everything that `train` needs: a configuration, its data on the device, its state and its teacher."""

    config: Config
    state: TrainState
    data: Split
    val: Split | None
    teacher: nn.Module | None
    class_names: tuple[str, ...]
    images: str
    """The fingerprint of the source's images."""
    groups: Groups
    """The classes by head, medium and tail: a teacher's own images are balanced."""

    def epochs(self) -> Iterator[EpochMetrics]:
        """Continue training; the run can be saved at every yield."""
        return train(self.config, self.state, self.data, self.val, self.teacher, self.groups)

    def save(self, path: Path) -> None:
        """Write the whole run, with everything that rebuilds its model."""
        about = {
            "config": self.config.flatten(),
            "shape": list(self.data.shape),
            "class_names": list(self.class_names),
            "class_counts": self.data.class_counts(),
            "images": self.images,
            "vocabulary": None if self.data.vocabulary is None else asdict(self.data.vocabulary),
            "computed_in": computes_in(self.config.precision, self.data.rows.device),
        }
        save_checkpoint(path, about | self.state.content())


def config_for(fixed: Mapping[str, Value]) -> Config:
    """Return the defaults for a source and a task, with what is fixed by dotted name; a task that is not fixed is that
    of the source's labels. The decoded images are compared with their checksum.

    Raises:
        UserError: as `load_source`; a value that is fixed wrongly.
    """
    source = str(fixed.get("data.source", "digits"))
    plain = Config.preset(source).override(fixed)
    task = str(fixed["task"]) if "task" in fixed else fitting(load_source(plain.data, check=True).train)
    config = Config.preset(source, task).override(fixed)
    if "task" in fixed or config.data != plain.data:
        load_source(config.data, check=True)
    return config


def open_run(
    config: Config,
    splits: Splits,
    data: Split,
    val: Split | None,
    device: torch.device,
    *,
    teacher: nn.Module | None,
    resume: Path | None,
) -> Run:
    """Start a run, or continue one from a checkpoint.

    Args:
        config: the run's configuration.
        splits: the data that `data` and `val` are parts of.
        data: training images.
        val: validation images; None to validate never.
        device: where to train.
        teacher: the trained self-teacher, for methods that need one.
        resume: checkpoint to continue from; None for a fresh start.

    Raises:
        UserError: the method needs a teacher and there is none; as `check_task`; as `check_batch`.
        CheckpointError: `resume` is damaged, or has another configuration or other images.
    """
    check_task(config, data)
    check_batch(min(config.optim.batch_size, len(data)))
    if METHODS[config.method].needs_teacher and teacher is None:
        raise UserError(f"method {config.method} learns from a teacher and none is given")
    state = TrainState.fresh(config, splits.shape[0], data.num_classes, device)
    if resume is not None:
        content = load_checkpoint(resume, device)
        _check_same_run(resume, content, config, splits, data)
        state.restore(content)
    on_device = None if val is None else val.to(device)
    counts = (splits.complete if val is None else splits.train).class_counts()
    groups = class_groups(counts, config.data.groups)
    return Run(config, state, data.to(device), on_device, teacher, splits.class_names, splits.fingerprint, groups)


def load_model(path: Path, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model of a checkpoint, in eval mode, and the checkpoint's content.

    Raises:
        CheckpointError: the file is damaged, or its tensors do not fit its configuration.
        MissingPackageError: its architecture is of a package that is not installed.
    """
    content = load_checkpoint(path, device)
    try:
        config = Config.recorded(content["config"])
        head = METHODS[config.method].head
        model = build_model(config.model, content["shape"][0], len(content["class_names"]), head).to(device)
        model.load_state_dict(content["average"] or content["student"])
    except MissingPackageError:
        raise
    except (KeyError, TypeError, RuntimeError, AttributeError, UserError) as error:
        raise CheckpointError(
            f"{path}: its tensors do not fit the model it names; it is of another architecture or version "
            f"({str(error).splitlines()[0]})"
        ) from error
    return model.eval().requires_grad_(False), content


def vocabulary_of(about: Mapping[str, Any]) -> Vocabulary | None:
    """Return the vocabulary in the content of a checkpoint; None if its model reads no texts.

    Raises:
        CheckpointError: it is missing.
    """
    found = about.get("vocabulary")
    if found is None and TASKS[Config.recorded(about["config"]).task].kind == "text":
        raise CheckpointError("the checkpoint has no vocabulary, as those of earlier versions; train the model again")
    return None if found is None else Vocabulary(**found)


def check_same_images(path: Path, content: dict[str, Any], splits: Splits) -> None:
    """Check that a checkpoint was trained on the images that its source has now.

    Raises:
        CheckpointError: it was trained on other images.
    """
    if content.get("images") != splits.fingerprint:
        raise CheckpointError(
            f"{path}: was trained on other images than there are now, so that images it has seen may be among those it "
            f"would be tested on; bring the old ones back, or train anew"
        )


def _check_same_run(path: Path, content: dict[str, Any], config: Config, splits: Splits, data: Split) -> None:
    check_same_images(path, content, splits)
    saved, counts = Config.recorded(content["config"]).flatten(), data.class_counts()
    if content["class_counts"] != counts:
        raise CheckpointError(
            f"{path}: was trained on {sum(content['class_counts'])} images and cannot go on with {sum(counts)} others; "
            f"start anew or choose the same data"
        )
    for name, value in config.flatten().items():
        if saved[name] != value and name not in WHEREABOUTS:
            raise CheckpointError(
                f"{path}: was made with {name} = {saved[name]} and cannot go on with {value}; start anew or "
                f"give the same value"
            )
