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

if TYPE_CHECKING:  # who trains need not load what draws
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Scores:
    """The scores of a model on a split.

    `values` are fractions in [0, 1] by name, such as `robust_acc`; `per_class` are lists [C] by `clean` and `robust`;
    `unanswered` describes images whose answer is not finite, "" for none.
    """

    values: Mapping[str, float]
    per_class: Mapping[str, list[float]]
    unanswered: str


class Validation(Protocol):
    """Scores a model in eval mode; the random starts of its attacks are the same every time."""

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
    """Draws a few images of a split, the images that PGD on cross-entropy makes of them, and the answers to both."""

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
    """A loss that training minimises on the attacked images beside the method's, by its mean over K, and that the
    attack maximises beside its own, by its sum.

    Attributes:
        name: of the mean in the metrics.
        losses: (network that answers rows, images) -> losses [K].
    """

    name: str
    losses: Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """A kind of target, and all that follows from it.

    A method's loss is a function of a table of rows to be classified. A task says what the rows of a batch are.

    Attributes:
        title: how messages call it.
        kind: what its inputs are stored as, see `ltsd.data.units`.
        target: what has a label, in words.
        unit: the same as one word.
        measure: the last word of its scores: `acc` makes `val/robust_acc`.
        measure_title: what that is, for pictures.
        class_measure: the score of one class, for pictures.
        counted: what the training counts of classes count, for pictures.
        chunk: how many images are scored at a time.
        domain: what its inputs are, and which of them lie near each other.
        networks: the names of the networks that answer its rows.
        augmentations: those of `data.augmentation` that move its labels too.
        rows: (network, targets of a batch) -> the network that answers rows, images [B, ...] -> logits [R, C], and the
            labels of the rows, int64 [R]. Several batches in one, [k * B, ...], make [k * R, C], batch by batch.
        radius: (radius of every class [C], labels of a batch) -> the radius of each pixel, of a shape that broadcasts
            to the images.
        teacher_split: (training split, gamma, seed) -> D_B, the balanced training set of the teacher.
        validate: see `Validation`.
        validated: (steps of each attack) -> what its `robust_*` is, in words.
        show_attacked: see `AttackedPicture`.
        attacked_hint: what that picture shows, in words.
        show_data: (split, class names) -> a picture of a few images of every class.
        targets: (network in eval mode, clean images, labels) -> what the rows of a step are made of, the same for all
            that answers them; the labels themselves where no network is asked.
        row_counts: training counts of the classes [C] -> those of all that a row may be; their logarithms are the
            prior.
        extra: a loss beside the method's; None for none.
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
        """What its inputs are called: images, clips or texts."""
        return ITEMS[self.kind]
