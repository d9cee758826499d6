"""What each method minimises and what its attack maximises, against the formulas on a batch."""

import itertools
import math
import statistics
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ltsd.config import Config
from ltsd.data import Splits
from ltsd.methods import METHODS
from ltsd.methods.at_bsl import Bsl
from ltsd.methods.ltsd import Distill
from ltsd.methods.mart import Mart
from ltsd.methods.robal import CosineHead, Robal
from ltsd.methods.step_context import StepContext
from ltsd.methods.taet import Taet
from ltsd.methods.trades import Trades
from ltsd.models.network import Features, Network
from ltsd.state import TrainState
from ltsd.step import batch_of, budget_of, context_of, train_step
from ltsd.tasks import classification

CPU = torch.device("cpu")
LABELS = torch.tensor([0, 2, 1, 0])
COUNTS = (50, 8, 3)


class Bend(nn.Module):
    """x and 2 sin(5 x), side by side."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([inputs, 2 * (inputs * 5).sin()], dim=1)


class Weigh(nn.Module):
    """w_k · x + 2 sin(5 x_k) of the features above."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        weights = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.weights = nn.Parameter(weights)

    def forward(self, features: Tensor) -> Tensor:
        return features[:, :3] @ self.weights.T + features[:, 3:]


def bent(seed: int) -> Network:
    """Logits that are not linear, so that f(x + d) - f(x - d) is no multiple of f(x + d)."""
    return Network(Features(Bend()), Weigh(seed))


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(4, 3, generator=generator, dtype=torch.float64)
    return inputs, inputs + 0.1 * (2 * torch.rand(4, 3, generator=generator, dtype=torch.float64) - 1)


OWN: dict[str, Any] = {
    "at-bsl": Bsl(label_smoothing=0.2),
    "ltsd": Distill(temperature=2.5, kl_weight=0.7, igdm_weight=4.0),
    "trades": Trades(beta=3.0),
    "mart": Mart(weight=3.0),
    "robal": Robal(scale=7.0, margin=0.2, margin_tau=0.4, prior_tau=1.1, beta=3.0),
    "taet": Taet(clean_share=0.2, mean_weight=0.3, spread_weight=0.5, rare_weight=0.7),
}


def context(name: str, progress: float = 0.25) -> StepContext:
    return StepContext(
        log_counts=torch.tensor(COUNTS, dtype=torch.float64).log(),
        tail=torch.tensor([False, False, True]),
        predicted=torch.tensor([40.0, 20.0, 1.0], dtype=torch.float64),
        progress=progress,
        softmax_tau=1.3,
        own=OWN.get(name),
        phase=METHODS[name].phase(OWN.get(name), progress),
        teacher=bent(9),
    )


def softmax(logits: list[float]) -> list[float]:
    return [math.exp(z) / sum(math.exp(other) for other in logits) for z in logits]


def kl_of(teacher: list[float], student: list[float]) -> float:
    return sum(t * math.log(t / s) for t, s in zip(softmax(teacher), softmax(student), strict=True))


def logits_of(model: nn.Module, inputs: Tensor) -> list[list[float]]:
    rows: list[list[float]] = model(inputs).tolist()
    return rows


def cross_entropy(rows: list[list[float]], tau: float = 0.0) -> list[float]:
    shifted = [[z + tau * math.log(n) for z, n in zip(row, COUNTS, strict=True)] for row in rows]
    return [-math.log(softmax(row)[y]) for row, y in zip(shifted, LABELS.tolist(), strict=True)]


def mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def minimised(name: str, progress: float = 0.25) -> float:
    student, (inputs, adv_inputs) = bent(1), batch()
    loss, _ = METHODS[name].objective(student, inputs, adv_inputs, LABELS, context(name, progress))
    return loss.item()


def answers() -> tuple[list[list[float]], list[list[float]]]:
    """The student's logits on the clean and on the adversarial batch."""
    student, (inputs, adv_inputs) = bent(1), batch()
    return logits_of(student, inputs), logits_of(student, adv_inputs)


