"""Balls of sound and of sequences of vectors: what holds of every attack in them, and where the best point is known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ltsd.attacks.domains import PIXELS, SOUND, WORDS, Domain
from ltsd.attacks.pgd import pgd

EPS = 0.2


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sounds(seed: int) -> Tensor:
    """Three clips: the first fills its length, the others are padded; the second has a silence within."""
    clips = drawn(seed, 3, 1, 8).clamp(-0.7, 0.7)
    clips[1, :, 2:4], clips[1, :, 6:], clips[2, :, 3:] = 0, 0, 0
    return clips


def sentences(seed: int) -> Tensor:
    """Two sequences [D, L] of vectors of several lengths; the second is padded."""
    vectors = drawn(seed, 2, 4, 5) * torch.tensor([0.5, 1, 2, 4, 8], dtype=torch.float64)
    vectors[1, :, 3:] = 0
    return vectors


def attacked(domain: Domain, inputs: Tensor, weights: Tensor, *, start: Tensor) -> Tensor:
    objective = lambda x: (x * weights).sum()  # noqa: E731
    return pgd(objective, inputs, domain=domain, eps=EPS, step_size=EPS / 4, steps=12, start=start)


@pytest.mark.parametrize(("domain", "make"), [(SOUND, sounds), (WORDS, sentences)])
@given(seed=st.integers(0, 10**6))
def test_what_pads_an_input_is_never_touched(domain: Domain, make: object, seed: int) -> None:
    inputs = make(seed)  # type: ignore[operator]
    padding = (inputs == 0) if domain is WORDS else torch.zeros_like(inputs, dtype=torch.bool)
    if domain is SOUND:
        padding[1, :, 6:], padding[2, :, 3:] = True, True
    generator = torch.Generator().manual_seed(seed)
    uniform = domain.uniform(inputs, eps=EPS, generator=generator)
    noisy = domain.ball(inputs, EPS).project(domain.gaussian(inputs, generator=generator))
    found = attacked(domain, inputs, drawn(seed + 1, *inputs.shape), start=uniform)
    for moved in (uniform, noisy, found):
        assert (moved[padding] == 0).all()
        assert (moved != inputs)[~padding].all()


def test_a_silence_within_a_clip_is_attacked_as_its_sounds_are() -> None:
    inputs, weights = sounds(0), drawn(1, 3, 1, 8)
    found = attacked(SOUND, inputs, weights, start=inputs)
    torch.testing.assert_close(found[1, :, 2:4], EPS * weights[1, :, 2:4].sign())


def test_sound_ends_where_its_range_does() -> None:
    inputs = torch.full((1, 1, 4), 0.9)
    assert attacked(SOUND, inputs, torch.ones(1, 1, 4), start=inputs).max() == 1
    assert attacked(SOUND, -inputs, -torch.ones(1, 1, 4), start=-inputs).min() == -1


@given(seed=st.integers(0, 10**6))
def test_the_best_vectors_of_a_linear_model_lie_along_its_weights_at_a_share_of_their_length(seed: int) -> None:
    """Of all points within a radius r of e, e + r w / |w| has the largest product with w, where r = eps |e|."""
    inputs, weights = sentences(seed), drawn(seed + 1, 2, 4, 5)
    start = WORDS.uniform(inputs, eps=EPS, generator=torch.Generator().manual_seed(seed))
    found = attacked(WORDS, inputs, weights, start=start)
    best = inputs + EPS * inputs.norm(dim=1, keepdim=True) * weights / weights.norm(dim=1, keepdim=True)
    gained, most = ((one * weights).sum() - (inputs * weights).sum() for one in (found, best))
    assert ((found - inputs).norm(dim=1) <= EPS * inputs.norm(dim=1) * (1 + 1e-9)).all()
    assert gained <= most * (1 + 1e-9)
    assert gained >= 0.9 * most
    straight = attacked(WORDS, inputs, weights, start=inputs)
    torch.testing.assert_close(straight, best)


def test_a_uniform_start_among_vectors_fills_the_ball() -> None:
    """Of a ball in D dimensions, a share q^D lies within a share q of its radius (Kolmogorov-Smirnov, 1%)."""
    inputs = torch.ones(1, 3, 20_000, dtype=torch.float64)
    start = WORDS.uniform(inputs, eps=EPS, generator=torch.Generator().manual_seed(0))
    reach, _ = ((start - inputs).norm(dim=1).flatten() / (EPS * math.sqrt(3))).sort()
    ranks = torch.arange(1, len(reach) + 1) / len(reach)
    assert (reach**3 - ranks).abs().max().item() < 1.63 / math.sqrt(len(reach))
    assert (start - inputs).mean().abs().item() < 5e-3


@pytest.mark.parametrize(("domain", "make"), [(PIXELS, sounds), (SOUND, sounds), (WORDS, sentences)])
def test_an_attack_without_a_gradient_stays(domain: Domain, make: object) -> None:
    inputs = make(0).abs()  # type: ignore[operator]
    assert torch.equal(attacked(domain, inputs, torch.zeros_like(inputs), start=inputs), inputs)
