"""The exam of a finished detector on the test set: FGSM, three PGD attacks and the lowest of them, corruptions."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ltsd.config import AttackConfig
from ltsd.data.batches import Split
from ltsd.data.longtail import Groups
from ltsd.errors import UserError
from ltsd.evaluation.box_attacks import CHUNK, LOSSES, attacked_detections, class_loss, clean_detections
from ltsd.evaluation.correctness import fingerprint_of
from ltsd.evaluation.corruptions import VARIANTS, corrupted
from ltsd.evaluation.detections import PACKAGES, Detections, precision, true_boxes
from ltsd.evaluation.detections_on_disk import read_detections, write_detections
from ltsd.evaluation.ensembles import ENSEMBLE_TITLE
from ltsd.evaluation.evaluate import eval_mode, not_finite
from ltsd.evaluation.hits import Hits
from ltsd.evaluation.kept import kept
from ltsd.evaluation.pixels import Overlap, mean_overlap, overlap_metrics
from ltsd.models.frozen import frozen
from ltsd.packages import require

STEPS = 20
SEED = 0
ATTACKS = {"pgd20": "class", "box20": "box", "both20": "both"}
"""The losses of the attacks, see `ltsd.evaluation.box_attacks`."""
TITLES = {
    "clean": "clean",
    "fgsm": "FGSM",
    "pgd20": "PGD-20",
    "box20": "box-20",
    "both20": "both-20",
    "worst": "lowest of 3",
}

WORST = "worst"
TRUTH = "truth"
"""The name of the true boxes in a file of detections."""

Measures = dict[str, Callable[[], Detections]]


@dataclass(frozen=True)
class BoxExamResult:
    """The results of an exam so far.

    `accuracies` are AP50 by attack: `clean`, `fgsm`, the names in ATTACKS, `worst` (the attack in ATTACKS with the
    lowest mean) and `corruption`. `detections` are by attack, and by corruption and severity. `doubts` report answers
    that are not finite.
    """

    accuracies: dict[str, Overlap]
    detections: Mapping[str, Detections]
    doubts: tuple[str, ...]

    @classmethod
    def of(cls, scores: Mapping[str, Overlap], detections: Mapping[str, Detections]) -> "BoxExamResult":
        """Return the result of an exam from the scores so far."""
        known = {name: scores[name] for name in TITLES if name in scores}
        attacked = [scores[name] for name in ATTACKS if name in scores]
        if attacked:
            known[WORST] = min(attacked, key=lambda one: one.balanced)
        corrupted = [scores[variant] for variant in VARIANTS if variant in scores]
        if corrupted:
            known["corruption"] = mean_overlap(corrupted)
        found = cls(known, detections, ())
        return replace(found, doubts=(f"{found.diverged}: nothing counts as found there",) if found.diverged else ())

    @property
    def images(self) -> int:
        """The number of test images."""
        return len(self.detections["clean"].finite)

    @property
    def measured(self) -> int:
        """The number of measurements of the whole test set so far."""
        return len(self.detections)

    @property
    def left(self) -> tuple[str, ...]:
        """None: an exam of boxes has no shards."""
        return ()

    @property
    def diverged(self) -> str:
        """A description of images whose answer is not finite; "" for none."""
        finite = reduce(torch.logical_and, (one.finite for one in self.detections.values()))
        return not_finite(int((~finite).sum()), len(finite), "test images")

    def values(self) -> dict[str, float]:
        """The metrics `test/*`; `robust_map50` and its groups are those of `worst`."""
        metrics = overlap_metrics(self.accuracies["clean"], self.accuracies[WORST], "map50")
        for name, score in self.accuracies.items():
            if name != "clean":
                metrics |= {f"{name}_map50": score.balanced, f"tail_{name}_map50": score.group("tail")}
        return {f"test/{name}": value for name, value in metrics.items()}

    def per_class(self) -> dict[str, list[float]]:
        """AP50 by attack."""
        return {name: list(score.per_class) for name, score in self.accuracies.items()}

    def as_json(self) -> dict[str, Any]:
        """Everything but the detections, as plain values."""
        groups = {name: list(classes) for name, classes in self.accuracies["clean"].groups.items()}
        return {
            "images": self.images,
            "groups": groups,
            "metrics": self.values(),
            "per_class": self.per_class(),
            "doubts": list(self.doubts),
        }


def check_ensemble(ensemble: str, num_classes: int) -> None:
    """Check that no ensemble of attacks is requested, which needs one label per image, and that the packages for the
    average precision are installed.

    Raises:
        UserError: an ensemble is requested, or a package is missing.
    """
    if ensemble != "none":
        raise UserError(
            f"{ENSEMBLE_TITLE[ensemble]} needs one label per image, and the exam of boxes has three attacks of its "
            "own; choose none"
        )
    require(PACKAGES, "detection", "the average precision of boxes")


def read_exam(path: Path) -> tuple[dict[str, Hits], str]:
    """Return the hits of an exam by attack, and its fingerprint. WORST is the attack with the lowest mean average
    precision; it is missing before all attacks are done.

    Raises:
        UserError: as `read_detections`.
    """
    detections, fingerprint = read_detections(path)
    truth = detections.pop(TRUTH)
    wanted = [name for name in ("clean", *ATTACKS) if name in detections]
    found = {name: Hits.of(detections[name], truth, int(truth.classes.max()) + 1) for name in wanted}
    if found.keys() >= ATTACKS.keys():
        found[WORST] = min((found[name] for name in ATTACKS), key=Hits.mean_precision)
    return found, fingerprint


def examine_boxes(
    model: nn.Module,
    test: Split,
    groups: Groups,
    attack: AttackConfig,
    ensemble: str,
    *,
    keep: Path | None = None,
    blocks: NDArray[np.int64] | None = None,
) -> Iterator[tuple[str, BoxExamResult]]:
    """Examine a detector in eval mode; the seeds and batches are fixed, so that two exams can be compared.

    Args:
        model: images [B, C, H, W] in [0, 1] -> [B, L, num_classes + 1 + BOX].
        test: on the model's device, with boxes.
        groups: the classes by their training counts.
        attack: eps and step size; the steps are those of the attacks here.
        ensemble: none.
        keep: Parquet file of the detections, written after every part. Results of the same exam in it are reused.
        blocks: [N], equal for test images that a bootstrap draws together; kept with the detections.

    Yields:
        (what was just done, the results so far); the last result is complete.

    Raises:
        UserError: see `check_ensemble`.
    """
    check_ensemble(ensemble, test.num_classes)
    fingerprint = exam_fingerprint(model, test, attack)
    together = None if blocks is None else torch.from_numpy(blocks)
    known = kept(keep, fingerprint, together, read_detections, write_detections)
    found: dict[str, Detections] = {}
    scores: dict[str, Overlap] = {}
    labels = test.labels[test.rows]
    for title, measures in _parts(frozen(model), test, attack).items():
        fresh = {
            name: known[name] if name in known else replace(measure(), blocks=together)
            for name, measure in measures.items()
        }
        found |= fresh
        scores |= {name: precision(one, labels, groups) for name, one in fresh.items()}
        if keep is not None and not found.keys() <= known.keys():
            write_detections(keep, known | found | {TRUTH: replace(true_boxes(labels), blocks=together)}, fingerprint)
        yield title, BoxExamResult.of(dict(scores), dict(found))


def exam_fingerprint(model: nn.Module, test: Split, attack: AttackConfig) -> str:
    """Return what identifies an exam of a model, see `fingerprint_of`."""
    conditions = [attack.eps, attack.resolved_step_size, STEPS, SEED, CHUNK, test.rows.device.type, version("torch")]
    return fingerprint_of(model, test, conditions)


def _parts(model: nn.Module, test: Split, attack: AttackConfig) -> dict[str, Measures]:
    """Return the measurements of every part of the exam, in order."""
    eps, size = attack.eps, attack.resolved_step_size
    fgsm = partial(attacked_detections, model, test, class_loss, eps=eps, step_size=eps, steps=1, seed=None)
    attacks: Measures = {
        name: partial(attacked_detections, model, test, LOSSES[loss], eps=eps, step_size=size, steps=STEPS, seed=SEED)
        for name, loss in ATTACKS.items()
    }
    first: Measures = {"clean": partial(clean_detections, model, test), "fgsm": fgsm, "pgd20": attacks.pop("pgd20")}
    corruptions: Measures = {variant: partial(_corrupted_detections, model, test, variant) for variant in VARIANTS}
    singles: dict[str, Measures] = {TITLES[name]: {name: measure} for name, measure in attacks.items()}
    return {"PGD-20": first, **singles, "corruptions": corruptions}


def _corrupted_detections(model: nn.Module, test: Split, variant: str) -> Detections:
    generator = torch.Generator(test.rows.device).manual_seed(SEED)
    with eval_mode(model), torch.no_grad():
        parts = [
            Detections.of(model(corrupted(inputs, variant, generator)), *inputs.shape[2:])
            for inputs, _ in test.chunks(CHUNK)
        ]
    return Detections.joined(parts)
