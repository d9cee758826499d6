"""Accuracies: means over classes, of every example, by a model that is left as it was found."""

import math
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, recall_score
from torch import Tensor, nn

from ltsd.attacks.domains import PIXELS
from ltsd.attacks.losses import cross_entropy, cw_margin, scaled_cross_entropy
from ltsd.data import Splits
from ltsd.data.batches import Split
from ltsd.data.longtail import class_groups
from ltsd.evaluation.evaluate import (
    CHUNK,
    Accuracy,
    Correctness,
    clean_correctness,
    eval_mode,
    pgd_correctness,
    standing_correctness,
    validation_metrics,
)


@given(num_classes=st.integers(2, 9), examples=st.integers(0, 60), seed=st.integers(0, 10**6))
def test_accuracies_are_those_of_scikit_learn(num_classes: int, examples: int, seed: int) -> None:
    random = np.random.RandomState(seed)
    labels = np.concatenate([np.arange(num_classes), random.randint(0, num_classes, examples)])
    predicted = random.randint(0, num_classes, len(labels))
    correctness = Correctness(torch.from_numpy(predicted == labels), torch.from_numpy(labels), num_classes)
    accuracy = Accuracy.of(correctness, class_groups(range(num_classes, 0, -1)))
    recalls = recall_score(labels, predicted, labels=range(num_classes), average=None, zero_division=0)
    third = max(1, num_classes // 3)
    assert accuracy.per_class == pytest.approx(recalls)
    assert accuracy.balanced == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert accuracy.worst == pytest.approx(min(recalls))
    assert accuracy.group("head") == pytest.approx(recalls[:third].mean())
    assert accuracy.group("tail") == pytest.approx(recalls[-third:].mean())
    metrics = validation_metrics(accuracy, accuracy)
    assert all(map(math.isfinite, metrics.values()))
    assert ("medium_robust_acc" in metrics) == (num_classes > 2)


class Bright(nn.Module):
    """Says class 1 of images brighter than a half; every image in its own right."""

    def forward(self, inputs: Tensor) -> Tensor:
        brightness = inputs.mean((1, 2, 3)) - 0.5
        return torch.stack([-brightness, brightness], 1)


def test_the_last_partial_chunk_counts_fully() -> None:
    images = torch.zeros(CHUNK + 3, 1, 2, 2, dtype=torch.uint8)
    images[-1] = 255
    labels = (torch.arange(CHUNK + 3) >= CHUNK).long()
    split = Split(images, labels, torch.arange(CHUNK + 3), num_classes=2)
    correctness = clean_correctness(Bright(), split)
    assert correctness.right.tolist() == [True] * CHUNK + [False, False, True]
    assert correctness.per_class() == pytest.approx([1, 1 / 3])
    attacked = pgd_correctness(Bright(), split, domain=PIXELS, eps=0.1, step_size=0.05, steps=2, seed=0)
    assert attacked.right.tolist() == correctness.right.tolist()


def test_a_class_without_examples_has_no_recall() -> None:
    recalls = Correctness(torch.tensor([True, False]), torch.tensor([0, 2]), 3).per_class()
    assert (recalls[0], math.isnan(recalls[1]), recalls[2]) == (1.0, True, 0.0)


def test_one_step_from_the_image_is_the_fast_gradient_sign_method(splits: Splits, trained: nn.Module) -> None:
    model = trained.eval()
    inputs, labels = splits.train.take(torch.arange(len(splits.train)))
    inputs.requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(inputs), labels), inputs)
    attacked = (inputs + 0.1 * gradient.sign()).clamp(0, 1)
    expected = model(attacked).argmax(1) == labels
    correctness = pgd_correctness(model, splits.train, domain=PIXELS, eps=0.1, step_size=0.1, steps=1, seed=None)
    assert torch.equal(correctness.right, expected)
    assert 0 < expected.sum() < clean_correctness(model, splits.train).right.sum()


def test_the_seed_decides_the_attack(splits: Splits, trained: nn.Module) -> None:
    def right(seed: int) -> Tensor:
        return pgd_correctness(trained, splits.train, domain=PIXELS, eps=0.2, step_size=0.02, steps=1, seed=seed).right

    assert torch.equal(right(0), right(0))
    assert not torch.equal(right(0), right(1))


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_judged_in_eval_mode_and_left_as_it_was(splits: Splits, teacher: nn.Module, training: bool) -> None:
    teacher.train(training)
    before, judged_in = deepcopy(teacher.state_dict()), list[bool]()
    teacher.register_forward_pre_hook(lambda module, inputs: judged_in.append(module.training))
    clean_correctness(teacher, splits.val)
    pgd_correctness(teacher, splits.val, domain=PIXELS, eps=0.1, step_size=0.05, steps=2, seed=0)
    assert set(judged_in) == {False}
    assert {module.training for module in teacher.modules()} == {training}
    torch.testing.assert_close(teacher.state_dict(), before, rtol=0, atol=0)


def test_the_mode_comes_back_after_an_error(teacher: nn.Module) -> None:
    def fail() -> None:
        with eval_mode(teacher):
            assert not teacher.training
            raise RuntimeError("out of memory")

    teacher.train()
    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert teacher.training


LOSSES = {"pgd": cross_entropy, "cw": cw_margin, "lsa": scaled_cross_entropy}


def test_the_worst_case_is_right_under_every_attack_and_costs_only_what_still_stands(
    splits: Splits, trained: nn.Module
) -> None:
    """Image by image, and never above what each attack leaves by itself; all begin at one random start."""
    asked = list[int]()
    hook = trained.register_forward_pre_hook(lambda module, inputs: asked.append(len(inputs[0])))
    options = {"domain": PIXELS, "eps": 0.1, "step_size": 0.03, "steps": 5, "seed": 3}
    standing = standing_correctness(trained, splits.train, LOSSES, **options)
    hook.remove()
    right = {name: one.right for name, one in standing.items()}
    assert list(right) == ["clean", *LOSSES]
    assert all(not (after & ~before).any() for before, after in pairwise(right.values()))
    still = [int(one.sum()) for one in right.values()]
    assert len(splits.train) > still[0] > still[1] > 0
    assert sum(asked) == len(splits.train) + 6 * sum(still[:-1])
    alone = {name: pgd_correctness(trained, splits.train, loss=loss, **options).right for name, loss in LOSSES.items()}
    assert torch.equal(right["pgd"], right["clean"] & alone["pgd"])
    assert torch.equal(right["lsa"], right["clean"] & torch.stack([*alone.values()]).all(0))


class Loud(nn.Module):
    """A network with logits so large that the gradient of cross-entropy underflows to zero."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return 1e4 * self.model(inputs)


def test_a_model_whose_gradients_mislead_cross_entropy_scores_no_higher_for_that(
    splits: Splits, trained: nn.Module
) -> None:
    options = {"domain": PIXELS, "eps": 0.1, "step_size": 0.025, "steps": 20, "seed": 1}
    loud, plain = (standing_correctness(m.eval(), splits.test, LOSSES, **options) for m in (Loud(trained), trained))
    pgd, worst, honest = (int(one.right.sum()) for one in (loud["pgd"], loud["lsa"], plain["lsa"]))
    assert pgd > honest + 5
    assert worst <= honest + 1
