"""Correctness of a model on each example of a split, clean or attacked; recalls by class and by group of classes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ltsd.answers import is_finite, is_right
from ltsd.attacks.domains import Domain
from ltsd.attacks.losses import Loss, cross_entropy
from ltsd.attacks.pgd import pgd, steady
from ltsd.data.batches import Split
from ltsd.data.longtail import Groups

CHUNK = 500
CATASTROPHIC_GAP = 0.2


@dataclass(frozen=True)
class Correctness:
    """Whether each example is classified correctly. `right` is bool [N], `labels` int64 [N], both on the CPU.

    `unanswered` are the positions of the examples with NaN or infinity in the answer; they count as wrong. `blocks` are
    int64 [N], equal for examples that a bootstrap draws together; None if it draws each by itself.
    """

    right: Tensor
    labels: Tensor
    num_classes: int
    unanswered: frozenset[int] = frozenset()
    blocks: Tensor | None = None

    @classmethod
    def of(cls, answers: Iterable[tuple[Tensor, Tensor]], split: Split) -> "Correctness":
        """Judge the logits [B, C] and labels [B] of a split's chunks, in order."""
        return cls.judged(((is_right(logits, labels), is_finite(logits)) for logits, labels in answers), split)

    @classmethod
    def judged(cls, judgements: Iterable[tuple[Tensor, Tensor]], split: Split) -> "Correctness":
        """Join (right, finite), bool [B] each, of a split's chunks, in order."""
        right, finite = (torch.cat(chunks).cpu() for chunks in zip(*judgements, strict=True))
        unanswered = frozenset((~finite).nonzero().flatten().tolist())
        return cls(right, split.labels[split.rows].cpu(), split.num_classes, unanswered)

    def per_class(self) -> list[float]:
        """Return the recall of every class, in [0, 1]; NaN for a class without examples."""
        hits = torch.bincount(self.labels, self.right.double(), self.num_classes)
        return (hits / torch.bincount(self.labels, minlength=self.num_classes)).tolist()


@dataclass(frozen=True)
class Accuracy:
    """Per-class recalls under one attack. Every mean is over classes, never over examples."""

    per_class: tuple[float, ...]
    groups: Groups

    @classmethod
    def of(cls, correctness: Correctness, groups: Groups) -> "Accuracy":
        """Return the recalls by class."""
        return cls(tuple(correctness.per_class()), groups)

    @classmethod
    def mean_of(cls, accuracies: Sequence["Accuracy"]) -> "Accuracy":
        """Return the mean of several accuracies, class by class."""
        recalls = zip(*(accuracy.per_class for accuracy in accuracies), strict=True)
        return cls(tuple(mean(of_class) for of_class in recalls), accuracies[0].groups)

    @property
    def balanced(self) -> float:
        """Mean per-class recall."""
        return mean(self.per_class)

    @property
    def worst(self) -> float:
        """The lowest per-class recall."""
        return min(self.per_class)

    def group(self, name: str) -> float:
        """Mean recall of the classes of one of `groups`."""
        return mean([self.per_class[c] for c in self.groups[name]])


