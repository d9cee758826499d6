"""The exam of a finished segmentation model on the test set: FGSM, six attacks and their worst case, corruptions."""

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

from ltsd.attacks import dense_losses
from ltsd.config import AttackConfig
from ltsd.data.batches import Split
from ltsd.data.longtail import Groups
from ltsd.errors import UserError
from ltsd.evaluation.correctness import fingerprint_of
from ltsd.evaluation.corruptions import VARIANTS, corrupted
from ltsd.evaluation.ensembles import ENSEMBLE_TITLE
from ltsd.evaluation.evaluate import eval_mode, not_finite
from ltsd.evaluation.kept import kept
from ltsd.evaluation.pixel_attacks import CHUNK, attacked_counts, clean_counts
from ltsd.evaluation.pixels import Overlap, PixelCounts, mean_overlap, overlap_metrics, worst_case
from ltsd.evaluation.pixels_on_disk import read_counts, write_counts
from ltsd.evaluation.sea import sea_counts
from ltsd.models.frozen import frozen

STEPS = 20
SEED = 0
LOSSES = {
    "pgd20": dense_losses.cross_entropy,
    "segpgd20": dense_losses.segpgd,
    "masked20": dense_losses.masked_cross_entropy,
    "balanced20": dense_losses.balanced_masked_cross_entropy,
    "js20": dense_losses.jensen_shannon,
}
"""The losses of the attacks by PGD: those of PGD and SegPGD, and the three of SEA (Croce et al. 2024)."""
SEA_STEPS = {"cpu": 20, "cuda": 300}
"""Steps of each loss of SEA by kind of device: 300 on a GPU, as published, and fewer on a CPU to save time."""
SEA = {device: f"sea{steps}" for device, steps in SEA_STEPS.items()}
TITLES = {
    "clean": "clean",
    "fgsm": "FGSM",
    "pgd20": "PGD-20",
    "segpgd20": "SegPGD-20",
    "masked20": "masked-20",
    "balanced20": "balanced-20",
    "js20": "JS-20",
    "sea20": "SEA-20",
    "sea300": "SEA-300",
    "worst": "worst of 6",
}


WORST = "worst"
"""The name of the worst case of LOSSES and SEA."""

Measures = dict[str, Callable[[], PixelCounts]]


@dataclass(frozen=True)
class MapExamResult:
    """The results of an exam so far.

    `accuracies` are IoUs by attack: `clean`, `fgsm`, the names in LOSSES, a name in SEA, `worst` (the worst case of
    these six) and `corruption`. `counts` are the data behind them, by attack, and by corruption and severity. `doubts`
    report answers that are not finite.
    """

    accuracies: dict[str, Overlap]
    counts: Mapping[str, PixelCounts]
    doubts: tuple[str, ...]

    @classmethod
    def of(cls, counts: Mapping[str, PixelCounts], groups: Groups) -> "MapExamResult":
        """Return the result of an exam from the counts so far."""
        attacked = [counts[name] for name in (*LOSSES, *SEA.values()) if name in counts]
        known = {name: counts[name] for name in TITLES if name in counts}
        if attacked:
            known[WORST] = worst_case(attacked)
        overlaps = {name: Overlap.of(one, groups) for name, one in known.items()}
        corrupted = [Overlap.of(counts[variant], groups) for variant in VARIANTS if variant in counts]
        if corrupted:
            overlaps["corruption"] = mean_overlap(corrupted)
        found = cls(overlaps, counts, ())
        return replace(found, doubts=(f"{found.diverged}: these pixels count as wrong",) if found.diverged else ())

    @property
    def images(self) -> int:
        """The number of test images."""
        return len(self.counts["clean"].finite)

    @property
    def measured(self) -> int:
        """The number of measurements of the whole test set so far."""
        return len(self.counts)

    @property
    def left(self) -> tuple[str, ...]:
        """None: an exam of label maps has no shards."""
        return ()

    @property
    def diverged(self) -> str:
        """A description of images whose answer is not finite; "" for none."""
        finite = reduce(torch.logical_and, (one.finite for one in self.counts.values()))
        return not_finite(int((~finite).sum()), len(finite), "test images")

    def values(self) -> dict[str, float]:
        """The metrics `test/*`; `robust_miou` and its groups are those of `worst`."""
        metrics = overlap_metrics(self.accuracies["clean"], self.accuracies[WORST])
        metrics |= {"clean_acc": self.counts["clean"].accuracy()}
        for name, overlap in self.accuracies.items():
            if name != "clean":
                metrics |= {f"{name}_miou": overlap.balanced, f"tail_{name}_miou": overlap.group("tail")}
        return {f"test/{name}": value for name, value in metrics.items()}

    def per_class(self) -> dict[str, list[float]]:
        """IoU by attack."""
        return {name: list(overlap.per_class) for name, overlap in self.accuracies.items()}

    def as_json(self) -> dict[str, Any]:
        """Everything but the counts, as plain values; `recalls` are those of clean images."""
        groups = {name: list(classes) for name, classes in self.accuracies["clean"].groups.items()}
        return {
            "images": self.images,
            "groups": groups,
            "metrics": self.values(),
            "per_class": self.per_class(),
            "recalls": self.counts["clean"].recall(),
            "doubts": list(self.doubts),
        }


