"""What a model card says of a classifier, a segmentation model and a detector, where they differ."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ltsd.evaluation.box_exam import TITLES as BOX_TITLES
from ltsd.evaluation.ensembles import ENSEMBLE_METRIC, ENSEMBLE_TITLE
from ltsd.evaluation.evaluate import Accuracy
from ltsd.evaluation.exam import TITLES
from ltsd.evaluation.map_exam import SEA_STEPS, STEPS, WORST
from ltsd.evaluation.map_exam import TITLES as MAP_TITLES
from ltsd.evaluation.medium import PGD_STEPS, SOUND, TEXTS
from ltsd.evaluation.pixels import Overlap
from ltsd.markdown import percent

ENSEMBLES = {metric.removesuffix("_acc"): ENSEMBLE_TITLE[name] for name, metric in ENSEMBLE_METRIC.items()}
FIRST_HALF, FOR_FEW = "apgd_ce_t", "aafew"

Scores = Mapping[str, Accuracy | Overlap]
"""What was measured, by attack."""


@dataclass(frozen=True)
class CardWords:
    """The words of a task.

    Attributes:
        scores: the type of what was measured under an attack, made of the scores of classes and their groups.
        rows: titles by attack, in order.
        left_out: attacks whose row is left out if they were not measured.
        decisive: (what was measured) -> the attack that counts.
        summary: with places for classes, clean, tail_clean, robust, tail_robust, attack and eps.
        results: what the numbers are, with a place for images.
        counted: what is counted of a class.
        class_score: the score of a class.
        limits: (counts of the classes in the test set, what was measured) -> sentences.
        attacks: what the attacks do, with a place for step_size.
        output: the shape of the logits, with a place for classes.
        tells_masking: whether the exam looks for signs of gradient masking.
        held_out: what is held out for the test, if the source has no test set, with a place for the share.
        items: what inputs are called.
        domain: what an attacker may change of one, with a place for eps.
        norm: of the threat model.
        corruptions: what corruptions are; "" for none.
        inputs: the range of inputs.
    """

    scores: type[Accuracy] | type[Overlap]
    rows: Mapping[str, str]
    left_out: Sequence[str]
    decisive: Callable[[Scores], str]
    summary: str
    results: str
    counted: str
    class_score: str
    limits: Callable[[Sequence[int], Scores], list[str]]
    attacks: str
    output: str
    tells_masking: bool
    held_out: str
    items: str = "images"
    domain: str = "every value of an image by at most eps = {eps}, within the range [0, 1] of images"
    norm: str = "L-infinity"
    corruptions: str = "noise, blur, contrast, brightness, JPEG and pixelation"
    inputs: str = "[0, 1]"


def between(counts: Sequence[int]) -> str:
    """Return the range of some numbers in words."""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _decisive(measured: Scores) -> str:
    """Return the ensemble that ran, else the attack that leaves the least."""
    if ensembles := [name for name in ENSEMBLES if name in measured]:
        return ensembles[0]
    attacks = [name for name in TITLES if name in measured and name != "clean"]
    return min(attacks, key=lambda name: measured[name].balanced)


def _limits_of_classes(test_counts: Sequence[int], items: str) -> list[str]:
    fewest = min(test_counts)
    return [
        f"A class has {between(test_counts)} test {items}. Of {fewest}, one is {percent(1 / fewest)} points "
        f"of the recall of its class, whose standard error is up to {percent(0.5 / math.sqrt(fewest))} points.",
        "Attacks find some of the changes that mislead the model, not all: each robust accuracy is an upper bound.",
    ]


def _limits(test_counts: Sequence[int], measured: Scores, items: str = "images") -> list[str]:
    limits = _limits_of_classes(test_counts, items)
    if FOR_FEW in measured:
        limits.append(
            f"AutoAttack, the standard of the field, needs at least four classes. {ENSEMBLES[FOR_FEW]} takes its "
            "place: APGD on cross-entropy and on the margin, untargeted FAB, Square, each on what those before left."
        )
    elif "aa" not in measured:
        limits.append("AutoAttack, the standard of the field, was not run. It usually leaves less than other attacks.")
    return limits


def _summary(items: str, attacked: str) -> str:
    return (
        f"A classifier of {items} into {{classes}} classes. Of the test {items}, averaged over classes, it classifies "
        f"{{clean}}% correctly as they are and {{robust}}% {attacked}. In the tail, its rarest classes, these are "
        "{tail_clean}% and {tail_robust}%.\n"
    )


def _results(items: str) -> str:
    return (
        f"Accuracy in percent on {{images:,}} test {items}: the mean of the recalls of all classes or of a group, and "
        "the recall of the worst class.\n"
    )


def _limits_of_maps(test_counts: Sequence[int], measured: Scores) -> list[str]:
    limits = [
        f"A class has {between(test_counts)} test pixels. Those of one image are alike, so that the images count.",
        "Attacks find some of the changes that mislead the model, not all: each robust IoU is an upper bound.",
    ]
    published = f"sea{SEA_STEPS['cuda']}"
    if published not in measured:
        limits.append(f"SEA with {SEA_STEPS['cuda']} steps, as published, was not run. More steps leave less.")
    return limits


def _limits_of_boxes(test_counts: Sequence[int], measured: Scores) -> list[str]:
    return [
        f"A class has {between(test_counts)} test locations, several a box.",
        "Attacks find some of the changes that mislead the model, not all: each robust AP50 is an upper bound.",
        "There is no standard exam of detectors under attack: three attacks are weaker evidence than AutoAttack is.",
    ]


CLASSIFIER = CardWords(
    scores=Accuracy,
    rows={**TITLES, "corruption": "corruptions", **ENSEMBLES},
    left_out=(FIRST_HALF, FOR_FEW),
    decisive=_decisive,
    summary=_summary("images", "under {attack} with eps {eps}"),
    results=_results("images"),
    counted="images",
    class_score="recall",
    limits=_limits,
    attacks=(
        f"FGSM is one step of eps. PGD-{PGD_STEPS}, CW-{PGD_STEPS} and LSA-{PGD_STEPS} take {PGD_STEPS} steps of "
        "{step_size:.4g} from one random start. AutoAttack is its standard version, complete; "
        f"{ENSEMBLES[FIRST_HALF]} is its first half. "
    ),
    output="[N, {classes}]",
    tells_masking=True,
    held_out="{share:.3g} of every class",
)
SEGMENTER = CardWords(
    scores=Overlap,
    rows={**MAP_TITLES, "corruption": "corruptions"},
    left_out=[f"sea{steps}" for steps in SEA_STEPS.values()],
    decisive=lambda measured: WORST,
    summary=(
        "It names every pixel as one of {classes} classes. On the test images, the mean IoU over classes is "
        "{clean}% as they are and {robust}% under the {attack} attacks with eps {eps}. In the tail, "
        "its rarest classes, these are {tail_clean}% and {tail_robust}%.\n"
    ),
    results=(
        "IoU in percent on {images:,} test images: the mean over all classes or over a group, and that of the worst "
        "class.\n"
    ),
    counted="pixels",
    class_score="IoU",
    limits=_limits_of_maps,
    attacks=(
        f"FGSM is one step of eps. PGD, SegPGD and the attacks named {STEPS} take {STEPS} steps of "
        "{step_size:.4g} from one random start; SEA takes as many as its name says, by Auto-PGD on three losses, with "
        "a radius that falls to eps. "
    ),
    output="[N, H, W, {classes}]",
    tells_masking=False,
    held_out="{share:.3g} of the images",
)
DETECTOR = CardWords(
    scores=Overlap,
    rows={**BOX_TITLES, "corruption": "corruptions"},
    left_out=(),
    decisive=lambda measured: WORST,
    summary=(
        "It finds objects of {classes} classes and their boxes. On the test images, the mean over classes of the "
        "average precision at an IoU of 0.5 is {clean}% as they are and {robust}% under the {attack} attacks with eps "
        "{eps}. In the tail, its rarest classes, these are {tail_clean}% and {tail_robust}%.\n"
    ),
    results=(
        "Average precision at an IoU of 0.5 (AP50), in percent, on {images:,} test images: the mean over all classes "
        "or over a group, and that of the worst class.\n"
    ),
    counted="locations",
    class_score="AP50",
    limits=_limits_of_boxes,
    attacks=(
        f"FGSM is one step of eps. The attacks named {STEPS} take {STEPS} steps of "
        "{step_size:.4g} from one random start: PGD on the classes of locations, box on their boxes, both on both. "
    ),
    output="[N, locations, {classes} + background + 5]",
    tells_masking=False,
    held_out="{share:.3g} of the images",
)
LISTENER = replace(
    CLASSIFIER,
    rows={**TITLES, **SOUND.titles, "corruption": "corruptions", **ENSEMBLES},
    summary=_summary("clips", "under {attack} with eps {eps}"),
    results=_results("clips"),
    counted="clips",
    limits=partial(_limits, items="clips"),
    attacks=CLASSIFIER.attacks
    + "These attacks leave the silence after a clip as it is; AutoAttack does not. PGD at a ratio in decibels has a "
    "radius of its own for each clip. ",
    items="clips",
    domain="every sample of a clip by at most eps = {eps}, within the range [-1, 1] of sound",
    corruptions="white noise, echo, band limits, clipping and µ-law",
    inputs="[-1, 1]",
)
READER = replace(
    CLASSIFIER,
    rows={**TITLES, **TEXTS.titles},
    left_out=(),
    decisive=lambda measured: "edit2",
    summary=_summary("texts", "after {attack}"),
    results=_results("texts"),
    counted="texts",
    limits=lambda counts, measured: _limits_of_classes(counts, "texts"),
    attacks=(
        f"FGSM is one step of eps. PGD-{PGD_STEPS}, CW-{PGD_STEPS} and LSA-{PGD_STEPS} take {PGD_STEPS} steps of "
        "{step_size:.4g} from one random start; nobody can send what they find. An edit swaps, drops, repeats or "
        "replaces a letter, or drops a word; a greedy search chooses it. "
    ),
    items="texts",
    domain="the vector of every word piece of a text by at most eps = {eps} times its length",
    norm="L2",
    corruptions="",
    inputs="vectors of length 1, and zeros for padding",
)
WORDS: Mapping[str, CardWords] = {
    "classification": CLASSIFIER,
    "segmentation": SEGMENTER,
    "detection": DETECTOR,
    "speech": LISTENER,
    "text": READER,
}
"""By task."""
