"""What each method minimises and what its attack maximises, against the formulas on a batch."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ltsd.config import Config
from ltsd.data import Splits
from ltsd.methods import METHODS
from ltsd.methods.setting import Setting
from ltsd.train import TrainState, train_step

LABELS = torch.tensor([0, 2, 1, 0])
COUNTS = (50, 8, 3)


class Bent(nn.Module):
    """Logits w_k · x + 2 sin(x_k): not linear, so that f(x + d) - f(x - d) is no multiple of f(x + d)."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        weights = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.weights = nn.Parameter(weights)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weights.T + 2 * (inputs * 5).sin()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(4, 3, generator=generator, dtype=torch.float64)
    return inputs, inputs + 0.1 * (2 * torch.rand(4, 3, generator=generator, dtype=torch.float64) - 1)


def setting() -> Setting:
    return Setting(
        log_counts=torch.tensor(COUNTS, dtype=torch.float64).log(),
        progress=0.25,
        softmax_tau=1.3,
        temperature=2.5,
        kl_weight=0.7,
        igdm_weight=4.0,
        teacher=Bent(9),
    )


def softmax(logits: list[float]) -> list[float]:
    return [math.exp(z) / sum(math.exp(other) for other in logits) for z in logits]


def divergence(teacher: list[float], student: list[float]) -> float:
    return sum(t * math.log(t / s) for t, s in zip(softmax(teacher), softmax(student), strict=True))


def logits_of(model: nn.Module, inputs: Tensor) -> list[list[float]]:
    rows: list[list[float]] = model(inputs).tolist()
    return rows


def cross_entropy(rows: list[list[float]], tau: float = 0.0) -> list[float]:
    shifted = [[z + tau * math.log(n) for z, n in zip(row, COUNTS, strict=True)] for row in rows]
    return [-math.log(softmax(row)[y]) for row, y in zip(shifted, LABELS.tolist(), strict=True)]


def test_ltsd_minimises_balanced_loss_distillation_and_ramped_gradient_matching() -> None:
    student, (inputs, adv_inputs), s = Bent(1), batch(), setting()
    assert s.teacher is not None
    f_s, f_t = logits_of(student, adv_inputs), logits_of(s.teacher, adv_inputs)
    mirrored = inputs - (adv_inputs - inputs)
    g_s, g_t = logits_of(student, mirrored), logits_of(s.teacher, mirrored)
    balanced = sum(cross_entropy(f_s, tau=1.3)) / 4
    kl = sum(divergence([z / 2.5 for z in t], [z / 2.5 for z in z_s]) for t, z_s in zip(f_t, f_s, strict=True)) / 4
    igdm = 0.0
    for row in range(4):
        teacher_difference = [a - b for a, b in zip(f_t[row], g_t[row], strict=True)]
        student_difference = [a - b for a, b in zip(f_s[row], g_s[row], strict=True)]
        igdm += divergence(teacher_difference, student_difference) / 4
    expected = balanced + 0.7 * 2.5**2 * kl + 4.0 * 0.25 * igdm
    loss, _ = METHODS["ltsd"].objective(student, inputs, adv_inputs, LABELS, s)
    assert min(balanced, kl, igdm) > 1e-3
    assert loss.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("name", "tau", "on"), [("at-bsl", 1.3, "adv"), ("at", 0.0, "adv"), ("natural", 0.0, "clean")])
def test_the_other_methods_minimise_cross_entropy(name: str, tau: float, on: str) -> None:
    student, (inputs, adv_inputs) = Bent(1), batch()
    loss, measurements = METHODS[name].objective(student, inputs, adv_inputs, LABELS, setting())
    seen = adv_inputs if on == "adv" else inputs
    assert loss.item() == pytest.approx(sum(cross_entropy(logits_of(student, seen), tau)) / 4, rel=1e-12)
    assert torch.equal(measurements["logits"], student(seen))


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.adversary is not None])
def test_every_attack_maximises_plain_cross_entropy(name: str) -> None:
    """Not the balanced loss, whose prior says nothing of an image."""
    student, (inputs, adv_inputs) = Bent(1), batch()
    adversary = METHODS[name].adversary
    assert adversary is not None
    value = adversary(student, inputs, LABELS, setting())(adv_inputs)
    assert value.item() == pytest.approx(sum(cross_entropy(logits_of(student, adv_inputs))))


def test_the_teacher_takes_no_gradient() -> None:
    student, (inputs, adv_inputs), s = Bent(1), batch(), setting()
    loss, _ = METHODS["ltsd"].objective(student, inputs, adv_inputs, LABELS, s)
    loss.backward()
    assert isinstance(s.teacher, Bent)
    assert s.teacher.weights.grad is None
    assert student.weights.grad is not None
    assert student.weights.grad.abs().min() > 0


@pytest.mark.parametrize("name", METHODS)
def test_hyperparameters_may_be_tensors(name: str) -> None:
    student, (inputs, adv_inputs), s = Bent(1), batch(), setting()
    names = ("progress", "softmax_tau", "temperature", "kl_weight", "igdm_weight")
    tensors = replace(s, **{name: torch.tensor(getattr(s, name), dtype=torch.float64) for name in names})
    with_floats, _ = METHODS[name].objective(student, inputs, adv_inputs, LABELS, s)
    with_tensors, _ = METHODS[name].objective(student, inputs, adv_inputs, LABELS, tensors)
    torch.testing.assert_close(with_tensors, with_floats, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_of_every_method_lowers_its_loss_on_the_batch(
    name: str, small: Config, splits: Splits, teacher: nn.Module
) -> None:
    config = small.override({"method": name, "optim.lr": 0.01, "optim.momentum": 0.0})
    state = TrainState.fresh(config, *splits.shape[:1], len(splits.class_names), torch.device("cpu"))
    inputs, labels = splits.train.take(torch.arange(0, len(splits.train), 3))
    around = Setting(torch.tensor(splits.train.class_counts()).log(), 0.5, 1.0, 1.0, 1.0, 1.0, teacher.eval())
    losses = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(0)
        measured, _ = train_step(METHODS[name], state, inputs, labels, around, config.attack, generator)
        losses.append(measured["loss"].item())
    assert losses[1] < losses[0]
