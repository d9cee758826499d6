"""The exam of a finished model on the test set: clean, FGSM, PGD-20, CW-20, LSA-20 and AutoAttack, for every class."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ltsd.attacks.autoattack import MEMBERS, autoattack
from ltsd.attacks.losses import cross_entropy, cw_margin, scaled_cross_entropy
from ltsd.config import AttackConfig
from ltsd.data.batches import Split
from ltsd.errors import UserError
from ltsd.evaluate import (
    CHUNK,
    Accuracy,
    Verdicts,
    clean_verdicts,
    pgd_verdicts,
    validation_metrics,
)
from ltsd.verdicts import fingerprint_of, verdicts_kept, write_verdicts

PGD_STEPS = 20
SEED = 0
PGD_LOSSES = {"pgd20": cross_entropy, "cw20": cw_margin, "ls20": scaled_cross_entropy}
TITLES = {"clean": "clean", "fgsm": "FGSM", "pgd20": "PGD-20", "cw20": "CW-20", "ls20": "LSA-20"}
ENSEMBLE_METRIC = {"standard": "aa_acc", "apgd-ce+t": "apgd_ce_t_acc"}
ENSEMBLE_TITLE = {"standard": "AutoAttack", "apgd-ce+t": "APGD-CE+T"}


@dataclass(frozen=True)
class ExamResult:
    """Accuracies by attack (`clean`, `fgsm`, `pgd20`, `cw20`, `ls20`, and `aa` or `apgd_ce_t`) of `images` test images.

    `verdicts` are what they are made of, by attack; of the ensemble those of its members so far, each of which says
    who is still right after it and all before it.
    """

    accuracies: dict[str, Accuracy]
    images: int
    num_classes: int
    verdicts: Mapping[str, Verdicts]

    @classmethod
    def of(cls, verdicts: Mapping[str, Verdicts], class_counts: list[int], ensemble: str) -> "ExamResult":
        """The accuracies of an exam with `ensemble`, by verdicts in the order in which they were given."""
        accuracies: dict[str, Accuracy] = {}
        for name, one in verdicts.items():
            shown = name if name in TITLES else ENSEMBLE_METRIC[ensemble].removesuffix("_acc")
            accuracies[shown] = Accuracy.of(one, class_counts)
        clean = verdicts["clean"]
        return cls(accuracies, len(clean.labels), clean.num_classes, dict(verdicts))

    def values(self) -> dict[str, float]:
        """The metrics `test/*`; head, medium, tail and worst class are under PGD-20, as robust_acc is."""
        metrics = validation_metrics("test", self.accuracies["clean"], self.accuracies["pgd20"])
        for name, accuracy in self.accuracies.items():
            if name != "clean":
                metrics |= {
                    f"test/{name}_acc": accuracy.balanced,
                    f"test/tail_{name}_acc": accuracy.group("tail"),
                }
        return metrics

    def per_class(self) -> dict[str, list[float]]:
        """Recalls by attack."""
        return {name: list(accuracy.per_class) for name, accuracy in self.accuracies.items()}

    def as_json(self) -> dict[str, Any]:
        """Everything but the verdicts, as plain values."""
        groups = {name: list(classes) for name, classes in self.accuracies["clean"].groups.items()}
        return {
            "images": self.images,
            "groups": groups,
            "metrics": self.values(),
            "per_class": self.per_class(),
        }


def examine(
    model: nn.Module,
    test: Split,
    class_counts: list[int],
    attack: AttackConfig,
    ensemble: str,
    *,
    keep: Path | None = None,
) -> Iterator[tuple[str, ExamResult]]:
    """Examine a model in eval mode; the seeds and batches are fixed, so that two exams can be compared.

    Args:
        model: [B, C, H, W] in [0, 1] -> logits.
        test: on the model's device.
        class_counts: the training images of each class, which make head, medium and tail.
        attack: eps and step size; the steps are those of the attacks here.
        ensemble: `standard` for AutoAttack, `apgd-ce+t` for its first half, `none`.
        keep: Parquet file of the verdicts, written after every part. Where it has some of this very exam already,
            they are taken from it, and the exam goes on with what is missing; the result is the same to the bit.

    Yields:
        (what was just done, the results so far), from PGD-20 on; the last result is complete.

    Raises:
        UserError: AutoAttack of fewer than 4 classes.
    """
    if ensemble != "none" and test.num_classes < 4:
        raise UserError(
            f"{ENSEMBLE_TITLE[ensemble]} needs at least 4 classes and there are {test.num_classes}; choose none"
        )
    fingerprint = fingerprint_of(model, test, _conditions(test, attack))
    known = verdicts_kept(keep, fingerprint) if keep is not None else {}
    answers: dict[str, Verdicts] = {}
    for name, verdicts in _measured(model, test, attack, ensemble, known):
        answers[name] = verdicts
        if keep is not None and name not in known:
            write_verdicts(keep, known | answers, fingerprint)
        if "pgd20" in answers:
            title = TITLES.get(name) or f"{ENSEMBLE_TITLE[ensemble]} {name}"
            yield title, ExamResult.of(answers, class_counts, ensemble)


def _conditions(test: Split, attack: AttackConfig) -> list[object]:
    versions = [version(package) for package in ("torch", "pyautoattack")]
    return [attack.eps, attack.step, PGD_STEPS, SEED, CHUNK, test.rows.device.type, *versions]


def _measured(
    model: nn.Module, test: Split, attack: AttackConfig, ensemble: str, known: Mapping[str, Verdicts]
) -> Iterator[tuple[str, Verdicts]]:
    """The verdicts of every attack in order, those known as they are."""
    eps = attack.eps
    measures: dict[str, Callable[[], Verdicts]] = {
        "clean": partial(clean_verdicts, model, test),
        "fgsm": partial(pgd_verdicts, model, test, eps=eps, step_size=eps, steps=1, seed=None),
    }
    for name, loss in PGD_LOSSES.items():
        measures[name] = partial(
            pgd_verdicts, model, test, eps=eps, step_size=attack.step, steps=PGD_STEPS, seed=SEED, loss=loss
        )
    for name, measure in measures.items():
        yield name, known[name] if name in known else measure()
    if ensemble == "none":
        return
    labels = test.labels[test.rows]
    inputs = torch.cat([inputs for inputs, _ in test.chunks(CHUNK)])
    done = {member: known[member].right for member in MEMBERS[ensemble] if member in known}
    for member, standing in autoattack(
        model, inputs, labels, eps=eps, version=ensemble, seed=SEED, batch_size=CHUNK, known=done
    ):
        yield member, Verdicts(standing.cpu(), labels.cpu(), test.num_classes)
