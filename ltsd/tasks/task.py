"""The definition of a task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

from ltsd.attacks.domains import Domain
from ltsd.config import AttackConfig
from ltsd.data.batches import Split
from ltsd.data.longtail import Groups
from ltsd.data.units import ITEMS, Kind, Unit

if TYPE_CHECKING:  # training does not need matplotlib
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Scores:
    """The scores of a model on a split.

    `values` are fractions in [0, 1] by name, such as `robust_acc`; `per_class` are lists [C] by `clean` and `robust`;
    `unanswered` says how many images have an answer that is not finite, "" for none.
    """

    values: Mapping[str, float]
    per_class: Mapping[str, list[float]]
    unanswered: str


class Validation(Protocol):
    """Scores a model in eval mode; the random starts of its attacks are the same in every call."""

    def __call__(self, model: nn.Module, split: Split, groups: Groups, attack: AttackConfig, *, steps: int) -> Scores:
        """Return the scores of a split.

        Args:
            model: images [B, C, H, W] in [0, 1] -> logits.
            split: images and labels, on the model's device.
            groups: the classes by their training counts.
            attack: radius and step size.
            steps: of each attack.
        """


class AttackedPicture(Protocol):
    """Draws a few images of a split, clean and attacked by PGD on cross-entropy, with the answers to both."""

    def __call__(
        self, model: nn.Module, split: Split, class_names: Sequence[str], *, eps: float, step_size: float, steps: int
    ) -> "Figure":
        """Return the picture.

        Args:
            model: images [B, C, H, W] in [0, 1] -> logits.
            split: images and labels, on the model's device.
            class_names: in label order.
            eps: radius, in units of the image range [0, 1].
            step_size: length of a step, in the same units.
            steps: gradient steps.
        """


@dataclass(frozen=True)
class ExtraLoss:
    """A loss on the attacked images that is added to the method's: training minimises its mean over K, and the attack
    maximises its sum.

    Attributes:
        name: of the mean in the metrics.
        losses: (network made by `Task.rows`, images) -> losses [K].
    """

    name: str
    losses: Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """A kind of target, and everything that depends on it.

    A method's loss classifies rows. A task defines the rows of a batch, such as images, pixels or locations.

    Attributes:
        title: its name in messages.
        kind: the kind of its inputs, see `ltsd.data.units`.
        target: what has a label, in words.
        unit: the same in one word.
        measure: the last word in the names of its scores: `acc` makes `val/robust_acc`.
        measure_title: the name of that measure in pictures.
        class_measure: the name of the score of one class in pictures.
        counted: the items that the training counts of the classes count, for pictures.
        chunk: how many images are scored at a time.
        domain: the threat model of its inputs.
        networks: the names of the networks that can do it.
        augmentations: the values of `data.augmentation` that fit its inputs and labels.
        rows: (network, targets of a batch) -> a network from images [B, ...] to the logits of the rows, [R, C], and the
            labels of the rows, int64 [R]. An input of k batches, [k * B, ...], gives [k * R, C], batch by batch.
        radius: (radius of every class [C], labels of a batch) -> the radius of each pixel, of a shape that broadcasts
            to the images.
        teacher_split: (training split, gamma, seed) -> D_B, the balanced training set of the teacher.
        validate: see `Validation`.
        validated: (steps of each attack) -> a description of its `robust_*` in words.
        show_attacked: see `AttackedPicture`.
        attacked_hint: what that picture shows, in words.
        show_data: (split, class names) -> a picture of a few images of every class.
        targets: (network in eval mode, clean images, labels) -> the targets from which `rows` makes the rows of a step,
            the same for student and teacher; by default the labels.
        row_counts: training counts of the classes [C] -> the same for all classes of a row, with a background if there
            is one; their logarithms are the prior.
        extra: a loss that is added to the method's; None for none.
    """

    title: str
    kind: Kind
    target: str
    unit: Unit
    measure: str
    measure_title: str
    class_measure: str
    counted: str
    chunk: int
    domain: Domain
    networks: Sequence[str]
    augmentations: Sequence[str]
    rows: Callable[[nn.Module, Tensor], tuple[nn.Module, Tensor]]
    radius: Callable[[Tensor, Tensor], Tensor]
    teacher_split: Callable[[Split, float, int], Split]
    validate: Validation
    validated: Callable[[int], str]
    show_attacked: AttackedPicture
    attacked_hint: str
    show_data: Callable[[Split, Sequence[str]], "Figure"]
    targets: Callable[[nn.Module, Tensor, Tensor], Tensor] = lambda network, inputs, labels: labels
    row_counts: Callable[[Tensor], Tensor] = lambda counts: counts
    extra: ExtraLoss | None = None

    @property
    def items(self) -> str:
        """The name of its inputs: images, clips or texts."""
        return ITEMS[self.kind]