def overfits_catastrophically(fgsm_acc: float, robust_acc: float) -> bool:
    """Return whether the accuracy under FGSM is far above that under PGD; a gap of 3 to 5 points is usual. With a gap
    this large the gradients mislead attacks, and the robust accuracy in training means nothing (Wong, Rice, Kolter
    2020, section 5.3).
    """
    return fgsm_acc - robust_acc > CATASTROPHIC_GAP


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean."""
    return sum(values) / len(values)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode, and back at the end."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def clean_correctness(model: nn.Module, split: Split) -> Correctness:
    """Return the correctness on clean images."""
    with eval_mode(model), torch.no_grad():
        return Correctness.of(((model(inputs), labels) for inputs, labels in split.chunks(CHUNK)), split)


def pgd_correctness(
    model: nn.Module,
    split: Split,
    *,
    domain: Domain,
    eps: float,
    step_size: float,
    steps: int,
    seed: int | None,
    loss: Loss = cross_entropy,
) -> Correctness:
    """Return the correctness under PGD from one random start, drawn from `seed`; None starts at the inputs.

    One step of size eps from the inputs is FGSM. Another loss makes another attack, such as CW-20 or LSA-20.
    """
    generator = None if seed is None else torch.Generator(split.rows.device).manual_seed(seed)

    def answers() -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, labels in split.chunks(CHUNK):
            adv_inputs = pgd(
                lambda x, y=labels: loss(model(steady(x)), y),  # type: ignore[misc]
                inputs,
                domain=domain,
                eps=eps,
                step_size=step_size,
                steps=steps,
                start=inputs if generator is None else domain.uniform(inputs, eps=eps, generator=generator),
            )
            with torch.no_grad():
                logits = model(adv_inputs)
            yield logits, labels

    with eval_mode(model):
        return Correctness.of(answers(), split)


def standing_correctness(
    model: nn.Module,
    split: Split,
    losses: Mapping[str, Loss],
    *,
    domain: Domain,
    eps: float,
    step_size: float,
    steps: int,
    seed: int,
) -> dict[str, Correctness]:
    """Return the correctness on clean inputs, and under PGD on each loss in turn. Each attack sees only the examples
    that are still right.

    The last entry is the worst case, example by example. All attacks start at the same random point, drawn from `seed`.

    Args:
        model: inputs [B, ...] -> logits [B, num_classes].
        split: images and labels, on the model's device.
        losses: what each attack maximises, by name, in order.
        domain: what the inputs are.
        eps: radius, in the domain's units.
        step_size: length of a step, in the same units.
        steps: gradient steps of each attack.
        seed: of the random start.

    Returns:
        Correctness by `clean` and by the names of the losses; an example is right if it withstood that attack and all
        before it.
    """
    generator = torch.Generator(split.rows.device).manual_seed(seed)
    judged: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in ("clean", *losses)}
    with eval_mode(model):
        for inputs, labels in split.chunks(CHUNK):
            start = domain.uniform(inputs, eps=eps, generator=generator)
            with torch.no_grad():
                logits = model(inputs)
            standing, finite = is_right(logits, labels), is_finite(logits)
            judged["clean"].append((standing, finite))
            for name, loss in losses.items():
                left = standing.nonzero().flatten()
                standing, finite = standing.clone(), finite.clone()
                if len(left):
                    adv_inputs = pgd(
                        lambda x, y=labels[left], loss=loss: loss(model(steady(x)), y),  # type: ignore[misc]
                        inputs[left],
                        domain=domain,
                        eps=eps,
                        step_size=step_size,
                        steps=steps,
                        start=start[left],
                    )
                    with torch.no_grad():
                        logits = model(adv_inputs)
                    standing[left], finite[left] = is_right(logits, labels[left]), is_finite(logits)
                judged[name].append((standing, finite))
    return {name: Correctness.judged(chunks, split) for name, chunks in judged.items()}


def unanswered(correctness: Iterable[Correctness], images: str) -> str:
    """Describe how many images have NaN or infinity in an answer, under any of the attacks; "" for none.

    Args:
        correctness: of the same images, an attack each.
        images: the name of the images, such as "test images".
    """
    found = list(correctness)
    positions = frozenset[int]().union(*(one.unanswered for one in found))
    return not_finite(len(positions), len(found[0].labels), images)


def not_finite(count: int, of: int, images: str) -> str:
    """Describe how many of some images have NaN or infinity in their answer; "" for none."""
    return f"the network answers NaN or infinity on {count} of {of} {images}" if count else ""


def validation_metrics(clean: Accuracy, robust: Accuracy) -> dict[str, float]:
    """Return the metrics of a split, fractions in [0, 1]; with two classes there is no medium group."""
    return {
        "clean_acc": clean.balanced,
        "tail_clean_acc": clean.group("tail"),
        "robust_acc": robust.balanced,
        **{f"{group}_robust_acc": robust.group(group) for group in robust.groups},
        "worst_class_robust_acc": robust.worst,
    }
