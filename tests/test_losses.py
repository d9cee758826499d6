"""The loss terms against their definitions, written out example by example."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ltsd.losses import balanced_softmax, distillation, gradient_matching

finite = st.floats(-20, 20)
batches = st.integers(1, 4).flatmap(
    lambda size: st.lists(st.lists(finite, min_size=3, max_size=3), min_size=size, max_size=size)
)
pairs = st.integers(1, 4).flatmap(
    lambda size: st.tuples(
        *[st.lists(st.lists(finite, min_size=3, max_size=3), min_size=size, max_size=size) for _ in range(2)]
    )
)
counts = st.lists(st.integers(1, 5000), min_size=3, max_size=3)


def tensor(values: list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def softmax(logits: list[float], temperature: float) -> list[float]:
    largest = max(logits)
    powers = [math.exp((z - largest) / temperature) for z in logits]
    return [power / sum(powers) for power in powers]


def kl(student: list[list[float]], teacher: list[list[float]], temperature: float) -> float:
    """KL(teacher || student), batch mean."""
    total = 0.0
    for z_s, z_t in zip(student, teacher, strict=True):
        for p_s, p_t in zip(softmax(z_s, temperature), softmax(z_t, temperature), strict=True):
            total += p_t * (math.log(p_t) - math.log(p_s)) if p_t > 0 else 0.0
    return total / len(student)


def labels_for(logits: Tensor) -> Tensor:
    return torch.arange(len(logits)) % logits.shape[1]


@given(batches, counts, st.floats(0, 3))
def test_balanced_softmax_weighs_every_class_by_its_count(logits: list[list[float]], n: list[int], tau: float) -> None:
    expected = 0.0
    for index, z in enumerate(logits):
        shifted = [z[c] + math.log(n[c] ** tau) for c in range(3)]
        largest = max(shifted)
        expected += largest + math.log(sum(math.exp(s - largest) for s in shifted)) - shifted[index % 3]
    log_counts = torch.tensor(n, dtype=torch.float64).log()
    loss = balanced_softmax(tensor(logits), labels_for(tensor(logits)), log_counts, tau)
    assert loss.item() == pytest.approx(expected / len(logits), rel=1e-9, abs=1e-9)


@given(batches, counts)
def test_balanced_softmax_is_cross_entropy_at_tau_0_and_for_equal_counts(
    logits: list[list[float]], n: list[int]
) -> None:
    z = tensor(logits)
    plain = F.cross_entropy(z, labels_for(z))
    skewed = torch.tensor(n, dtype=torch.float64).log()
    equal = torch.full((3,), float(n[0]), dtype=torch.float64).log()
    torch.testing.assert_close(balanced_softmax(z, labels_for(z), skewed, 0.0), plain)
    torch.testing.assert_close(balanced_softmax(z, labels_for(z), equal, 1.0), plain)


@given(batches, counts, st.floats(0, 3), st.floats(0, 1))
def test_a_smoothed_label_is_the_mean_of_the_label_and_of_all_classes(
    logits: list[list[float]], n: list[int], tau: float, smoothing: float
) -> None:
    z, log_counts = tensor(logits), torch.tensor(n, dtype=torch.float64).log()
    plain = balanced_softmax(z, labels_for(z), log_counts, tau)
    of_every_class = sum(balanced_softmax(z, torch.full((len(z),), c), log_counts, tau) for c in range(3)) / 3
    smoothed = balanced_softmax(z, labels_for(z), log_counts, tau, smoothing)
    torch.testing.assert_close(smoothed, (1 - smoothing) * plain + smoothing * of_every_class)


@given(pairs, st.floats(0.5, 8))
def test_distillation_is_the_divergence_from_the_teacher_times_the_squared_temperature(
    logits: tuple[list[list[float]], list[list[float]]], temperature: float
) -> None:
    student, teacher = logits
    expected = temperature**2 * kl(student, teacher, temperature)
    loss = distillation(tensor(student), tensor(teacher), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(pairs)
def test_gradient_matching_is_the_divergence_of_the_differences(
    differences: tuple[list[list[float]], list[list[float]]],
) -> None:
    student, teacher = differences
    loss = gradient_matching(tensor(student), tensor(teacher))
    assert loss.item() == pytest.approx(kl(student, teacher, 1.0), rel=1e-6, abs=1e-9)


@given(pairs, st.floats(0.5, 8))
def test_distillation_is_zero_only_where_both_agree(
    logits: tuple[list[list[float]], list[list[float]]], temperature: float
) -> None:
    student, teacher = (tensor(values) for values in logits)
    assert distillation(teacher, teacher, temperature).item() == pytest.approx(0, abs=1e-12)
    apart = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    loss = distillation(student, teacher, temperature).item()
    assert loss >= -1e-12
    if apart.abs().max() > 1e-2 and student.abs().max() < 5 and teacher.abs().max() < 5:
        assert loss > 1e-9


@given(pairs)
def test_a_hot_distillation_gradient_does_not_vanish_but_matches_logits(
    logits: tuple[list[list[float]], list[list[float]]],
) -> None:
    """For T → ∞ it tends to the difference of the centred logits over C (Hinton et al. 2015, section 2.1)."""
    student, teacher = (tensor(values) for values in logits)
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(distillation(student, teacher, 1e6), student)
    centred = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    torch.testing.assert_close(gradient, centred.detach() / 3 / len(student), rtol=1e-2, atol=1e-3)


@given(pairs, st.floats(-50, 50), st.floats(-50, 50))
def test_adding_a_constant_to_all_logits_of_an_example_changes_nothing(
    logits: tuple[list[list[float]], list[list[float]]], one: float, other: float
) -> None:
    student, teacher = (tensor(values) for values in logits)
    log_counts = tensor([[10.0, 100.0, 1000.0]])[0].log()
    terms: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda s, t: balanced_softmax(s, labels_for(s), log_counts, 1.5),
        lambda s, t: distillation(s, t, 2.0),
        gradient_matching,
    ]
    for term in terms:
        torch.testing.assert_close(term(student + one, teacher + other), term(student, teacher), rtol=1e-7, atol=1e-9)


def test_weights_may_be_tensors() -> None:
    z, other = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_counts = torch.tensor([5.0, 3.0, 1.0], dtype=torch.float64)
    number = torch.tensor(1.7, dtype=torch.float64)
    assert torch.equal(
        balanced_softmax(z, labels_for(z), log_counts, number), balanced_softmax(z, labels_for(z), log_counts, 1.7)
    )
    assert torch.equal(distillation(z, other, number), distillation(z, other, 1.7))
