"""Auto-PGD where the best perturbation is known, where steps must halve, and what holds of every perturbation."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ltsd.attacks.apgd import apgd, checkpoints


def drawn(seed: int, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * noise


def test_checkpoints_are_those_of_the_paper_for_100_steps() -> None:
    """Shares 0.22, then 0.19, 0.16, 0.13, 0.10, 0.07, 0.06, 0.06 more of the steps (section 4)."""
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == []


@given(seed=st.integers(0, 10**6), eps=st.floats(0.01, 1.0))
def test_reaches_the_optimum_of_ball_and_box_on_a_linear_model(seed: int, eps: float) -> None:
    """The margin w · x is greatest at clamp(x + eps sign(w))."""
    inputs, start, w = drawn(seed, 3, 5), drawn(seed + 2, 3, 5), drawn(seed + 1, 5, low=-1)

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        return x @ w, x @ w

    found = apgd(objective, inputs, eps=eps, steps=10, start=start)
    torch.testing.assert_close(found, (inputs + eps * w.sign()).clamp(0, 1))


@given(seed=st.integers(0, 10**6))
def test_finds_a_peak_inside_the_ball_more_closely_than_its_first_step_allows(seed: int) -> None:
    """Signed steps of 2 eps leap over the peak of -|x - peak|; each of several halvings comes nearer to it."""
    inputs, eps = torch.full((4, 3), 0.5, dtype=torch.float64), 0.1
    peak = inputs + drawn(seed, 4, 3, low=-eps, high=eps) * 0.9

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        score = -(x - peak).abs().sum(1)
        return score, score

    found = apgd(objective, inputs, eps=eps, steps=100, start=inputs)
    assert (found - peak).abs().max() < eps / 10


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), eps=st.floats(0.01, 0.5), steps=st.integers(1, 12))
def test_is_never_worse_than_its_start_stays_in_the_ball_and_returns_the_best_point_it_saw(
    seed: int, eps: float, steps: int
) -> None:
    inputs, start, w = drawn(seed, 3, 5), drawn(seed + 1, 3, 5), drawn(seed + 2, 5, 5, low=-9, high=9)
    seen = list[Tensor]()

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        score = (x @ w).sin().sum(1)
        seen.append(score.detach())
        return (x @ w).cos().sum(1), score

    found = apgd(objective, inputs, eps=eps, steps=steps, start=start)
    assert len(seen) == steps + 1
    assert torch.equal(objective(found)[1], torch.stack(seen[: steps + 1]).amax(0))
    assert (found - inputs).abs().max() <= eps + 1e-12
    assert (found.min(), found.max()) >= (0, 0)
    assert found.max() <= 1
    alone = apgd(objective, inputs[1:2], eps=eps, steps=steps, start=start[1:2])
    torch.testing.assert_close(alone, found[1:2])
