"""What the exam of a classifier needs to know about its inputs: threat model, corruptions and further measurements."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from ltsd.attacks.domains import PIXELS, WORDS, Domain
from ltsd.attacks.domains import SOUND as WAVEFORMS
from ltsd.attacks.edits import CANDIDATES
from ltsd.data.batches import Split
from ltsd.data.units import ITEMS
from ltsd.evaluation import corruptions, edits, sound
from ltsd.evaluation.evaluate import Correctness

Measure = Callable[[nn.Module, Split], dict[str, Correctness]]
SEED = 0
PGD_STEPS = 20


@dataclass(frozen=True)
class Medium:
    """A kind of inputs.

    Attributes:
        items: their name, such as images.
        domain: the threat model. For AutoAttack a `Range` is mapped to [0, 1], and the padding is attacked too.
        variants: (corruption, severity) by the name of both; {} for none.
        corrupted: (model, split, name of a variant, seed=) -> the correctness on corrupted inputs.
        more: further parts of the exam by title: the names of their measurements, and (model, split) -> the correctness
            by these names.
        titles: the titles of these measurements in tables and pictures, by name.
        radius: (split, eps) -> the meaning of eps for these inputs in words; "" if it needs no explanation.
    """

    items: str
    domain: Domain
    variants: Mapping[str, tuple[str, int]]
    corrupted: Callable[..., Correctness]
    more: Mapping[str, tuple[Sequence[str], Measure]] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    radius: Callable[[Split, float], str] = lambda split, eps: ""

    @property
    def own(self) -> list[str]:
        """The names of all measurements of `more`, in order."""
        return [name for names, _ in self.more.values() for name in names]


AT_RATIOS = {name: f"PGD-{PGD_STEPS} at {ratio:g} dB" for name, ratio in sound.RATIOS.items()}

IMAGES = Medium(ITEMS["image"], PIXELS, corruptions.VARIANTS, corruptions.corruption_correctness)
SOUND = Medium(
    ITEMS["clip"],
    WAVEFORMS,
    sound.VARIANTS,
    sound.corruption_correctness,
    more={
        title: ((name,), partial(sound.ratio_correctness, name=name, steps=PGD_STEPS, seed=SEED))
        for name, title in AT_RATIOS.items()
    },
    titles=AT_RATIOS,
    radius=sound.radius_in_decibels,
)
TEXTS = Medium(
    ITEMS["text"],
    WORDS,
    {},
    corruptions.corruption_correctness,
    more={"edits": (tuple(edits.BUDGETS), partial(edits.edit_correctness, seed=SEED))},
    titles={name: f"edit-{budget} (greedy, {CANDIDATES} candidates)" for name, budget in edits.BUDGETS.items()},
)