def test_ltsd_minimises_balanced_loss_distillation_and_ramped_gradient_matching() -> None:
    student, (inputs, adv_inputs), s = bent(1), batch(), context("ltsd")
    assert s.teacher is not None
    f_s, f_t = logits_of(student, adv_inputs), logits_of(s.teacher, adv_inputs)
    mirrored = inputs - (adv_inputs - inputs)
    g_s, g_t = logits_of(student, mirrored), logits_of(s.teacher, mirrored)
    balanced = mean(cross_entropy(f_s, tau=1.3))
    kl = mean(kl_of([z / 2.5 for z in t], [z / 2.5 for z in z_s]) for t, z_s in zip(f_t, f_s, strict=True))
    igdm = 0.0
    for row in range(4):
        teacher_difference = [a - b for a, b in zip(f_t[row], g_t[row], strict=True)]
        student_difference = [a - b for a, b in zip(f_s[row], g_s[row], strict=True)]
        igdm += kl_of(teacher_difference, student_difference) / 4
    assert min(balanced, kl, igdm) > 1e-3
    assert minimised("ltsd") == pytest.approx(balanced + 0.7 * 2.5**2 * kl + 4.0 * 0.25 * igdm, rel=1e-9)


@pytest.mark.parametrize(("name", "tau", "on"), [("at", 0.0, "adv"), ("natural", 0.0, "clean")])
def test_the_plain_methods_minimise_cross_entropy(name: str, tau: float, on: str) -> None:
    clean, adv = answers()
    assert minimised(name) == pytest.approx(mean(cross_entropy(adv if on == "adv" else clean, tau)), rel=1e-12)


def test_at_bsl_minimises_cross_entropy_of_smoothed_labels_and_shifted_logits() -> None:
    _, adv = answers()
    shifted = [[z + 1.3 * math.log(n) for z, n in zip(row, COUNTS, strict=True)] for row in adv]
    of_labels = [-math.log(softmax(row)[y]) for row, y in zip(shifted, LABELS.tolist(), strict=True)]
    of_all = [-mean(map(math.log, softmax(row))) for row in shifted]
    assert minimised("at-bsl") == pytest.approx(0.8 * mean(of_labels) + 0.2 * mean(of_all), rel=1e-9)


def test_trades_minimises_clean_loss_and_divergence() -> None:
    """Zhang et al. 2019, equation 5."""
    clean, adv = answers()
    expected = mean(cross_entropy(clean)) + 3.0 * mean(map(kl_of, clean, adv))
    assert minimised("trades") == pytest.approx(expected, rel=1e-9)


def test_mart_minimises_boosted_loss_and_the_divergence_of_what_is_doubtful() -> None:
    """Wang et al. 2020, equations 8 and 11."""
    terms = []
    for z, z_adv, y in zip(*answers(), LABELS.tolist(), strict=True):
        p_adv = softmax(z_adv)
        other = max(p for k, p in enumerate(p_adv) if k != y)
        boosted = -math.log(p_adv[y]) - math.log(1 - other)
        terms.append(boosted + 3.0 * kl_of(z, z_adv) * (1 - softmax(z)[y]))
    assert minimised("mart") == pytest.approx(mean(terms), rel=1e-9)


def test_robal_minimises_a_loss_with_margins_and_prior_and_the_divergence_of_the_cosines() -> None:
    """Wu et al. 2021, equations 8 to 10."""
    clean, adv = answers()
    terms = []
    for z, y in zip(adv, LABELS.tolist(), strict=True):
        margin = 0.2 + 0.4 * math.log(COUNTS[y] / min(COUNTS)) / 7.0
        behind = [7.0 * (cosine - margin * (k == y)) for k, cosine in enumerate(z)]
        shifted = [v + 1.1 * math.log(n / sum(COUNTS)) for v, n in zip(behind, COUNTS, strict=True)]
        terms.append(-math.log(softmax(shifted)[y]))
    assert minimised("robal") == pytest.approx(mean(terms) + 3.0 * mean(map(kl_of, clean, adv)), rel=1e-9)


