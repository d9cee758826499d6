"""The exam of a finished model on the test set: FGSM, PGD, CW, LSA, corruptions, AutoAttack or AA-few; by class."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ltsd.answers import first_not_finite
from ltsd.attacks.autoattack import MEMBERS, Shard
from ltsd.attacks.losses import cross_entropy, cw_margin, scaled_cross_entropy
from ltsd.config import AttackConfig
from ltsd.data.batches import Split
from ltsd.data.longtail import Groups
from ltsd.evaluation.correctness import fingerprint_of, read_correctness, write_correctness
from ltsd.evaluation.ensembles import ENSEMBLE_METRIC, ENSEMBLE_TITLE, check_classes
from ltsd.evaluation.evaluate import (
    CHUNK,
    Accuracy,
    Correctness,
    clean_correctness,
    mean,
    pgd_correctness,
    unanswered,
    validation_metrics,
)
from ltsd.evaluation.gradient_masking import Signs, doubts, signs_of
from ltsd.evaluation.kept import kept
from ltsd.evaluation.medium import IMAGES, PGD_STEPS, SEED, Medium
from ltsd.evaluation.shards import Ensemble, OwnDisk, Part, Sharing
from ltsd.models.frozen import frozen

NOT_FINITE = "wrong"
"""How answers with NaN or infinity count. It is part of the fingerprint, because older files counted differently."""
PGD_LOSSES = {"pgd20": cross_entropy, "cw20": cw_margin, "ls20": scaled_cross_entropy}
TITLES = {"clean": "clean", "fgsm": "FGSM", "pgd20": "PGD-20", "cw20": "CW-20", "ls20": "LSA-20"}
PARTS: dict[str, Sequence[str]] = {"PGD-20": ("clean", "fgsm", "pgd20"), "CW-20": ("cw20",), "LSA-20": ("ls20",)}
"""The measurements for every kind of inputs, by the title of their part; see `parts_of`."""


@dataclass(frozen=True)
class ExamResult:
    """The results of an exam so far.

    Attributes:
        accuracies: by attack: `clean`, `fgsm`, `pgd20`, `cw20`, `ls20`, `corruption`, and `aa`, `apgd_ce_t` or `aafew`.
        correctness: the data behind them, by attack, by corruption and severity, and by member of the ensemble; for a
            member, an image is right if it withstood this member and all before it.
        doubts: sentences about answers that are not finite and about signs of gradient masking.
        left: the shards of the ensemble that other processes can attack now: those of the current round after the shard
            that this process attacks next.
        medium: the kind of inputs.
        radius: the meaning of eps for the inputs in words, or "".
    """

    accuracies: dict[str, Accuracy]
    correctness: Mapping[str, Correctness]
    doubts: tuple[str, ...]
    left: tuple[str, ...] = ()
    medium: Medium = IMAGES
    radius: str = ""

    @classmethod
    def of(
        cls,
        correctness: Mapping[str, Correctness],
        signs: Signs,
        groups: Groups,
        ensemble: str,
        broken: str,
        left: Sequence[Shard],
        medium: Medium,
    ) -> "ExamResult":
        """Return the result of an exam with `ensemble` from the correctness so far.

        Args:
            broken: the first weight or statistic of the network that is not finite; "" for none.
            left: see `ExamResult`.
            medium: the kind of inputs.
        """
        found = {name: Accuracy.of(one, groups) for name, one in correctness.items()}
        accuracies = {name: found[name] for name in TITLES if name in found}
        titled = {TITLES[name]: accuracy.balanced for name, accuracy in accuracies.items() if name != "clean"}
        accuracies |= {name: found[name] for name in medium.own if name in found}
        corrupted = [found[variant] for variant in medium.variants if variant in found]
        if corrupted:
            accuracies["corruption"] = Accuracy.mean_of(corrupted)
        for member in MEMBERS.get(ensemble, ()):
            if member in found:
                accuracies[ENSEMBLE_METRIC[ensemble].removesuffix("_acc")] = found[member]
                titled[ENSEMBLE_TITLE[ensemble]] = found[member].balanced
        told = unanswered(correctness.values(), f"test {medium.items}")
        first = [f"{told}: these count as wrong"] if told else []
        first += [f"{broken} of the network is not finite"] if broken else []
        return cls(accuracies, correctness, (*first, *doubts(titled, signs)), tuple(map(str, left)), medium)

    @property
    def images(self) -> int:
        """The number of test images."""
        return len(self.correctness["clean"].labels)

    @property
    def measured(self) -> int:
        """The number of measurements of the whole test set so far."""
        return len(self.correctness)

    @property
    def diverged(self) -> str:
        """A description of images whose answer is not finite; "" for none."""
        return unanswered(self.correctness.values(), f"test {self.medium.items}")

    def values(self) -> dict[str, float]:
        """The metrics `test/*`; head, medium, tail and worst class are under PGD-20, as robust_acc is."""
        metrics = validation_metrics(self.accuracies["clean"], self.accuracies["pgd20"])
        for name, accuracy in self.accuracies.items():
            if name != "clean":
                metrics |= {
                    f"{name}_acc": accuracy.balanced,
                    f"tail_{name}_acc": accuracy.group("tail"),
                }
        if corruption := self.accuracies.get("corruption"):
            metrics |= {f"{group}_corruption_acc": corruption.group(group) for group in corruption.groups}
        return {f"test/{name}": value for name, value in metrics.items()}

    def per_class(self) -> dict[str, list[float]]:
        """Recalls by attack."""
        return {name: list(accuracy.per_class) for name, accuracy in self.accuracies.items()}

    def corruptions(self) -> dict[str, list[float]]:
        """Class-balanced accuracy under every corruption, by severity from 1 to 5."""
        levels: dict[str, list[float]] = {}
        for variant, (name, _) in self.medium.variants.items():
            if variant in self.correctness:
                levels.setdefault(name, []).append(mean(self.correctness[variant].per_class()))
        return levels

    def as_json(self) -> dict[str, Any]:
        """Everything but the correctness, as plain values; of each corruption the accuracy at the severities 1 to 5."""
        groups = {name: list(classes) for name, classes in self.accuracies["clean"].groups.items()}
        return {
            "images": self.images,
            "groups": groups,
            "metrics": self.values(),
            "per_class": self.per_class(),
            "corruptions": self.corruptions(),
            "doubts": list(self.doubts),
            "radius": self.radius,
        }


def examine(
    model: nn.Module,
    test: Split,
    groups: Groups,
    attack: AttackConfig,
    ensemble: str,
    *,
    keep: Path | None = None,
    blocks: NDArray[np.int64] | None = None,
    sharing: Sharing | None = None,
    medium: Medium = IMAGES,
) -> Iterator[tuple[str, ExamResult]]:
    """Examine a model in eval mode; the seeds and batches are fixed, so that two exams can be compared.

    While the ensemble attacks, other processes may attack shards of it (`attack_shard`). The result is the same to the
    bit.

    Args:
        model: inputs [B, ...] -> logits.
        test: on the model's device.
        groups: the classes by their training counts.
        attack: eps and step size; the steps are those of the attacks here.
        ensemble: `standard` for AutoAttack, `apgd-ce+t` for its first half, `aafew` for AA-few, `none`.
        keep: Parquet file of the correctness, written after every part. Results of the same exam in it are reused, and
            only the missing ones are measured; the result is the same to the bit. The shards of the ensemble are files
            beside it until they are joined.
        blocks: [N], equal for test images that a bootstrap draws together; kept with the correctness.
        sharing: how files reach the processes that attack shards; None if these see the same folder.
        medium: the kind of inputs.

    Yields:
        (title of the part that was just done, the results so far): the parts in the order of `parts_of`, then the
        shards and members of the ensemble. The last result is complete.

    Raises:
        UserError: AutoAttack of fewer than 4 classes, or AA-few of more than 3.
    """
    check_classes(ensemble, test.num_classes)
    fingerprint = exam_fingerprint(model, test, attack)
    together = None if blocks is None else torch.from_numpy(blocks)
    known = kept(keep, fingerprint, together, read_correctness, write_correctness)
    broken = first_not_finite(model.state_dict())
    model = frozen(model)
    signs, answers = signs_of(model, test, medium.domain), dict[str, Correctness]()
    attacks = Ensemble(ensemble, model, test, medium.domain, attack.eps, SEED, keep, fingerprint, sharing or OwnDisk())

    def parts() -> Iterator[Part]:
        yield from _parts(model, test, attack, known, medium)
        if ensemble != "none":
            yield from attacks.parts(answers["clean"].right, known)

    radius = medium.radius(test, attack.eps)
    for title, correctness, left in parts():
        answers |= {name: replace(one, blocks=together) for name, one in correctness.items()}
        if keep is not None and not correctness.keys() <= known.keys():
            write_correctness(keep, known | answers, fingerprint)
        yield title, replace(ExamResult.of(dict(answers), signs, groups, ensemble, broken, left, medium), radius=radius)
    attacks.drop_shards()


def attack_shard(
    model: nn.Module,
    test: Split,
    attack: AttackConfig,
    ensemble: str,
    name: str,
    *,
    keep: Path,
    sharing: Sharing,
    medium: Medium = IMAGES,
) -> None:
    """Attack a shard of an exam that another process runs; write its file beside the correctness file, atomically.

    Do nothing if the exam has not reached the round of the shard.

    Args:
        model: see `examine`.
        test: on the model's device.
        attack: eps and step size.
        ensemble: of the exam.
        name: of the shard, from `ExamResult.left`.
        keep: file of the correctness so far.
        sharing: how files reach the process that runs the exam.
        medium: the kind of inputs.
    """
    fingerprint = exam_fingerprint(model, test, attack)
    sharing.bring(keep)
    known, of_file = read_correctness(keep)
    if of_file == fingerprint:
        own = Ensemble(ensemble, frozen(model), test, medium.domain, attack.eps, SEED, keep, fingerprint, sharing)
        own.attack(name, known)


def exam_fingerprint(model: nn.Module, test: Split, attack: AttackConfig) -> str:
    """Return what identifies an exam of a model, see `fingerprint_of`."""
    versions = [version(package) for package in ("torch", "torchvision", "pyautoattack")]
    conditions = [attack.eps, attack.resolved_step_size, PGD_STEPS, SEED, CHUNK, test.rows.device.type, NOT_FINITE]
    return fingerprint_of(model, test, [*conditions, *versions])


def parts_of(medium: Medium) -> dict[str, Sequence[str]]:
    """Return the names of the measurements of every part, by its title, in order."""
    own = {title: names for title, (names, _) in medium.more.items()}
    return {**PARTS, **own, **({"corruptions": tuple(medium.variants)} if medium.variants else {})}


def _parts(
    model: nn.Module, test: Split, attack: AttackConfig, known: Mapping[str, Correctness], medium: Medium
) -> Iterator[Part]:
    """Yield the correctness of every part in order; parts that are known are not measured again."""
    eps = attack.eps
    measures: dict[str, Callable[[], Correctness]] = {
        "clean": partial(clean_correctness, model, test),
        "fgsm": partial(pgd_correctness, model, test, domain=medium.domain, eps=eps, step_size=eps, steps=1, seed=None),
    }
    for name, loss in PGD_LOSSES.items():
        measures[name] = partial(
            pgd_correctness,
            model,
            test,
            domain=medium.domain,
            eps=eps,
            step_size=attack.resolved_step_size,
            steps=PGD_STEPS,
            seed=SEED,
            loss=loss,
        )
    for variant in medium.variants:
        measures[variant] = partial(medium.corrupted, model, test, variant, seed=SEED)
    for title, names in parts_of(medium).items():
        if title in medium.more and not known.keys() >= set(names):
            yield title, medium.more[title][1](model, test), ()
        else:
            yield title, {name: known[name] if name in known else measures[name]() for name in names}, ()
