"""A recorded step does what the step as it is written does, for every method, whatever changes from step to step."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from tape import Tapes
from torch import Tensor, nn

from ltsd import cuda_graphs
from ltsd.config import Config
from ltsd.data import Splits
from ltsd.methods import METHODS, at
from ltsd.runs import open_run

CPU = torch.device("cpu")


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tapes]:
    """Processors record, too."""
    tapes = Tapes()
    monkeypatch.setitem(cuda_graphs.RECORDERS, "cpu", tapes)
    yield tapes
    cuda_graphs._latest.clear()


def trained(config: Config, splits: Splits, teacher: nn.Module) -> dict[str, Any]:
    """All that training comes to, but for the seconds."""
    run = open_run(config, splits, splits.train, splits.val, CPU, teacher=deepcopy(teacher), resume=None)
    measured = [(metrics.values, metrics.per_class) for metrics in run.epochs()]
    content = run.state.content()
    return {"measured": measured, "student": content["student"], "average": content["average"]} | content["optimizer"]


def as_written(monkeypatch: pytest.MonkeyPatch, *run: Any) -> dict[str, Any]:
    with monkeypatch.context() as patch:
        patch.delitem(cuda_graphs.RECORDERS, "cpu")
        return trained(*run)


@pytest.mark.parametrize("plugins", [{}, {"awp.gamma": 5e-3, "robustlt.strength": 0.3, "optim.ema_decay": 0.9}])
@pytest.mark.parametrize("name", METHODS)
def test_recorded_training_comes_to_the_same_bits(
    name: str,
    plugins: dict[str, Any],
    small: Config,
    splits: Splits,
    teacher: nn.Module,
    tapes: Tapes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over epochs in which learning rate, ramps, budgets, what REAT counts and TAET's phase change."""
    config = small.override({"method": name, "epochs": 4, "optim.lr": 0.05, **plugins})
    if name == "natural":
        config = config.override({"robustlt.strength": 0.0})
    phases = 2 if name == "taet" else 1
    torch.testing.assert_close(
        trained(config, splits, teacher), as_written(monkeypatch, config, splits, teacher), rtol=0, atol=0
    )
    steps = 4 * (len(splits.train) // 32)
    assert (tapes.recorded, tapes.replayed) == (phases, steps - phases * cuda_graphs.WARM_STEPS)


def test_the_next_run_of_the_same_kind_goes_on_with_the_recording(
    small: Config, splits: Splits, teacher: nn.Module, tapes: Tapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every searched number, the seed, the threat and the teacher another; batch or network make another kind."""
    other_teacher = deepcopy(teacher)
    with torch.no_grad():
        for weight in other_teacher.parameters():
            weight.mul_(0.9)
    trained(small, splits, teacher)
    searched = {"distill.temperature": 3.0, "distill.kl_weight": 0.3, "distill.igdm_weight": 7.0}
    others = small.override(
        {**searched, "balance.softmax_tau": 0.2, "optim.lr": 0.03, "seed": 5, "attack.eps": 0.05, "epochs": 4}
    )
    again = trained(others, splits, other_teacher)
    assert tapes.recorded == 1
    torch.testing.assert_close(again, as_written(monkeypatch, others, splits, other_teacher), rtol=0, atol=0)
    for kind in ({"optim.batch_size": 16}, {"model.width": 16}, {"attack.steps": 3}):
        before = tapes.recorded
        trained(small.override({"method": "at", **kind}), splits, teacher)
        assert tapes.recorded == before + 1


def test_runs_that_take_turns_do_not_disturb_each_other(
    small: Config, splits: Splits, teacher: nn.Module, tapes: Tapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [small.override({"seed": seed}) for seed in (0, 1)]
    runs = [open_run(c, splits, splits.train, None, CPU, teacher=deepcopy(teacher), resume=None) for c in configs]
    for _ in zip(*(run.epochs() for run in runs), strict=True):
        pass
    for config, run in zip(configs, runs, strict=True):
        alone = as_written(monkeypatch, config, splits, teacher)["student"]
        torch.testing.assert_close(run.state.content()["student"], alone, rtol=0, atol=0)


def test_a_method_that_reads_a_number_off_the_device_is_done_as_it_is_written(
    small: Config, splits: Splits, teacher: nn.Module, tapes: Tapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def objective(student: nn.Module, inputs: Tensor, *rest: Any) -> Any:
        loss, measurements = at.objective(student, inputs, *rest)
        return (loss if loss > 2 else 2 * loss), measurements

    monkeypatch.setitem(METHODS, "at", replace(at.METHOD, objective=objective))
    config = small.override({"method": "at"})
    with pytest.warns(UserWarning, match="steps are not recorded, and so slower: it waits for the device"):
        found = trained(config, splits, teacher)
    torch.testing.assert_close(found, as_written(monkeypatch, config, splits, teacher), rtol=0, atol=0)
    assert tapes.recorded == 0
