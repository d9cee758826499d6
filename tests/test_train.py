"""The training loop: the same bits from the same seed, interrupted or not, and what a step may touch."""

from collections.abc import Callable
from copy import deepcopy
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bits import same_bits
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ltsd.attacks.domains import PIXELS
from ltsd.attacks.pgd import pgd
from ltsd.checkpoint import load_checkpoint, save_checkpoint
from ltsd.config import Config
from ltsd.data import Splits
from ltsd.errors import UserError
from ltsd.methods import METHODS
from ltsd.models.frozen import frozen
from ltsd.optimizers import learning_rate
from ltsd.runs import Run, open_run
from ltsd.state import TrainState
from ltsd.step import Step, batch_of, budget_of, context_of, train_step
from ltsd.tasks import TASKS
from ltsd.tasks.classification import teacher_split
from ltsd.teacher import teacher_config, teacher_gamma
from ltsd.train import DivergedError, Tally, train

CPU = torch.device("cpu")


def opened(config: Config, splits: Splits, teacher: nn.Module | None = None, resume: Path | None = None) -> Run:
    return open_run(config, splits, splits.train, splits.val, CPU, teacher=teacher, resume=resume)


def trained(config: Config, splits: Splits, teacher: nn.Module | None = None) -> Run:
    run = opened(config, splits, teacher)
    assert [metrics.epoch for metrics in run.epochs()] == list(range(1, config.epochs + 1))
    return run


def weights(run: Run) -> dict[str, Tensor]:
    return run.state.student.state_dict()


@pytest.mark.parametrize(
    ("method", "interrupted_after"),
    [("ltsd", 1), ("ltsd", 2), ("ltsd", 3), ("reat", 1), ("reat", 2), ("robal", 2), ("taet", 1)],
)
def test_a_resumed_run_equals_one_never_interrupted_bit_for_bit(
    small: Config, splits: Splits, teacher: nn.Module, tmp_path: Path, method: str, interrupted_after: int
) -> None:
    """REAT attacks by what the epoch before predicted, so that this has to be in the checkpoint too."""
    config = small.override(
        {
            "method": method,
            "optim.ema_decay": 0.9,
            "evaluate.every": 1,
            "data.augmentation": "crop-flip",
            "awp.gamma": 5e-3,
            "robustlt.strength": 0.3,
        }
    )
    whole = trained(config, splits, deepcopy(teacher))
    first = opened(config, splits, deepcopy(teacher))
    next(metrics for metrics in first.epochs() if metrics.epoch == interrupted_after)
    first.save(tmp_path / "run.pt")
    second = opened(config, splits, deepcopy(teacher), resume=tmp_path / "run.pt")
    assert [metrics.epoch for metrics in second.epochs()] == list(range(interrupted_after + 1, 4))
    assert not same_bits(whole.state.content()["average"], whole.state.content()["student"])
    assert same_bits(second.state.content(), whole.state.content())


def test_a_run_goes_on_only_with_the_configuration_it_was_started_with(
    small: Config, splits: Splits, tmp_path: Path
) -> None:
    config = small.override({"method": "at"})
    run = opened(config, splits)
    next(run.epochs())
    run.save(tmp_path / "run.pt")
    with pytest.raises(UserError, match=r"run\.pt: was made with optim\.lr = .* and cannot go on with 0\.5"):
        opened(config.override({"optim.lr": 0.5}), splits, resume=tmp_path / "run.pt")


def test_a_run_of_an_earlier_version_goes_on(small: Config, splits: Splits, tmp_path: Path) -> None:
    """It knows nothing of younger knobs, and one by the name that this had."""
    config = small.override({"method": "at"})
    run = opened(config, splits)
    next(run.epochs())
    run.save(tmp_path / "run.pt")
    content = load_checkpoint(tmp_path / "run.pt")
    del content["config"]["optim.warmup_epochs"]
    content["config"]["model.encoder_weights"] = content["config"].pop("model.weights")
    save_checkpoint(tmp_path / "earlier.pt", content)
    again = opened(config, splits, resume=tmp_path / "earlier.pt")
    assert len(list(again.epochs())) == len(list(run.epochs()))
    assert same_bits(again.state.content(), run.state.content())
    with pytest.raises(UserError, match=r"earlier\.pt: was made with optim\.warmup_epochs = 0 and cannot go on with 1"):
        opened(config.override({"optim.warmup_epochs": 1}), splits, resume=tmp_path / "earlier.pt")


