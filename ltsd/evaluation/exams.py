"""The exam of every task, their common interface, and the titles of their numbers in tables."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from ltsd.config import AttackConfig
from ltsd.data import Splits
from ltsd.data.batches import Split
from ltsd.evaluation import box_exam, ensembles, exam, map_exam
from ltsd.evaluation.comparison import Difference, paired_difference, paired_overlap
from ltsd.evaluation.correctness import read_correctness
from ltsd.evaluation.edits import BUDGETS
from ltsd.evaluation.hits import paired_precision
from ltsd.evaluation.medium import SOUND, TEXTS
from ltsd.evaluation.shards import Sharing


class Measured(Protocol):
    """A score of every class under one attack, in [0, 1]: a recall, an IoU or an average precision."""

    @property
    def per_class(self) -> tuple[float, ...]:
        """The score of every class."""

    @property
    def groups(self) -> Mapping[str, Sequence[int]]:
        """Head, medium and tail."""

    @property
    def balanced(self) -> float:
        """The mean over classes."""

    def group(self, name: str) -> float:
        """Return the mean over the classes of one of `groups`."""


class Examined(Protocol):
    """The result of an exam so far: scores by attack, and reasons to doubt them."""

    @property
    def accuracies(self) -> Mapping[str, Measured]:
        """Scores by attack."""

    @property
    def doubts(self) -> tuple[str, ...]:
        """The reasons to doubt the numbers, one sentence each."""

    @property
    def images(self) -> int:
        """The number of test images."""

    @property
    def measured(self) -> int:
        """The number of measurements of the whole test set so far."""

    @property
    def left(self) -> Sequence[str]:
        """The names of the shards that other processes can attack now."""

    @property
    def diverged(self) -> str:
        """A description of images whose answer is not finite; "" for none."""

    def values(self) -> dict[str, float]:
        """Return the metrics `test/*`, fractions in [0, 1]."""

    def per_class(self) -> dict[str, list[float]]:
        """Return the scores of every class by attack."""

    def as_json(self) -> dict[str, Any]:
        """Return all results to record, as plain values."""


class Comparison(Protocol):
    """Compares models on the same test images; see `ltsd.evaluation.comparison`."""

    def __call__(
        self, ours: Sequence[Any], theirs: Sequence[Any], *, classes: Sequence[int] | None, seed: int
    ) -> Difference:
        """Return the mean difference of the balanced score, ours minus theirs, with its interval."""


@dataclass(frozen=True)
class Exam:
    """The exam of a task, and the titles of its numbers.

    Attributes:
        examine: called as `ltsd.evaluation.exam.examine`, but without `sharing` if the exam has no shards.
        attack_shard: called as `ltsd.evaluation.exam.attack_shard`; None if the exam has no shards.
        check: (ensemble, number of classes) -> None; raises a UserError if the ensemble cannot attack such a model.
        ensembles: (number of classes) -> the default ensembles of a sweep's finalist and of its references.
        fingerprint: (model, test split, attack) -> what identifies the exam.
        read: (file that `examine` kept) -> the measurements by attack, and the fingerprint; raises a UserError.
        compare: compares the measurements of two models under an attack.
        score: the name of its scores.
        mean_score: the name of their means over classes.
        attacks: titles by attack, the weakest first.
        columns: metrics by the title of their column.
        shown: the columns of a short table.
        clean: the columns of clean images, of all classes and of the tail.
        robust: the columns under attacks, of all classes and of the tail, the strongest attack first.
        leads: the columns of differences between models, each with the attack and the group of classes, "" for all.
    """

    examine: Callable[..., Iterator[tuple[str, Examined]]]
    attack_shard: Callable[..., None] | None
    check: Callable[[str, int], None]
    ensembles: Callable[[int | None], tuple[str, str]]
    fingerprint: Callable[[nn.Module, Split, AttackConfig], str]
    read: Callable[[Path], tuple[Mapping[str, Any], str]]
    compare: Comparison
    score: str
    mean_score: str
    attacks: Mapping[str, str]
    columns: Mapping[str, str]
    shown: Sequence[str]
    clean: tuple[str, str]
    robust: Sequence[tuple[str, str]]
    leads: Mapping[str, tuple[str, str]]

    def on(self, splits: Splits, sharing: Sharing | None = None) -> Callable[..., Iterator[tuple[str, Examined]]]:
        """Return `examine` with the blocks of the test images; `sharing` as in `ltsd.evaluation.exam.examine`."""
        shared = {} if self.attack_shard is None else {"sharing": sharing}
        return partial(self.examine, blocks=splits.test_blocks, **shared)


CLASSIFICATION = Exam(
    examine=exam.examine,
    attack_shard=exam.attack_shard,
    check=ensembles.check_classes,
    ensembles=ensembles.usual_ensembles,
    fingerprint=exam.exam_fingerprint,
    read=read_correctness,
    compare=paired_difference,
    score="accuracies",
    mean_score="class-balanced accuracy",
    attacks=exam.TITLES,
    columns={
        "clean": "test/clean_acc",
        "tail clean": "test/tail_clean_acc",
        "PGD-20": "test/pgd20_acc",
        "head PGD-20": "test/head_robust_acc",
        "medium PGD-20": "test/medium_robust_acc",
        "tail PGD-20": "test/tail_robust_acc",
        "worst class PGD-20": "test/worst_class_robust_acc",
        "CW-20": "test/cw20_acc",
        "LSA-20": "test/ls20_acc",
        "corruption": "test/corruption_acc",
        "tail corruption": "test/tail_corruption_acc",
        "AutoAttack": "test/aa_acc",
        "tail AA": "test/tail_aa_acc",
        "APGD-CE+T": "test/apgd_ce_t_acc",
        "AA-few": "test/aafew_acc",
        "tail AA-few": "test/tail_aafew_acc",
    },
    shown=(
        *("clean", "tail clean", "PGD-20", "tail PGD-20", "CW-20", "corruption"),
        *("AutoAttack", "tail AA", "APGD-CE+T", "AA-few", "tail AA-few"),
    ),
    clean=("clean", "tail clean"),
    robust=(("AutoAttack", "tail AA"), ("AA-few", "tail AA-few"), ("PGD-20", "tail PGD-20")),
    leads={
        "clean": ("clean", ""),
        "tail clean": ("clean", "tail"),
        "PGD-20": ("pgd20", ""),
        "tail PGD-20": ("pgd20", "tail"),
        # Square is the last attack of AutoAttack and of AA-few.
        "AutoAttack": ("square", ""),
        "tail AA": ("square", "tail"),
        "AA-few": ("aafew-square", ""),
        "tail AA-few": ("aafew-square", "tail"),
    },
)
WORST = map_exam.TITLES[map_exam.WORST]
SEGMENTATION = Exam(
    examine=map_exam.examine_maps,
    attack_shard=None,
    check=map_exam.check_ensemble,
    ensembles=lambda _: ("none", "none"),
    fingerprint=map_exam.exam_fingerprint,
    read=map_exam.read_exam,
    compare=paired_overlap,
    score="IoU",
    mean_score="mean IoU over classes",
    attacks=map_exam.TITLES,
    columns={
        "clean": "test/clean_miou",
        "tail clean": "test/tail_clean_miou",
        "PGD-20": "test/pgd20_miou",
        "SegPGD-20": "test/segpgd20_miou",
        WORST: "test/robust_miou",
        f"head {WORST}": "test/head_robust_miou",
        f"medium {WORST}": "test/medium_robust_miou",
        f"tail {WORST}": "test/tail_robust_miou",
        "worst class": "test/worst_class_robust_miou",
        "corruption": "test/corruption_miou",
        "tail corruption": "test/tail_corruption_miou",
    },
    shown=("clean", "tail clean", "PGD-20", WORST, f"tail {WORST}", "corruption"),
    clean=("clean", "tail clean"),
    robust=((WORST, f"tail {WORST}"),),
    leads={
        "clean": ("clean", ""),
        "tail clean": ("clean", "tail"),
        "PGD-20": ("pgd20", ""),
        WORST: (map_exam.WORST, ""),
        f"tail {WORST}": (map_exam.WORST, "tail"),
    },
)
LOWEST = box_exam.TITLES[box_exam.WORST]
DETECTION = Exam(
    examine=box_exam.examine_boxes,
    attack_shard=None,
    check=box_exam.check_ensemble,
    ensembles=lambda _: ("none", "none"),
    fingerprint=box_exam.exam_fingerprint,
    read=box_exam.read_exam,
    compare=paired_precision,
    score="AP50",
    mean_score="mean AP50 over classes",
    attacks=box_exam.TITLES,
    columns={
        "clean": "test/clean_map50",
        "tail clean": "test/tail_clean_map50",
        "PGD-20": "test/pgd20_map50",
        "box-20": "test/box20_map50",
        "both-20": "test/both20_map50",
        LOWEST: "test/robust_map50",
        f"head {LOWEST}": "test/head_robust_map50",
        f"medium {LOWEST}": "test/medium_robust_map50",
        f"tail {LOWEST}": "test/tail_robust_map50",
        "worst class": "test/worst_class_robust_map50",
        "corruption": "test/corruption_map50",
        "tail corruption": "test/tail_corruption_map50",
    },
    shown=("clean", "tail clean", "PGD-20", LOWEST, f"tail {LOWEST}", "corruption"),
    clean=("clean", "tail clean"),
    robust=((LOWEST, f"tail {LOWEST}"),),
    leads={
        "clean": ("clean", ""),
        "tail clean": ("clean", "tail"),
        "PGD-20": ("pgd20", ""),
        LOWEST: (box_exam.WORST, ""),
        f"tail {LOWEST}": (box_exam.WORST, "tail"),
    },
)
SPEECH = replace(
    CLASSIFICATION,
    examine=partial(exam.examine, medium=SOUND),
    attack_shard=partial(exam.attack_shard, medium=SOUND),
    attacks={**exam.TITLES, **SOUND.titles},
    columns={**CLASSIFICATION.columns, **{title: f"test/{name}_acc" for name, title in SOUND.titles.items()}},
    shown=(*CLASSIFICATION.shown[:-3], *SOUND.titles.values(), *CLASSIFICATION.shown[-3:]),
)
TEXT_COLUMNS = (
    *("clean", "tail clean", "PGD-20", "head PGD-20", "medium PGD-20", "tail PGD-20", "worst class PGD-20"),
    *("CW-20", "LSA-20"),
)
EDITS = {name: f"edit-{budget}" for name, budget in BUDGETS.items()}
TEXT = replace(
    CLASSIFICATION,
    examine=partial(exam.examine, medium=TEXTS),
    attack_shard=None,
    check=ensembles.check_none,
    ensembles=lambda _: ("none", "none"),
    attacks={**exam.TITLES, **TEXTS.titles},
    columns={
        **{title: name for title, name in CLASSIFICATION.columns.items() if title in TEXT_COLUMNS},
        **{title: f"test/{name}_acc" for name, title in EDITS.items()},
        **{f"tail {title}": f"test/tail_{name}_acc" for name, title in EDITS.items()},
    },
    shown=("clean", "tail clean", "PGD-20", "tail PGD-20", "CW-20", *EDITS.values(), f"tail {EDITS['edit2']}"),
    robust=((EDITS["edit2"], f"tail {EDITS['edit2']}"), ("PGD-20", "tail PGD-20")),
    leads={title: lead for title, lead in CLASSIFICATION.leads.items() if title in TEXT_COLUMNS}
    | {EDITS["edit2"]: ("edit2", ""), f"tail {EDITS['edit2']}": ("edit2", "tail")},
)
EXAMS: Mapping[str, Exam] = {
    "classification": CLASSIFICATION,
    "segmentation": SEGMENTATION,
    "detection": DETECTION,
    "speech": SPEECH,
    "text": TEXT,
}
"""By task."""