def check_ensemble(ensemble: str, num_classes: int) -> None:
    """Check that no ensemble of attacks is requested, which needs one label per image.

    Raises:
        UserError: one is requested.
    """
    if ensemble != "none":
        raise UserError(
            f"{ENSEMBLE_TITLE[ensemble]} needs one label per image, and the exam of label maps has six attacks of its "
            "own; choose none"
        )


def read_exam(path: Path) -> tuple[dict[str, PixelCounts], str]:
    """Return the counts that an exam kept, by attack, and its fingerprint. Their worst case, WORST, is missing before
    all six attacks are done.

    Raises:
        UserError: as `read_counts`.
    """
    counts, fingerprint = read_counts(path)
    attacks = [name for name in (*LOSSES, *SEA.values()) if name in counts]
    if len(attacks) > len(LOSSES):
        counts[WORST] = worst_case([counts[name] for name in attacks])
    return counts, fingerprint


def examine_maps(
    model: nn.Module,
    test: Split,
    groups: Groups,
    attack: AttackConfig,
    ensemble: str,
    *,
    keep: Path | None = None,
    blocks: NDArray[np.int64] | None = None,
) -> Iterator[tuple[str, MapExamResult]]:
    """Examine a segmentation model in eval mode; the seeds and batches are fixed, so that two exams can be compared.

    Args:
        model: images [B, C, H, W] in [0, 1] -> logits [B, H, W, num_classes].
        test: on the model's device, with label maps.
        groups: the classes by their training counts.
        attack: eps and step size; the steps are those of the attacks here.
        ensemble: none.
        keep: Parquet file of the counts, written after every part. Results of the same exam in it are reused.
        blocks: [N], equal for test images that a bootstrap draws together; kept with the counts.

    Yields:
        (what was just done, the results so far); the last result is complete.

    Raises:
        UserError: see `check_ensemble`.
    """
    check_ensemble(ensemble, test.num_classes)
    fingerprint = exam_fingerprint(model, test, attack)
    together = None if blocks is None else torch.from_numpy(blocks)
    known = kept(keep, fingerprint, together, read_counts, write_counts)
    answers: dict[str, PixelCounts] = {}
    for title, measures in _parts(frozen(model), test, attack).items():
        answers |= {
            name: known[name] if name in known else replace(measure(), blocks=together)
            for name, measure in measures.items()
        }
        if keep is not None and not answers.keys() <= known.keys():
            write_counts(keep, known | answers, fingerprint)
        yield title, MapExamResult.of(dict(answers), groups)


def exam_fingerprint(model: nn.Module, test: Split, attack: AttackConfig) -> str:
    """Return what identifies an exam of a model, see `fingerprint_of`."""
    conditions = [attack.eps, attack.resolved_step_size, STEPS, SEED, CHUNK, test.rows.device.type, version("torch")]
    return fingerprint_of(model, test, conditions)


def _parts(model: nn.Module, test: Split, attack: AttackConfig) -> dict[str, Measures]:
    """Return the measurements of every part of the exam, in order."""
    eps, size = attack.eps, attack.resolved_step_size
    fgsm = partial(attacked_counts, model, test, LOSSES["pgd20"], eps=eps, step_size=eps, steps=1, seed=None)
    attacks: Measures = {
        name: partial(attacked_counts, model, test, loss, eps=eps, step_size=size, steps=STEPS, seed=SEED)
        for name, loss in LOSSES.items()
    }
    first: Measures = {"clean": partial(clean_counts, model, test), "fgsm": fgsm, "pgd20": attacks.pop("pgd20")}
    device = test.rows.device.type
    steps = SEA_STEPS[device]
    sea: Measures = {SEA[device]: partial(sea_counts, model, test, eps=eps, steps=steps, seed=SEED, chunk=CHUNK)}
    corruptions: Measures = {variant: partial(_corrupted_counts, model, test, variant) for variant in VARIANTS}
    singles: dict[str, Measures] = {TITLES[name]: {name: measure} for name, measure in attacks.items()}
    return {"PGD-20": first, **singles, TITLES[SEA[device]]: sea, "corruptions": corruptions}


def _corrupted_counts(model: nn.Module, test: Split, variant: str) -> PixelCounts:
    generator = torch.Generator(test.rows.device).manual_seed(SEED)
    with eval_mode(model), torch.no_grad():
        return PixelCounts.joined(
            [
                PixelCounts.of(model(corrupted(inputs, variant, generator)), labels)
                for inputs, labels in test.chunks(CHUNK)
            ]
        )