def test_the_seed_decides_the_weights_and_nothing_else_does(small: Config, splits: Splits) -> None:
    config = small.override({"method": "at", "epochs": 1})
    first = trained(config, splits)
    torch.manual_seed(12345)
    assert same_bits(trained(config, splits).state.content(), first.state.content())
    other = trained(config.override({"seed": 1}), splits)
    assert not same_bits(weights(other)["head.weight"], weights(first)["head.weight"])


def test_every_epoch_of_every_seed_has_an_order_of_its_own(small: Config, splits: Splits) -> None:
    orders: list[bytes] = []
    for seed in (0, 1):
        run = opened(small.override({"method": "natural", "seed": seed}), splits)
        seen = list[Tensor]()
        run.state.student.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0]))
        for _ in train(run.config, run.state, run.data, None, None):
            orders.append(torch.cat(seen).numpy().tobytes())
            seen.clear()
    assert len(set(orders)) == len(orders) == 6


@given(epochs=st.integers(1, 500), data=st.data())
def test_the_learning_rate_is_a_closed_form_of_the_epoch(epochs: int, data: st.DataObject) -> None:
    epoch = data.draw(st.integers(0, epochs - 1))
    done = Fraction(epoch, epochs)
    tenths = (done >= Fraction(3, 4)) + (done >= Fraction(9, 10))
    assert learning_rate(0.2, epoch, epochs) == pytest.approx(0.2 / 10**tenths, rel=1e-12)


def test_the_optimizer_follows_the_schedule(small: Config, splits: Splits) -> None:
    run = opened(small.override({"method": "natural", "epochs": 10, "data.n_max": 30}), splits)
    rates = []
    for metrics in run.epochs():
        rates.append(float(run.state.optimizer.param_groups[0]["lr"]))
        assert metrics.values["train/lr"] == pytest.approx(rates[-1])
    assert rates == pytest.approx([0.1] * 8 + [0.01] + [0.001])


def test_validates_every_so_many_epochs_and_after_the_last(small: Config, splits: Splits) -> None:
    run = trained(small.override({"method": "at", "evaluate.every": 2}), splits)
    validated = [metrics.epoch for metrics in run.state.history if "val/robust_acc" in metrics.values]
    assert validated == [2, 3]
    assert [metrics.epoch for metrics in run.state.history if metrics.per_class] == validated


def test_the_student_trains_and_the_teacher_rests_in_every_epoch(
    small: Config, splits: Splits, teacher: nn.Module
) -> None:
    before = deepcopy(teacher.state_dict())
    run = opened(small.override({"evaluate.every": 1}), splits, teacher)
    for _ in run.epochs():
        assert all(module.training for module in run.state.student.modules())
        assert not any(module.training for module in teacher.modules())
    assert same_bits(dict(teacher.state_dict()), dict(before))


def test_the_attack_does_not_touch_the_statistics_of_batch_norm(small: Config, splits: Splits) -> None:
    """After a step they are what one forward pass on the adversarial batch makes of them."""
    config = small.override({"method": "at", "attack.steps": 5})
    state = TrainState.fresh(config, splits.shape[0], 10, CPU)
    reference = deepcopy(state.student)
    inputs, labels = splits.train.take(torch.arange(32))
    around, budget = context_of(config, [1] * 10, 0, None, None, CPU), budget_of(config, [1] * 10, 0, CPU)
    batch = batch_of(TASKS[config.task], METHODS["at"], inputs, labels, budget, torch.Generator().manual_seed(3))
    train_step(TASKS[config.task], METHODS["at"], state, batch, around, budget)
    rested = frozen(reference)
    adv_inputs = pgd(
        lambda x: F.cross_entropy(rested(x), labels, reduction="sum"),
        inputs,
        domain=PIXELS,
        eps=config.attack.eps,
        step_size=config.attack.resolved_step_size,
        steps=5,
        start=PIXELS.uniform(inputs, eps=config.attack.eps, generator=torch.Generator().manual_seed(3)),
    )
    reference(adv_inputs)
    assert same_bits(dict(state.student.named_buffers()), dict(reference.named_buffers()))


