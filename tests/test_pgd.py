"""PGD where the best perturbation is known, and what holds of every perturbation."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ltsd.attacks.domains import PIXELS
from ltsd.attacks.pgd import pgd


def drawn(seed: int, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * noise


def begin(inputs: Tensor, eps: float | Tensor, seed: int | None) -> Tensor:
    """A uniform start from a seed; None: the inputs themselves."""
    if seed is None:
        return inputs
    return PIXELS.uniform(inputs, eps=eps, generator=torch.Generator().manual_seed(seed))


def direction(seed: int, size: int) -> Tensor:
    """Weights away from zero, of both signs."""
    w = drawn(seed, size, low=-1, high=1)
    return w + 0.1 * w.sign()


@given(seed=st.integers(0, 10**6), eps=st.floats(0.01, 0.2), started_at_random=st.booleans())
def test_reaches_the_optimum_of_the_ball_on_a_linear_model(seed: int, eps: float, started_at_random: bool) -> None:
    """The margin w · x is greatest at x + eps sign(w), where no side of the box is in the way."""
    inputs, w = drawn(seed, 3, 5, low=0.2, high=0.8), direction(seed + 1, 5)
    start = begin(inputs, eps, seed if started_at_random else None)
    adv_inputs = pgd(lambda x: (x @ w).sum(), inputs, domain=PIXELS, eps=eps, step_size=eps / 4, steps=9, start=start)
    torch.testing.assert_close(adv_inputs, inputs + eps * w.sign())


@given(seed=st.integers(0, 10**6), eps=st.floats(0.05, 1.0))
def test_reaches_the_optimum_of_ball_and_box_where_the_box_is_in_the_way(seed: int, eps: float) -> None:
    inputs, w = drawn(seed, 3, 5), direction(seed + 1, 5)
    start = begin(inputs, eps, seed)
    adv_inputs = pgd(lambda x: (x @ w).sum(), inputs, domain=PIXELS, eps=eps, step_size=eps / 4, steps=9, start=start)
    torch.testing.assert_close(adv_inputs, (inputs + eps * w.sign()).clamp(0, 1))


@given(seed=st.integers(0, 10**6), eps=st.floats(0.01, 0.2))
def test_maximises_the_cross_entropy_of_a_linear_classifier(seed: int, eps: float) -> None:
    """The loss of two classes is log(1 + exp(-m)) of the margin m, and the ball lowers m by eps ‖w‖₁."""
    inputs, w = drawn(seed, 4, 5, low=0.2, high=0.8), direction(seed + 1, 5)
    labels = torch.tensor([0, 1, 0, 1])

    def cross_entropy(x: Tensor) -> Tensor:
        return F.cross_entropy(torch.stack([torch.zeros(len(x), dtype=x.dtype), x @ w], 1), labels, reduction="sum")

    start = begin(inputs, eps, seed)
    adv_inputs = pgd(cross_entropy, inputs, domain=PIXELS, eps=eps, step_size=eps / 4, steps=9, start=start)
    margins = (2 * labels - 1) * (inputs @ w) - eps * w.abs().sum()
    best = sum(math.log1p(math.exp(-margin)) for margin in margins.tolist())
    assert cross_entropy(adv_inputs).item() == pytest.approx(best)


@given(
    seed=st.integers(0, 10**6),
    eps=st.floats(1e-3, 1.0),
    step_size=st.floats(1e-4, 1.0),
    steps=st.integers(0, 4),
    started_at_random=st.booleans(),
)
def test_never_leaves_ball_or_box_and_leaves_the_inputs_alone(
    seed: int, eps: float, step_size: float, steps: int, started_at_random: bool
) -> None:
    inputs = drawn(seed, 2, 1, 4, 4).float()
    before = inputs.clone()
    start = begin(inputs, eps, seed if started_at_random else None)
    adv_inputs = pgd(
        lambda x: (x * 9).sin().sum(), inputs, domain=PIXELS, eps=eps, step_size=step_size, steps=steps, start=start
    )
    assert (adv_inputs - inputs).abs().max().item() <= eps + 1e-6
    assert 0 <= adv_inputs.min().item() <= adv_inputs.max().item() <= 1
    assert torch.equal(inputs, before)
    assert not adv_inputs.requires_grad


def test_the_random_start_is_uniform_on_both_sides() -> None:
    """Largest gap between the empirical and the uniform distribution: the Kolmogorov-Smirnov test at the 1% level."""
    inputs = torch.full((20_000,), 0.5, dtype=torch.float64)
    start = begin(inputs, 0.1, 0)
    noise, _ = ((start - 0.5) / 0.1).sort()
    uniform = (noise + 1) / 2
    ranks = torch.arange(1, len(noise) + 1) / len(noise)
    assert (uniform - ranks).abs().max().item() < 1.63 / math.sqrt(len(noise))


def test_the_generator_decides_the_start() -> None:
    inputs = drawn(0, 2, 3)
    assert torch.equal(begin(inputs, 0.1, 1), begin(inputs, 0.1, 1))
    assert not torch.equal(begin(inputs, 0.1, 1), begin(inputs, 0.1, 2))


def test_the_gaussian_start_is_a_thousandth_of_the_normal_distribution() -> None:
    inputs = torch.full((20_000,), 0.5, dtype=torch.float64)
    noise = PIXELS.gaussian(inputs, generator=torch.Generator().manual_seed(0)) - 0.5
    assert noise.mean().item() == pytest.approx(0, abs=3e-5)
    assert noise.std().item() == pytest.approx(0.001, rel=0.03)


def test_a_start_outside_is_projected_before_the_first_step() -> None:
    inputs = drawn(0, 2, 3)
    far = pgd(lambda x: x.sum(), inputs, domain=PIXELS, eps=0.1, step_size=0.1, steps=0, start=inputs + 0.5)
    torch.testing.assert_close(far, (inputs + 0.1).clamp(0, 1))


def test_every_example_may_have_a_radius_of_its_own() -> None:
    inputs, w, eps = drawn(0, 3, 5, low=0.3, high=0.7), direction(1, 5), torch.tensor([[0.05], [0.1], [0.2]])
    adv_inputs = pgd(
        lambda x: (x @ w).sum(), inputs, domain=PIXELS, eps=eps, step_size=eps / 4, steps=9, start=begin(inputs, eps, 2)
    )
    torch.testing.assert_close(adv_inputs, inputs + eps.double() * w.sign())


def test_the_budget_is_given_by_name_and_never_by_default() -> None:
    inputs = drawn(0, 2, 3)
    budget = {"domain": PIXELS, "eps": 0.1, "step_size": 0.1, "steps": 1, "start": inputs}
    pgd(Tensor.sum, inputs, **budget)
    for name in budget:
        with pytest.raises(TypeError, match=name):
            pgd(Tensor.sum, inputs, **{other: value for other, value in budget.items() if other != name})
    with pytest.raises(TypeError, match="positional"):
        pgd(Tensor.sum, inputs, *budget.values())


@pytest.mark.parametrize("training", [True, False])
def test_leaves_mode_and_gradients_of_the_model_alone(training: bool) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double().train(training)
    inputs, labels = drawn(0, 4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
    pgd(
        lambda x: F.cross_entropy(model(x), labels),
        inputs,
        domain=PIXELS,
        eps=0.1,
        step_size=0.05,
        steps=2,
        start=inputs,
    )
    assert [module.training for module in model.modules()] == [training] * 3
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_the_perturbation_of_an_image_does_not_depend_on_its_batch() -> None:
    weights = drawn(5, 16, 3, low=-1, high=1)
    inputs, labels = drawn(0, 4, 16), torch.tensor([0, 1, 2, 0])

    def attacked(rows: slice) -> Tensor:
        def loss(x: Tensor) -> Tensor:
            return F.cross_entropy((x @ weights).tanh(), labels[rows], reduction="sum")

        return pgd(loss, inputs[rows], domain=PIXELS, eps=0.1, step_size=0.03, steps=5, start=inputs[rows])

    alone = torch.cat([attacked(slice(i, i + 1)) for i in range(4)])
    torch.testing.assert_close(alone, attacked(slice(0, 4)))
