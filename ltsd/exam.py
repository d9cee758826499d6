"""The exam of a finished model on the test set: clean, FGSM, PGD-20 and AutoAttack, for every class."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ltsd.attacks.autoattack import autoattack
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

PGD_STEPS = 20
SEED = 0
ENSEMBLE_METRIC = {"standard": "aa_acc", "apgd-ce+t": "apgd_ce_t_acc"}
ENSEMBLE_TITLE = {"standard": "AutoAttack", "apgd-ce+t": "APGD-CE+T"}


@dataclass(frozen=True)
class ExamResult:
    """Accuracies by attack (`clean`, `fgsm`, `pgd20`, and `aa` or `apgd_ce_t`) of `images` test images."""

    accuracies: dict[str, Accuracy]
    images: int
    num_classes: int

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
        """Everything, as plain values."""
        groups = {name: list(classes) for name, classes in self.accuracies["clean"].groups.items()}
        return {
            "images": self.images,
            "groups": groups,
            "metrics": self.values(),
            "per_class": self.per_class(),
        }


def examine(
    model: nn.Module, test: Split, class_counts: list[int], attack: AttackConfig, ensemble: str
) -> Iterator[tuple[str, ExamResult]]:
    """Examine a model in eval mode; the seeds and batches are fixed, so that two exams can be compared.

    Args:
        model: [B, C, H, W] in [0, 1] -> logits.
        test: on the model's device.
        class_counts: the training images of each class, which make head, medium and tail.
        attack: eps and step size; the steps are those of the attacks here.
        ensemble: `standard` for AutoAttack, `apgd-ce+t` for its first half, `none`.

    Yields:
        (what was just done, the results so far); the last result is complete.
    """
    if ensemble != "none" and test.num_classes < 4:
        raise UserError(
            f"{ENSEMBLE_TITLE[ensemble]} needs at least 4 classes and there are {test.num_classes}; choose none"
        )
    eps, accuracies = attack.eps, dict[str, Accuracy]()

    def so_far(name: str, verdicts: Verdicts) -> ExamResult:
        accuracies[name] = Accuracy.of(verdicts, class_counts)
        return ExamResult(dict(accuracies), len(test), test.num_classes)

    so_far("clean", clean_verdicts(model, test))
    so_far("fgsm", pgd_verdicts(model, test, eps=eps, step_size=eps, steps=1, seed=None))
    pgd20 = pgd_verdicts(model, test, eps=eps, step_size=attack.step, steps=PGD_STEPS, seed=SEED)
    result = so_far("pgd20", pgd20)
    yield "PGD-20", result
    if ensemble == "none":
        return
    labels = test.labels[test.rows]
    inputs = torch.cat([inputs for inputs, _ in test.chunks(CHUNK)])
    name = ENSEMBLE_METRIC[ensemble].removesuffix("_acc")
    for member, standing in autoattack(model, inputs, labels, eps=eps, version=ensemble, seed=SEED, batch_size=CHUNK):
        verdicts = Verdicts(standing.cpu(), labels.cpu(), test.num_classes)
        yield f"{ENSEMBLE_TITLE[ensemble]} {member}", so_far(name, verdicts)