def test_the_cosine_head_ignores_the_length_of_features_and_nearly_that_of_weights() -> None:
    """z_k = w_k . h / ((||w_k|| + 1/32) ||h||)."""
    head = CosineHead(5, 3)
    features = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    for row, column in itertools.product(range(4), range(3)):
        h, w = features[row].tolist(), head.weight[column].tolist()
        dot = sum(a * b for a, b in zip(h, w, strict=True))
        expected = dot / ((math.hypot(*w) + 1 / 32) * math.hypot(*h))
        assert head(features)[row, column].item() == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(head(9 * features), head(features))


def test_reat_minimises_balanced_loss_and_the_tail_penalty() -> None:
    """Of the four images the third alone is of a tail class here."""
    _, adv = answers()
    labels, tail = LABELS.tolist(), context("reat").tail
    tail_class = int(tail.nonzero())
    features = bent(1).features(batch()[1]).tolist()
    rarity = [math.sqrt(sum(COUNTS) / COUNTS[y]) for y in labels]
    terms = []
    for i in [i for i, y in enumerate(labels) if y == tail_class]:
        divergence = mean(kl_of(features[i], features[j]) for j in range(4)) / 6
        pairs = [(-1 if labels[i] == labels[j] else 1) * (rarity[i] + rarity[j]) for j in range(4)]
        terms.append(divergence * mean(pairs))
    assert len(terms) == 1
    assert minimised("reat") == pytest.approx(mean(cross_entropy(adv, tau=1.3)) + mean(terms), rel=1e-9)


def test_reat_attacks_rare_answers_harder() -> None:
    """Li et al. 2023: weights inverse to the effective number of what the last epoch took images for."""
    effective = [(1 - ((n - 1) / n) ** a) / (1 - (n - 1) / n) for n, a in zip(COUNTS, (40, 20, 1), strict=True)]
    weights = [1 / e for e in effective]
    _, adv = answers()
    losses = cross_entropy(adv)
    expected = sum(weights[y] / mean(weights) * loss for y, loss in zip(LABELS.tolist(), losses, strict=True))
    assert attacked_value("reat") == pytest.approx(expected, rel=1e-4)


def test_taet_trains_clean_first_and_then_levels_the_losses_of_the_classes() -> None:
    """Wang et al. 2025, section 4.2, with the classes of the batch: 0, 1, 2."""
    clean, adv = answers()
    assert minimised("taet", progress=0.1) == pytest.approx(mean(cross_entropy(clean)))
    losses = cross_entropy(adv)
    by_class = [mean([loss for loss, y in zip(losses, LABELS.tolist(), strict=True) if y == c]) for c in range(3)]
    spread = mean((loss - mean(by_class)) ** 2 for loss in by_class)
    rare = sum((loss / sum(by_class)) ** 2 for loss in by_class)
    assert minimised("taet") == pytest.approx(0.3 * mean(by_class) + 0.5 * spread + 0.7 * rare, rel=1e-9)


def test_taet_leaves_out_classes_that_the_batch_lacks() -> None:
    adv_inputs, labels = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).double(), [4, 1, 4]
    logits = adv_inputs.tolist()
    of_rows = [-math.log(softmax(z)[y]) for z, y in zip(logits, labels, strict=True)]
    by_class = [of_rows[1], (of_rows[0] + of_rows[2]) / 2]
    spread = mean((loss - mean(by_class)) ** 2 for loss in by_class)
    rare = sum((loss / sum(by_class)) ** 2 for loss in by_class)
    around = context("taet", progress=0.5)
    loss, _ = METHODS["taet"].objective(nn.Identity(), adv_inputs, adv_inputs, torch.tensor(labels), around)
    assert loss.item() == pytest.approx(0.3 * mean(by_class) + 0.5 * spread + 0.7 * rare, rel=1e-9)


