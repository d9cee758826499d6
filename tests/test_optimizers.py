"""Optimizers and schedules: closed forms and torch's own, in one stage and in both, resumed and recorded."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from bits import same_bits
from tape import Tapes
from torch import nn

from ltsd import cuda_graphs
from ltsd.config import Config, OptimConfig
from ltsd.data import Splits
from ltsd.knobs import Value
from ltsd.optimizers import learning_rate, optimizer_for, set_rates
from ltsd.runs import Run, open_run
from ltsd.state import TrainState
from ltsd.teacher import teacher_config

CPU = torch.device("cpu")
FINE_TUNING: dict[str, Value] = {
    "optim.optimizer": "adamw",
    "optim.schedule": "cosine",
    "optim.lr": 1e-3,
    "optim.backbone_lr_scale": 0.1,
    "optim.warmup_epochs": 1,
    "optim.clip_grad_norm": 1.0,
    "optim.ema_decay": 0.9,
}


def opened(config: Config, splits: Splits, teacher: nn.Module | None, resume: Path | None = None) -> Run:
    return open_run(config, splits, splits.train, splits.val, CPU, teacher=teacher, resume=resume)


def state_of(small: Config, **optim: Value) -> TrainState:
    """A state whose gradients are drawn at random."""
    own = {"momentum": 0.0, "weight_decay": 0.0, **optim}
    state = TrainState.fresh(small.override({f"optim.{name}": value for name, value in own.items()}), 1, 10, CPU)
    torch.manual_seed(0)
    for weight in state.student.parameters():
        weight.grad = torch.randn_like(weight)
    return state


def test_the_learning_rate_rises_in_equal_steps_and_falls_as_a_cosine() -> None:
    rates = [learning_rate(0.4, epoch, 13, "cosine", warmup=3) for epoch in range(13)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert rates[3:] == pytest.approx([0.2 * (1 + math.cos(math.pi * k / 10)) for k in range(10)])
    assert [learning_rate(0.4, epoch, 10, warmup=1) for epoch in (0, 1, 8, 9)] == pytest.approx([0.2, 0.4, 0.04, 4e-3])


def test_parameters_outside_of_the_head_move_by_their_share(small: Config) -> None:
    state = state_of(small, backbone_lr_scale=0.25)
    before = {name: one.clone() for name, one in state.student.named_parameters()}
    state.begin_epoch(0.5, 0.25)
    state.update()
    for name, weight in state.student.named_parameters():
        assert weight.grad is not None
        rate = 0.5 if name.startswith("head.") else 0.125
        torch.testing.assert_close(weight, before[name] - rate * weight.grad)


def test_a_gradient_is_cut_down_to_its_largest_norm_and_a_shorter_one_is_left(small: Config) -> None:
    for largest in (1e-3, 1e6):
        state = state_of(small, clip_grad_norm=largest)
        before = [one.detach().clone() for one in state.student.parameters()]
        gradient = torch.cat([one.grad.flatten() for one in state.student.parameters() if one.grad is not None])
        state.begin_epoch(1.0, 1.0)
        state.update()
        moved = torch.cat([(old - new).flatten() for old, new in zip(before, state.student.parameters(), strict=True)])
        expected = gradient * min(1.0, largest / float(gradient.norm()))
        torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-6)


def test_adamw_is_that_of_torch(small: Config) -> None:
    ours, theirs = (TrainState.fresh(small, 1, 10, CPU).student for _ in range(2))
    optim = OptimConfig(optimizer="adamw", momentum=0.8, weight_decay=0.05, backbone_lr_scale=0.5)
    mine = optimizer_for(ours, optim, CPU)
    groups: list[dict[str, Any]] = [
        {"params": theirs.features.parameters(), "lr": 5e-3},
        {"params": theirs.head.parameters(), "lr": 1e-2},
    ]
    reference = torch.optim.AdamW(groups, betas=(0.8, 0.999), weight_decay=0.05)
    set_rates(mine, 1e-2, 0.5)
    inputs = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(4):
        for network, optimizer in ((ours, mine), (theirs, reference)):
            optimizer.zero_grad()
            network(inputs).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-3, atol=1e-5)


def test_a_resumed_run_comes_to_the_same_bits(
    small: Config, splits: Splits, teacher: nn.Module, tmp_path: Path
) -> None:
    config = small.override(FINE_TUNING)
    run = opened(config, splits, teacher)
    epochs = run.epochs()
    next(epochs)
    run.save(tmp_path / "one.pt")
    again = opened(config, splits, teacher, resume=tmp_path / "one.pt")
    assert len(list(again.epochs())) == len(list(epochs)) == 2
    assert same_bits(again.state.content(), run.state.content())


def test_a_recorded_run_comes_to_the_same_bits_and_the_next_one_with_other_numbers_goes_on_with_it(
    small: Config, splits: Splits, teacher: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = small.override({**FINE_TUNING, "epochs": 4})
    second = first.override({"optim.backbone_lr_scale": 0.3, "optim.lr": 2e-3, "optim.warmup_epochs": 0, "seed": 5})
    plain = small.override({"epochs": 4})
    expected = [states(config, splits, teacher) for config in (first, second, plain)]
    tapes = Tapes()
    monkeypatch.setitem(cuda_graphs.RECORDERS, "cpu", tapes)
    for config, state, recorded in zip((first, second, plain), expected, (1, 1, 2), strict=True):
        torch.testing.assert_close(states(config, splits, teacher), state, rtol=0, atol=0)
        assert tapes.recorded == recorded
    cuda_graphs._latest.clear()


def states(config: Config, splits: Splits, teacher: nn.Module) -> dict[str, Any]:
    """What training comes to."""
    run = opened(config, splits, teacher)
    list(run.epochs())
    content = run.state.content()
    return {"student": content["student"]} | content["optimizer"]


def test_the_teacher_has_fine_tuning_knobs_of_its_own_and_shares_the_kind_of_optimizer(small: Config) -> None:
    own = {"backbone_lr_scale": 0.5, "warmup_epochs": 2, "clip_grad_norm": 3.0}
    config = small.override(FINE_TUNING | {f"teacher.{name}": value for name, value in own.items()})
    optim = teacher_config(config, 1.0).optim
    assert (optim.optimizer, optim.schedule, optim.lr) == ("adamw", "cosine", small.teacher.lr)
    assert (optim.backbone_lr_scale, optim.warmup_epochs, optim.clip_grad_norm) == (0.5, 2, 3.0)
    plain = teacher_config(small, 1.0).optim
    assert teacher_config(small.override({"optim.clip_grad_norm": 2.0}), 1.0).optim == plain


def test_at_scale_1_there_is_one_group_and_sgd(small: Config) -> None:
    state = TrainState.fresh(small, 1, 10, CPU)
    assert isinstance(state.optimizer, torch.optim.SGD)
    assert len(state.optimizer.param_groups) == 1
