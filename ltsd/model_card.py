"""The model card (Mitchell et al. 2019): what a model is, what an exam measured of it and what it did not."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from ltsd.config import Config
from ltsd.data import Splits
from ltsd.data.longtail import class_groups
from ltsd.data.names import told_apart
from ltsd.evaluation.evaluate import Accuracy
from ltsd.evaluation.exam import ENSEMBLE_METRIC, ENSEMBLE_TITLE, PGD_STEPS, TITLES
from ltsd.markdown import escaped, listed, percent, spread, table
from ltsd.methods import METHODS
from ltsd.models import build_model

NOT_MEASURED = "not measured"
NAME_WIDTH = 40
ENSEMBLES = {metric.removesuffix("_acc"): ENSEMBLE_TITLE[name] for name, metric in ENSEMBLE_METRIC.items()}
ROWS = {**TITLES, "corruption": "corruptions", **ENSEMBLES}
FIRST_HALF = "apgd_ce_t"
"""Part of AutoAttack: its row is left out if it was not measured by itself."""

Exam = Mapping[str, Any]


@dataclass(frozen=True)
class ModelFacts:
    """What a card tells.

    `shape` is (C, H, W) of an image; `class_counts` and `test_counts` are the training and test images of each of
    `class_names`. `simulated` and `copies` are as in `Splits`, `test_held_out` is whether the test images were held
    out because the source has no test set. `exam` is what `ExamResult.as_json` returns. `of_seeds` are the exams of
    all models that were trained alike on several seeds, this one among them; empty for this one alone.
    """

    config: Config
    shape: Sequence[int]
    class_names: Sequence[str]
    class_counts: Sequence[int]
    test_counts: Sequence[int]
    simulated: bool
    test_held_out: bool
    copies: Mapping[str, int]
    exam: Exam
    of_seeds: Sequence[Exam] = ()

    @classmethod
    def of(
        cls, config: Config, splits: Splits, class_counts: Sequence[int], exam: Exam, of_seeds: Sequence[Exam] = ()
    ) -> Self:
        """Return the facts of a model that was trained on `class_counts` images of `splits` and examined on its test
        set.
        """
        return cls(
            config=config,
            shape=splits.shape,
            class_names=splits.class_names,
            class_counts=class_counts,
            test_counts=splits.test.class_counts(),
            simulated=splits.simulated,
            test_held_out=splits.reading.is_test_held_out,
            copies=splits.copies,
            exam=exam,
            of_seeds=of_seeds,
        )

    @property
    def parameters(self) -> int:
        """How many parameters the network has."""
        with torch.device("meta"):  # shapes without memory
            head = METHODS[self.config.method].head
            network = build_model(self.config.model, self.shape[0], len(self.class_names), head)
        return sum(parameter.numel() for parameter in network.parameters())

    def accuracy(self, exam: Exam, attack: str) -> Accuracy:
        """Return the recalls that an exam measured under an attack."""
        return Accuracy(tuple(exam["per_class"][attack]), class_groups(self.class_counts))

    @property
    def decisive(self) -> str:
        """The attack that counts: AutoAttack if it ran, else its first half, else the one that leaves the least."""
        measured = self.exam["per_class"]
        ensembles = [name for name in ENSEMBLES if name in measured]
        attacks = ensembles or [name for name in TITLES if name in measured and name != "clean"]
        return attacks[0] if ensembles else min(attacks, key=lambda name: self.accuracy(self.exam, name).balanced)


def model_card(facts: ModelFacts) -> str:
    """Return the card in Markdown, what matters most first. Numbers that the exam lacks are called not measured."""
    config = facts.config
    title = f"# {METHODS[config.method].title} on {escaped(config.data.source)}\n"
    sections = {
        "Results": _results(facts),
        "Limits": _limits(facts),
        "Threat model": _threat_model(facts),
        "Model": _model(facts),
        "Data": _data(facts),
        "Classes": _classes(facts),
        "Configuration": _configuration(config),
    }
    parts = [title, *_summary(facts)]
    for heading, paragraphs in sections.items():
        parts += [f"## {heading}\n", *paragraphs]
    return "\n".join(parts)


def _summary(facts: ModelFacts) -> Iterator[str]:
    clean, robust = (facts.accuracy(facts.exam, name) for name in ("clean", facts.decisive))
    eps = _radius(facts.config.attack.eps)
    yield (
        f"A classifier of images into {len(facts.class_names)} classes. Of the test images, averaged over classes, it "
        f"classifies {percent(clean.balanced)}% correctly as they are and {percent(robust.balanced)}% under "
        f"{ROWS[facts.decisive]} with eps {eps}. In the tail, its rarest classes, these are "
        f"{percent(clean.group('tail'))}% and {percent(robust.group('tail'))}%.\n"
    )
    if doubts := facts.exam.get("doubts"):
        yield "**Warning: the exam doubts these numbers:**\n"
        yield listed(map(escaped, doubts))


def _results(facts: ModelFacts) -> Iterator[str]:
    yield (
        f"Accuracy in percent on {facts.exam['images']:,} test images: the mean of the recalls of all classes or of a "
        "group, and the recall of the worst class.\n"
    )
    yield _accuracies(facts, [facts.exam])
    if len(facts.of_seeds) > 1:
        yield (
            f"The same of {len(facts.of_seeds)} models that were trained alike, each with another seed, this one among "
            "them: mean ± standard deviation.\n"
        )
        yield _accuracies(facts, facts.of_seeds)


def _accuracies(facts: ModelFacts, exams: Sequence[Exam]) -> str:
    groups = list(class_groups(facts.class_counts))
    rows = [["", "all classes", *groups, "worst class"]]
    for attack, title in ROWS.items():
        found = [facts.accuracy(exam, attack) for exam in exams if attack in exam["per_class"]]
        values = [[one.balanced, *map(one.group, groups), one.worst] for one in found]
        cells = [percent(*spread(column)) for column in zip(*values, strict=True)]
        if cells or attack != FIRST_HALF:
            rows.append([title, *(cells or [NOT_MEASURED, *["–"] * (len(groups) + 1)])])
    return table(rows)


def _limits(facts: ModelFacts) -> Iterator[str]:
    fewest, measured = min(facts.test_counts), facts.exam["per_class"]
    limits = [
        f"A class has {_between(facts.test_counts)} test images. Of {fewest}, one is {percent(1 / fewest)} points "
        f"of the recall of its class, whose standard error is up to {percent(0.5 / math.sqrt(fewest))} points.",
        "Attacks find some of the changes that mislead the model, not all: each robust accuracy is an upper bound.",
    ]
    if "aa" not in measured:
        limits.append("AutoAttack, the standard of the field, was not run. It usually leaves less than other attacks.")
    if not facts.exam.get("doubts"):
        found = "none found, which is no proof that there are none" if "doubts" in facts.exam else NOT_MEASURED
        limits.append(f"Signs of gradient masking, by which attacks fail without robustness: {found}.")
    if len(facts.of_seeds) < 2:
        limits.append("One training run was measured. Other seeds give other numbers.")
    limits += [
        "No other threat model was measured: no other norm, larger eps, patch, rotation or poisoned training data.",
        "The test images are of the same source as the training images. Nothing is claimed of other data.",
        *(f"Copies: {count:,} {what}." for what, count in facts.copies.items()),
    ]
    yield listed(limits)


def _threat_model(facts: ModelFacts) -> Iterator[str]:
    attack = facts.config.attack
    yield (
        "L-infinity, white box: the attacker knows the network, its weights and the right class, and may change every "
        f"value of an image by at most eps = {_radius(attack.eps)}, within the range [0, 1] of images. The weights and "
        "the training data are out of reach. Any wrong class is a success.\n"
    )
    yield (
        f"FGSM is one step of eps. PGD-{PGD_STEPS}, CW-{PGD_STEPS} and LSA-{PGD_STEPS} take {PGD_STEPS} steps of "
        f"{attack.resolved_step_size:.4g} from one random start. AutoAttack is its standard version, complete; "
        f"{ENSEMBLES[FIRST_HALF]} is its first half. Corruptions are no attack: they are noise, blur, contrast, "
        "brightness, JPEG and pixelation, averaged over five severities.\n"
    )


def _model(facts: ModelFacts) -> Iterator[str]:
    config, shape = facts.config, ", ".join(map(str, facts.shape))
    yield listed(
        (
            f"Method: {METHODS[config.method].title}, {config.epochs} epochs, seed {config.seed}",
            f"Network: {config.model.name} of width {config.model.channels}, {facts.parameters:,} parameters",
            f"Input: float32 [N, {shape}] in [0, 1]; output: logits [N, {len(facts.class_names)}]",
        )
    )


def _data(facts: ModelFacts) -> Iterator[str]:
    counts, config = facts.class_counts, facts.config.data
    tail = f"simulated, {config.tail}" if facts.simulated else "that of the source"
    test = f"{config.test_fraction:.3g} of every class" if facts.test_held_out else "the source's own test set"
    groups = {name: [counts[c] for c in members] for name, members in class_groups(counts).items()}
    yield listed(
        [
            f"Source: {escaped(config.source)}",
            f"Training: {sum(counts):,} images, {_between(counts)} a class; imbalance ratio "
            f"{max(counts) / min(counts):.4g}; long tail: {tail}",
            *(f"{name.capitalize()}: {len(group)} classes, {_between(group)} images" for name, group in groups.items()),
            f"Test: {facts.exam['images']:,} images, {test}",
        ]
    )


def _classes(facts: ModelFacts) -> Iterator[str]:
    names = map(escaped, told_apart(facts.class_names, NAME_WIDTH))
    group_of = {c: name for name, members in class_groups(facts.class_counts).items() for c in members}
    clean, robust = (facts.accuracy(facts.exam, name).per_class for name in ("clean", facts.decisive))
    rows = [["class", "group", "training", "test", "clean", ROWS[facts.decisive]]]
    for c, (name, *counts) in enumerate(zip(names, facts.class_counts, facts.test_counts, strict=True)):
        rows.append([name, group_of[c], *map(str, counts), percent(clean[c]), percent(robust[c])])
    yield "Training and test images of each class, and its recall in percent:\n"
    yield table(rows)


def _configuration(config: Config) -> Iterator[str]:
    defaults = Config.preset(config.data.source, config.task).flatten()
    changed = {name: value for name, value in config.flatten().items() if value != defaults[name]}
    yield f"Every {'other ' if changed else ''}knob has its default for this source.\n"
    if changed:
        rows = [[name, _told(value), _told(defaults[name])] for name, value in changed.items()]
        yield table([["knob", "value", "default"], *rows])


def _told(value: object) -> str:
    return "unset" if value is None else f"{value:.6g}" if isinstance(value, float) else escaped(str(value))


def _radius(eps: float) -> str:
    steps = 255 * eps
    return f"{round(steps)}/255" if math.isclose(steps, round(steps)) else f"{eps:.4g}"


def _between(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
