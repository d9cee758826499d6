"""What goes around any method: AWP, which moves the weights, and RobustLT, which gives each class its own budget."""

import math
from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ltsd.attacks.awp import perturbed_weights
from ltsd.attacks.robustlt import class_budgets
from ltsd.config import Config
from ltsd.data import Splits
from ltsd.methods import METHODS
from ltsd.state import TrainState
from ltsd.step import batch_of, budget_of, context_of, train_step
from ltsd.tasks import classification

CPU = torch.device("cpu")
ATTACKING = [name for name in METHODS if name != "natural"]
counts = st.lists(st.integers(1, 5000), min_size=2, max_size=12)


@given(counts=counts, eps=st.floats(0.01, 0.5), strength=st.floats(0, 1))
def test_budgets_have_the_mean_eps_and_grow_with_rarity(counts: list[int], eps: float, strength: float) -> None:
    images = torch.tensor(counts, dtype=torch.float64)
    budgets = class_budgets(images, eps=eps, strength=strength)
    assert (images / images.sum() * budgets).sum().item() == pytest.approx(eps)
    by_count = budgets[images.argsort(descending=True)]
    assert (by_count.diff() >= -1e-12).all()


def test_budgets_are_those_of_the_formula() -> None:
    """Zhang et al. 2026: (1 - a) eps + a eps sqrt(ln K_c) / sum_k pi_k sqrt(ln K_k)."""
    images, a, eps = (100, 10, 1), 0.3, 8 / 255
    roots = [math.sqrt(math.log(100 / n)) for n in images]
    mean = sum(n / 111 * root for n, root in zip(images, roots, strict=True))
    expected = [(1 - a) * eps + a * eps * root / mean for root in roots]
    budgets = class_budgets(torch.tensor(images, dtype=torch.float64), eps=eps, strength=a)
    assert budgets.tolist() == pytest.approx(expected)


def test_budgets_grow_from_nothing_over_the_ramp_and_steps_with_them() -> None:
    config = Config.preset("digits").override({"epochs": 10, "robustlt.strength": 0.3, "robustlt.ramp": 0.8})
    whole = class_budgets(torch.tensor([50.0, 5.0]), eps=0.1, strength=0.3)
    for epoch, share in [(0, 0.0), (4, 0.5), (8, 1.0), (9, 1.0)]:
        budget = budget_of(config, [50, 5], epoch, CPU)
        torch.testing.assert_close(budget.eps, share * whole)
        torch.testing.assert_close(budget.step_size, share * whole / 4)


def test_without_robustlt_every_class_has_eps_in_every_epoch() -> None:
    budget = budget_of(Config.preset("digits"), [50, 5], 0, CPU)
    torch.testing.assert_close(budget.eps, torch.tensor([0.1, 0.1]))


def line() -> tuple[nn.Linear, Tensor]:
    torch.manual_seed(0)
    return nn.Linear(3, 2).double(), torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)


@given(gamma=st.floats(1e-3, 0.5))
def test_weights_move_up_the_objective_by_their_share_of_their_length(gamma: float) -> None:
    """The objective sum(W x) has the gradient (x, x) in W: the greatest value in the ball is known."""
    model, inputs = line()
    before = model.weight.detach().clone()
    gradient = inputs.expand(2, 3)
    with perturbed_weights(model, lambda: model(inputs).sum(), gamma=gamma):
        expected = before + gamma * before.norm() * gradient / gradient.norm()
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight.detach(), before)


def test_biases_stay_and_statistics_of_batch_norm_are_those_of_one_pass() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    inputs = torch.randn(8, 3)
    once = deepcopy(model)
    with torch.no_grad():
        once(inputs)
    vectors = {name: value.clone() for name, value in model.named_parameters() if value.dim() == 1}
    with perturbed_weights(model, lambda: model(inputs).square().sum(), gamma=0.1):
        for name, value in vectors.items():
            assert torch.equal(dict(model.named_parameters())[name], value)
    before = deepcopy(dict(model.named_buffers()))
    assert all(torch.equal(value, torch.zeros_like(value)) for name, value in before.items() if "mean" in name)
    with torch.no_grad():
        model(inputs)
    for name, value in once.named_buffers():
        assert torch.equal(dict(model.named_buffers())[name], value)


def test_weights_are_restored_where_the_step_fails() -> None:
    model, inputs = line()
    before = model.weight.detach().clone()
    with pytest.raises(ZeroDivisionError), perturbed_weights(model, lambda: model(inputs).sum(), gamma=0.1):
        raise ZeroDivisionError
    assert torch.equal(model.weight.detach(), before)


@pytest.mark.parametrize("plugin", ["awp.gamma", "robustlt.strength"])
@pytest.mark.parametrize("name", ATTACKING)
def test_plugins_change_the_step_of_every_method_that_attacks(
    name: str, plugin: str, small: Config, splits: Splits, teacher: nn.Module
) -> None:
    inputs, labels = splits.train.take(torch.arange(0, len(splits.train), 3))
    counts = splits.train.class_counts()

    def stepped(config: Config) -> Tensor:
        state = TrainState.fresh(config, splits.shape[0], 10, CPU)
        around = context_of(config, counts, 2, None, teacher.eval(), CPU)
        budget = budget_of(config, counts, 2, CPU)
        batch = batch_of(classification.TASK, METHODS[name], inputs, labels, budget, torch.Generator().manual_seed(0))
        train_step(classification.TASK, METHODS[name], state, batch, around, budget)
        return torch.cat([parameter.detach().flatten() for parameter in state.student.parameters()])

    plain = small.override({"method": name})
    assert not torch.equal(stepped(plain), stepped(plain.override({plugin: 0.1})))
    assert torch.equal(stepped(plain), stepped(plain))
