"""What an exam of classes has to know of its inputs: where attacks live, what corrupts them, what else is measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from ltsd.attacks.domains import PIXELS, Range
from ltsd.attacks.domains import SOUND as WAVEFORMS
from ltsd.data.batches import Split
from ltsd.evaluation import corruptions, sound
from ltsd.evaluation.evaluate import Correctness

Measure = Callable[[nn.Module, Split], Correctness]
SEED = 0
PGD_STEPS = 20


@dataclass(frozen=True)
class Medium:
    """What inputs are.

    Attributes:
        items: what they are called.
        domain: where attacks live; AutoAttack attacks its range, mapped to [0, 1], and padding with it.
        variants: (corruption, severity) by the name of both.
        corrupted: (model, split, name of a variant, seed=) -> the correctness on corrupted inputs.
        more: what is measured beside the attacks of every exam, by name.
        titles: how tables and pictures call that, by name.
    """

    items: str
    domain: Range
    variants: Mapping[str, tuple[str, int]]
    corrupted: Callable[..., Correctness]
    more: Mapping[str, Measure] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)


IMAGES = Medium("images", PIXELS, corruptions.VARIANTS, corruptions.corruption_correctness)
SOUND = Medium(
    "clips",
    WAVEFORMS,
    sound.VARIANTS,
    sound.corruption_correctness,
    more={name: partial(sound.ratio_correctness, name=name, steps=PGD_STEPS, seed=SEED) for name in sound.RATIOS},
    titles={name: f"PGD-{PGD_STEPS} at {ratio:g} dB" for name, ratio in sound.RATIOS.items()},
)