def attacked_value(name: str, progress: float = 0.25) -> float | None:
    student, (inputs, adv_inputs) = bent(1), batch()
    adversary = METHODS[name].adversary(student, inputs, LABELS, context(name, progress))
    return None if adversary is None else adversary(adv_inputs).item()


@pytest.mark.parametrize("name", ["ltsd", "at-bsl", "at", "mart", "robal", "taet"])
def test_most_attacks_maximise_plain_cross_entropy(name: str) -> None:
    """Not the balanced loss, whose prior says nothing of an image."""
    _, adv = answers()
    assert attacked_value(name) == pytest.approx(sum(cross_entropy(adv)))


def test_trades_attacks_the_divergence_from_the_clean_answer_and_starts_off_it() -> None:
    assert attacked_value("trades") == pytest.approx(sum(map(kl_of, *answers())), rel=1e-9)
    inputs = batch()[0].requires_grad_()
    adversary = METHODS["trades"].adversary(bent(1), inputs.detach(), LABELS, context("trades"))
    assert adversary is not None
    (gradient,) = torch.autograd.grad(adversary(inputs), inputs)
    assert gradient.abs().max() < 1e-12, "there is no way up from the clean image"
    budget = budget_of(Config.preset("digits"), list(COUNTS), 0, CPU)
    start = batch_of(
        classification.TASK, METHODS["trades"], inputs.detach(), LABELS, budget, torch.Generator().manual_seed(0)
    ).start
    assert 0 < (start - inputs).abs().max() < 0.01


def test_nothing_attacks_clean_training() -> None:
    assert attacked_value("natural") is None
    assert attacked_value("taet", progress=0.1) is None


def test_the_teacher_takes_no_gradient() -> None:
    student, (inputs, adv_inputs), s = bent(1), batch(), context("ltsd")
    loss, _ = METHODS["ltsd"].objective(student, inputs, adv_inputs, LABELS, s)
    loss.backward()
    assert s.teacher is not None
    assert all(parameter.grad is None for parameter in s.teacher.parameters())
    for parameter in student.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().min() > 0


@pytest.mark.parametrize("name", METHODS)
def test_hyperparameters_may_be_tensors(name: str) -> None:
    student, (inputs, adv_inputs), s = bent(1), batch(), context(name)
    own = s.own and replace(
        s.own, **{f.name: torch.tensor(getattr(s.own, f.name), dtype=torch.float64) for f in fields(s.own)}
    )
    tensors = replace(s, softmax_tau=torch.tensor(s.softmax_tau, dtype=torch.float64), own=own)
    with_floats, _ = METHODS[name].objective(student, inputs, adv_inputs, LABELS, s)
    with_tensors, _ = METHODS[name].objective(student, inputs, adv_inputs, LABELS, tensors)
    torch.testing.assert_close(with_tensors, with_floats, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_of_every_method_lowers_its_loss_on_the_batch(
    name: str, small: Config, splits: Splits, teacher: nn.Module
) -> None:
    config = small.override({"method": name, "optim.lr": 0.01, "optim.momentum": 0.0})
    state = TrainState.fresh(config, *splits.shape[:1], len(splits.class_names), CPU)
    inputs, labels = splits.train.take(torch.arange(0, len(splits.train), 3))
    counts = splits.train.class_counts()
    around, budget = context_of(config, counts, 2, None, teacher.eval(), CPU), budget_of(config, counts, 2, CPU)
    losses = []
    for _ in range(2):
        batch = batch_of(classification.TASK, METHODS[name], inputs, labels, budget, torch.Generator().manual_seed(0))
        step = train_step(classification.TASK, METHODS[name], state, batch, around, budget)
        losses.append(step.losses["loss"].item())
    assert losses[1] < losses[0]
