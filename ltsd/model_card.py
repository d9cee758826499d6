"""The model card (Mitchell et al. 2019): what a model is, what an exam measured of it and what it did not."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from ltsd.card_words import WORDS, CardWords, Scores, between
from ltsd.config import LIBRARIES, Config, ModelConfig
from ltsd.data import Splits
from ltsd.data.longtail import Groups, class_groups
from ltsd.data.names import told_apart
from ltsd.markdown import escaped, listed, percent, spread, table
from ltsd.methods import METHODS
from ltsd.models import build_model

NOT_MEASURED = "not measured"
NAME_WIDTH = 40

Exam = Mapping[str, Any]


@dataclass(frozen=True)
class ModelFacts:
    """What a card tells.

    `shape` is (C, H, W) of an image; `class_counts` and `test_counts` are the training and test images, or pixels, of
    each of `class_names`. `simulated` and `copies` are as in `Splits`, `test_held_out` is whether the test images were
    held out because the source has no test set. `exam` is what `as_json` of the result of an exam returns. `of_seeds`
    are the exams of all models that were trained alike on several seeds, this one among them; empty for this one alone.
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
        """Return the facts of a model that was trained on `class_counts` images, or pixels, of `splits` and examined on
        its test set.
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

    @property
    def groups(self) -> Groups:
        """The classes by their training counts."""
        return class_groups(self.class_counts, self.config.data.groups)

    @property
    def words(self) -> CardWords:
        """What a card says of a model of its task."""
        return WORDS[self.config.task]

    def scores(self, exam: Exam) -> Scores:
        """Return what an exam measured, by attack."""
        return {attack: self.words.scores(tuple(values), self.groups) for attack, values in exam["per_class"].items()}

    @property
    def decisive(self) -> str:
        """The attack that counts."""
        return self.words.decisive(self.scores(self.exam))


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
    scores = facts.scores(facts.exam)
    clean, robust = scores["clean"], scores[facts.decisive]
    yield facts.words.summary.format(
        classes=len(facts.class_names),
        clean=percent(clean.balanced),
        tail_clean=percent(clean.group("tail")),
        robust=percent(robust.balanced),
        tail_robust=percent(robust.group("tail")),
        attack=facts.words.rows[facts.decisive],
        eps=_radius(facts.config.attack.eps),
    )
    if doubts := facts.exam.get("doubts"):
        yield "**Warning: the exam doubts these numbers:**\n"
        yield listed(map(escaped, doubts))


def _results(facts: ModelFacts) -> Iterator[str]:
    yield facts.words.results.format(images=facts.exam["images"])
    yield _accuracies(facts, [facts.exam])
    if len(facts.of_seeds) > 1:
        yield (
            f"The same of {len(facts.of_seeds)} models that were trained alike, each with another seed, this one among "
            "them: mean ± standard deviation.\n"
        )
        yield _accuracies(facts, facts.of_seeds)


def _accuracies(facts: ModelFacts, exams: Sequence[Exam]) -> str:
    groups, measured = list(facts.groups), list(map(facts.scores, exams))
    rows = [["", "all classes", *groups, "worst class"]]
    for attack, title in facts.words.rows.items():
        found = [scores[attack] for scores in measured if attack in scores]
        values = [[one.balanced, *map(one.group, groups), one.worst] for one in found]
        cells = [percent(*spread(column)) for column in zip(*values, strict=True)]
        if cells or attack not in facts.words.left_out:
            rows.append([title, *(cells or [NOT_MEASURED, *["–"] * (len(groups) + 1)])])
    return table(rows)


def _limits(facts: ModelFacts) -> Iterator[str]:
    items = facts.words.items
    limits = facts.words.limits(facts.test_counts, facts.scores(facts.exam))
    if not facts.exam.get("doubts"):
        looked = facts.words.tells_masking and "doubts" in facts.exam
        found = "none found, which is no proof that there are none" if looked else NOT_MEASURED
        limits.append(f"Signs of gradient masking, by which attacks fail without robustness: {found}.")
    if len(facts.of_seeds) < 2:
        limits.append("One training run was measured. Other seeds give other numbers.")
    limits += [
        "No other threat model was measured: no other norm, larger eps, patch, rotation or poisoned training data.",
        f"The test {items} are of the same source as the training {items}. Nothing is claimed of other data.",
        *(f"Copies: {count:,} {what}." for what, count in facts.copies.items()),
    ]
    yield listed(limits)


def _threat_model(facts: ModelFacts) -> Iterator[str]:
    attack, told = facts.config.attack, facts.exam.get("radius")
    radius = f"{_radius(attack.eps)} ({told})" if told else _radius(attack.eps)
    yield (
        f"{facts.words.norm}, white box: the attacker knows the network, its weights and the right class, and may "
        f"change {facts.words.domain.format(eps=radius)}. The weights and the training data are out of "
        "reach. Any wrong class is a success.\n"
    )
    corruptions = ""
    if facts.words.corruptions:
        corruptions = f"Corruptions are no attack: they are {facts.words.corruptions}, averaged over five severities."
    yield f"{facts.words.attacks.format(step_size=attack.resolved_step_size)}{corruptions}\n"


def _model(facts: ModelFacts) -> Iterator[str]:
    config, shape = facts.config, ", ".join(map(str, facts.shape))
    output = facts.words.output.format(classes=len(facts.class_names))
    yield listed(
        (
            f"Method: {METHODS[config.method].title}, {config.epochs} epochs, seed {config.seed}",
            f"Network: {_network(config.model)}, {facts.parameters:,} parameters",
            f"Input: float32 [N, {shape}] in {facts.words.inputs}; output: logits {output}",
        )
    )


def _network(model: ModelConfig) -> str:
    width = "" if model.architecture in LIBRARIES else f" of width {model.channels}"
    return f"{model.name}{width}{f', first weights {escaped(model.weights)}' if model.weights else ''}"


def _data(facts: ModelFacts) -> Iterator[str]:
    counts, config, counted = facts.class_counts, facts.config.data, facts.words.counted
    tail = f"simulated, {config.tail}" if facts.simulated else "that of the source"
    held_out = facts.words.held_out.format(share=config.test_fraction)
    test = held_out if facts.test_held_out else "the source's own test set"
    groups = {name.capitalize(): [counts[c] for c in members] for name, members in facts.groups.items()}
    yield listed(
        [
            f"Source: {escaped(config.source)}",
            f"Training: {sum(counts):,} {counted}, {between(counts)} a class; imbalance ratio "
            f"{max(counts) / min(counts):.4g}; long tail: {tail}",
            *(f"{name}: {len(group)} classes, {between(group)} {counted}" for name, group in groups.items()),
            f"Test: {facts.exam['images']:,} {facts.words.items}, {test}",
        ]
    )


def _classes(facts: ModelFacts) -> Iterator[str]:
    names = map(escaped, told_apart(facts.class_names, NAME_WIDTH))
    group_of = {c: name for name, members in facts.groups.items() for c in members}
    scores = facts.scores(facts.exam)
    clean, robust = (scores[name].per_class for name in ("clean", facts.decisive))
    rows = [["class", "group", "training", "test", "clean", facts.words.rows[facts.decisive]]]
    for c, (name, *counts) in enumerate(zip(names, facts.class_counts, facts.test_counts, strict=True)):
        rows.append([name, group_of[c], *map(str, counts), percent(clean[c]), percent(robust[c])])
    yield f"Training and test {facts.words.counted} of each class, and its {facts.words.class_score} in percent:\n"
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