def test_the_average_of_the_weights_forgets_by_its_decay(small: Config, splits: Splits) -> None:
    """With one step an epoch the average can be followed from outside; early steps average over fewer."""
    everything: dict[str, Any] = {"optim.batch_size": 10_000, "optim.ema_decay": 0.25, "epochs": 4}
    run = opened(small.override({"method": "natural", **everything}), splits)
    assert run.state.average is not None
    expected = deepcopy(dict(run.state.average.named_parameters()))
    for metrics in run.epochs():
        decay = min(0.25, (1 + metrics.epoch) / (10 + metrics.epoch))
        for name, value in run.state.student.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * value.detach()
        torch.testing.assert_close(dict(run.state.average.named_parameters()), expected)
    assert run.state.model is run.state.average
    assert not any(parameter.requires_grad for parameter in run.state.average.parameters())


@pytest.mark.parametrize("method", ["at", "natural"])
def test_a_loss_that_is_not_finite_ends_the_run(small: Config, splits: Splits, method: str) -> None:
    run = opened(small.override({"method": method, "optim.lr": 1e30}), splits)
    with pytest.raises(DivergedError, match=r"epoch 1 of 3 diverged: the loss of batch 2 of \d is (nan|inf); lower"):
        list(run.epochs())
    assert run.state.history == []


def poison(state: TrainState, what: str) -> None:
    """Make the first entry of a tensor infinite."""
    module = state.average if what.startswith("the average") else state.student
    assert module is not None
    with torch.no_grad():
        module.state_dict()[what.removeprefix("the average of ")].view(-1)[0] = float("inf")


@pytest.mark.parametrize("is_validated", [True, False])
@pytest.mark.parametrize(
    "what",
    ["features.2.running_var", "features.2.running_mean", "the average of head.weight", "the average of head.bias"],
)
def test_a_state_that_is_not_finite_ends_the_run_though_its_loss_is(
    small: Config, splits: Splits, tmp_path: Path, what: str, is_validated: bool
) -> None:
    """Under `natural` no attack meets the statistics; the average is met by nobody. Nor is it gone on with later."""
    config = small.override({"method": "natural", "optim.ema_decay": 0.9, "evaluate.every": 1})
    val = splits.val if is_validated else None
    run = open_run(config, splits, splits.train, val, CPU, teacher=None, resume=None)
    epochs = run.epochs()
    next(epochs)
    poison(run.state, what)
    with pytest.raises(DivergedError, match=f"epoch 2 of 3 diverged: {what} is not finite .* lower optim.lr"):
        next(epochs)
    assert [metrics.epoch for metrics in run.state.history] == [1]
    run.save(tmp_path / "run.pt")
    with pytest.raises(DivergedError, match=f"epoch 1 of 3 diverged: {what} is not finite"):
        list(opened(config, splits, resume=tmp_path / "run.pt").epochs())


