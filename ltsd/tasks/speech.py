"""Speech: one class per clip of sound. It is classification with waveforms as inputs, which attacks perturb."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ltsd.attacks.domains import SOUND
from ltsd.data.batches import Split
from ltsd.tasks import classification

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_CLIPS = 6


def radius(by_class: Tensor, labels: Tensor) -> Tensor:
    """Return [B, 1, 1]: every sample of a clip has the radius of its class."""
    return by_class[labels].view(-1, 1, 1)


def show_attacked(
    model: nn.Module, split: Split, class_names: Sequence[str], *, eps: float, step_size: float, steps: int
) -> "Figure":
    """Draw the first clip of each of the first classes; see `ltsd.clip_pictures.attacked_clips`."""
    from ltsd.clip_pictures import attacked_clips

    inputs, labels = split.first_of_each_class(SHOWN_CLIPS)
    return attacked_clips(model, inputs, labels, class_names, eps=eps, step_size=step_size, steps=steps)


def show_data(split: Split, class_names: Sequence[str]) -> "Figure":
    """Draw a few clips of every class; see `ltsd.clip_pictures.clip_grid`."""
    from ltsd.clip_pictures import clip_grid

    return clip_grid(split, class_names)


TASK = replace(
    classification.TASK,
    title="speech",
    kind="clip",
    target="a clip of sound",
    counted="clips",
    domain=SOUND,
    networks=("mel-resnet",),
    augmentations=("none", "shift-gain-noise", "spec-augment"),
    radius=radius,
    validate=partial(classification.validate, domain=SOUND),
    show_attacked=show_attacked,
    attacked_hint="waveform and spectrogram, clean and attacked with PGD-20, and the perturbation",
    show_data=show_data,
)