def answers_nan(run: Run, when: Callable[[nn.Module, Tensor], bool]) -> None:
    """Have a run's network, finite in all that it is made of, answer NaN to some batches."""

    def spoil(head: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> Tensor:
        return logits * float("nan") if when(head, inputs[0]) else logits

    run.state.model.head.register_forward_hook(spoil)


@pytest.mark.parametrize("epochs", [3, 2])
def test_a_network_that_answers_nan_to_validation_images_alone_ends_the_run(
    small: Config, splits: Splits, epochs: int
) -> None:
    run = opened(small.override({"method": "at", "epochs": epochs}), splits)
    answers_nan(run, lambda head, features: len(features) == len(splits.val))
    with pytest.raises(
        DivergedError, match="answers NaN or infinity on 30 of 30 images that it is validated on; lower"
    ):
        list(run.epochs())
    assert [metrics.epoch for metrics in run.state.history] == [1]


@pytest.mark.parametrize("method", ["natural", "at"])
def test_a_run_without_validation_ends_where_its_network_answers_nan_once_it_is_trained(
    small: Config, splits: Splits, method: str
) -> None:
    """As teachers do, and final runs: of these nothing is measured while they train."""
    config = small.override({"method": method})
    run = open_run(config, splits, splits.train, None, CPU, teacher=None, resume=None)
    answers_nan(run, lambda head, features: not head.training)
    count = len(splits.train)
    with pytest.raises(DivergedError, match=f"answers NaN or infinity on {count} of {count} training images; lower"):
        list(run.epochs())
    assert [metrics.epoch for metrics in run.state.history] == [1, 2]


def test_a_batch_that_is_answered_nan_is_none_of_those_that_were_trained_rightly(small: Config, splits: Splits) -> None:
    labels, predicted, right = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]), torch.tensor([False, True, False])
    tally = Tally(3, CPU)
    tally.add(Step({"loss": torch.zeros(())}, labels, predicted, right, True))
    assert tally.means()["train/robust_acc"] == pytest.approx(1 / 3)


def test_without_prior_the_balanced_loss_trains_as_plain_adversarial_training(small: Config, splits: Splits) -> None:
    config = small.override({"epochs": 1})
    balanced = trained(config.override({"method": "at-bsl", "balance.softmax_tau": 0.0}), splits)
    assert same_bits(weights(balanced), weights(trained(config.override({"method": "at"}), splits)))
    prior = trained(config.override({"method": "at-bsl", "balance.softmax_tau": 1.0}), splits)
    assert not same_bits(weights(prior), weights(balanced))


@pytest.mark.parametrize(("epochs", "matters"), [(1, False), (2, True)])
def test_gradient_matching_is_ramped_in_from_nothing(
    small: Config, splits: Splits, teacher: nn.Module, epochs: int, matters: bool
) -> None:
    runs = [
        trained(small.override({"epochs": epochs, "distill.igdm_weight": weight}), splits, deepcopy(teacher))
        for weight in (1.0, 5.0)
    ]
    assert same_bits(*map(weights, runs)) is not matters


def test_a_method_that_learns_from_a_teacher_asks_for_one(small: Config, splits: Splits) -> None:
    with pytest.raises(UserError, match="method ltsd learns from a teacher and none is given"):
        opened(small, splits, teacher=None)


def test_the_teachers_images_are_balanced_and_gamma_times_the_smallest_class(splits: Splits) -> None:
    smallest = min(splits.train.class_counts())
    for gamma in (1.0, 2.5, 100.0):
        resample = teacher_split(splits.train, gamma, seed=0)
        assert resample.class_counts() == [int(gamma * smallest)] * 10
        assert set(resample.rows.tolist()) <= set(splits.train.rows.tolist())
    with pytest.raises(UserError, match=r"balance\.teacher_gamma = 0\.01 leaves no image per class"):
        teacher_split(splits.train, 0.01, seed=0)


def test_gamma_is_half_the_imbalance_ratio_unless_it_is_set(small: Config) -> None:
    assert teacher_gamma(small, 50.0) == 25.0
    assert teacher_gamma(small, 1.0) == 1.0
    assert teacher_gamma(small.override({"balance.teacher_gamma": 3.0}), 50.0) == 3.0


@pytest.mark.parametrize(("adversarial", "method"), [(True, "at"), (False, "natural")])
def test_the_teacher_is_trained_as_a_run_of_its_own(small: Config, adversarial: bool, method: str) -> None:
    config = teacher_config(small.override({"teacher.adversarial": adversarial, "teacher.lr": 0.3}), 2.0)
    assert (config.method, config.epochs, config.optim.lr) == (method, small.teacher.epochs, 0.3)
    assert (config.model, config.data, config.attack, config.seed) == (small.model, small.data, small.attack, 0)
