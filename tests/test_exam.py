"""The exam: every attack by class and group, image by image on the disk, and begun again where it was broken off."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from faulty import Faulty
from masking import telling_rows, trained_masked
from torch import Tensor, nn

from ltsd.attacks.domains import PIXELS
from ltsd.attacks.losses import cross_entropy, cw_margin, scaled_cross_entropy
from ltsd.config import AttackConfig
from ltsd.data import Splits
from ltsd.data.batches import Split
from ltsd.data.longtail import class_groups
from ltsd.errors import UserError
from ltsd.evaluation.correctness import read_correctness
from ltsd.evaluation.corruptions import CORRUPTIONS, VARIANTS, corruption_correctness
from ltsd.evaluation.evaluate import Accuracy, clean_correctness, pgd_correctness
from ltsd.evaluation.exam import ExamResult, examine
from ltsd.evaluation.gradient_masking import Signs, doubts, signs_of
from ltsd.pictures import COLOURS, class_bars

ATTACK = AttackConfig(eps=0.05)
ATTACKS = ["clean", "fgsm", "pgd20", "cw20", "ls20"]


@contextmanager
def counted(model: nn.Module) -> Iterator[list[int]]:
    """The sizes of the batches that a model is asked."""
    sizes = list[int]()
    hook = model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    yield sizes
    hook.remove()


def signs_cost(model: nn.Module, test: Split) -> int:
    """How many images a model is asked about to look for signs of false robustness."""
    with counted(model) as asked:
        signs_of(model, test, PIXELS)
    return sum(asked)


def test_the_exam_tells_every_attack_by_class_and_group(splits: Splits, teacher: nn.Module) -> None:
    groups = class_groups(splits.train.class_counts())
    model = teacher.eval()
    *_, (done, result) = examine(model, splits.test, groups, ATTACK, "none")
    assert (done, result.images) == ("corruptions", len(splits.test))
    expected = {"clean": Accuracy.of(clean_correctness(model, splits.test), groups)}
    for name, loss in (("pgd20", cross_entropy), ("cw20", cw_margin), ("ls20", scaled_cross_entropy)):
        correctness = pgd_correctness(
            model,
            splits.test,
            domain=PIXELS,
            eps=0.05,
            step_size=ATTACK.resolved_step_size,
            steps=20,
            seed=0,
            loss=loss,
        )
        expected[name] = Accuracy.of(correctness, groups)
    everything = result.as_json()
    means = {name: sum(levels) / 5 for name, levels in everything["corruptions"].items()}
    assert means.keys() == CORRUPTIONS.keys()
    noises = [corruption_correctness(model, splits.test, f"gaussian_noise-{level}", seed=0) for level in range(1, 6)]
    noise = sum(Accuracy.of(one, groups).balanced for one in noises) / 5
    assert means["gaussian_noise"] == pytest.approx(noise)
    values = everything["metrics"]
    assert values["test/corruption_acc"] == pytest.approx(sum(means.values()) / 7)
    tails = [Accuracy.of(result.correctness[variant], groups).group("tail") for variant in VARIANTS]
    assert values["test/tail_corruption_acc"] == pytest.approx(sum(tails) / 35)
    for name, accuracy in expected.items():
        assert result.per_class()[name] == list(accuracy.per_class)
        assert values[f"test/{name}_acc"] == accuracy.balanced
        assert values[f"test/tail_{name}_acc"] == accuracy.group("tail")
    assert values["test/robust_acc"] == expected["pgd20"].balanced
    assert values["test/worst_class_robust_acc"] == expected["pgd20"].worst
    assert values["test/fgsm_acc"] >= values["test/pgd20_acc"]
    assert not any("aa" in name.split("_") for name in values)


def test_an_exam_that_is_broken_off_goes_on_to_the_same_bits(splits: Splits, tmp_path: Path) -> None:
    """Wherever it was broken off, whatever random numbers were drawn since; nothing is asked of the model twice."""
    model, attack = trained_masked(splits), AttackConfig(eps=0.25)
    test = splits.test.select(splits.test.rows[telling_rows(model, splits)])
    groups = class_groups(splits.train.class_counts())
    whole, broken = tmp_path / "whole.parquet", tmp_path / "broken.parquet"
    with counted(model) as asked:
        *_, (_, uninterrupted) = examine(model, test, groups, attack, "standard", keep=whole)
    total = sum(asked)
    with counted(model) as asked:
        for last in (*("CW-20", "AutoAttack apgd-ce", "AutoAttack apgd-t"), "AutoAttack fab-t", "AutoAttack square"):
            torch.rand(7)
            parts = examine(model, test, groups, attack, "standard", keep=broken)
            result = next(result for done, result in parts if done == last)
    assert broken.read_bytes() == whole.read_bytes()
    assert repr(result.as_json()) == repr(uninterrupted.as_json())
    assert sum(asked) == total + 4 * signs_cost(model, test), "beyond the signs"

    table = pq.read_table(whole)
    assert table.column_names == ["label", *ATTACKS, *VARIANTS, "apgd-ce", "apgd-t", "fab-t", "square"]
    assert {str(field.type) for field in table.schema} == {"int64", "bool"}
    assert table["label"].to_pylist() == test.labels[test.rows].tolist()
    standing = [torch.tensor(table[name].to_pylist()) for name in ("clean", "apgd-ce", "apgd-t", "fab-t", "square")]
    assert all(not (after & ~before).any() for before, after in itertools.pairwise(standing))
    aa = Accuracy.of(read_correctness(whole)[0]["square"], groups)
    assert result.values()["test/aa_acc"] == pytest.approx(aa.balanced, nan_ok=True)


def test_an_exam_resumes_from_no_correctness_file_but_its_own(
    splits: Splits, teacher: nn.Module, tmp_path: Path
) -> None:
    """Not with those of other weights, images, labels or radius, and not with a damaged file."""
    path, groups = tmp_path / "one.parquet", class_groups(splits.train.class_counts())
    model, test = teacher.eval(), splits.test

    def correctness_of(model: nn.Module, test: Split, attack: AttackConfig) -> dict[str, Tensor]:
        list(examine(model, test, groups, attack, "none", keep=path))
        return {name: one.right for name, one in read_correctness(path)[0].items()}

    other = deepcopy(model)
    with torch.no_grad():
        next(other.parameters()).mul_(-1)
    brighter = replace(test, images=test.images // 2 + 128)
    shifted = replace(test, labels=test.labels.roll(1))
    others = [
        (other, test, ATTACK),
        (model, brighter, ATTACK),
        (model, shifted, ATTACK),
        (model, test, AttackConfig(eps=0.02)),
    ]
    for exam in others:
        mine = correctness_of(model, test, ATTACK)
        theirs = correctness_of(*exam)
        assert any(not torch.equal(mine[name], theirs[name]) for name in ATTACKS)
        with counted(exam[0].get_submodule("head")) as asked:
            correctness_of(*exam)
        assert sum(asked) == signs_cost(*exam[:2])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="is not the correctness file of an exam"):
        read_correctness(path)
    assert torch.equal(correctness_of(model, test, ATTACK)["pgd20"], mine["pgd20"])


@pytest.mark.parametrize("ensemble", ["aa", "apgd_ce_t"])
def test_the_picture_of_an_exam_tells_its_attacks_apart(ensemble: str) -> None:
    recalls = {name: [0.9, 0.5, 0.2] for name in (*ATTACKS, "corruption", ensemble)}
    _, labels = (
        class_bars(recalls, [9, 5, 2], ["a", "b", "c"], class_groups([9, 5, 2])).axes[0].get_legend_handles_labels()
    )
    assert labels == list(recalls)
    assert len({COLOURS[name] for name in recalls}) == len(recalls)


def test_a_model_that_hides_its_gradients_is_doubted(splits: Splits) -> None:
    """Half its images are rounded, and the logits of the others so large that cross-entropy underflows."""
    model, groups = trained_masked(splits), class_groups(splits.train.class_counts())
    telling_rows(model, splits)
    *_, (_, result) = examine(model, splits.test, groups, AttackConfig(eps=0.25), "apgd-ce+t")
    gap, unbounded, still = result.doubts
    assert "and APGD-CE+T " in gap
    assert unbounded.startswith("PGD-20 with a radius of half the range, which reaches plain grey, leaves")
    inputs, labels = splits.test.take(torch.arange(len(splits.test)))
    inputs.requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(inputs), labels), inputs)
    share = sum(not image.any() for image in gradient) / len(labels)
    assert still.startswith(f"the gradient is exactly zero on {100 * share:.1f}% of 40 images")
    assert result.as_json()["doubts"] == list(result.doubts)


def test_a_network_that_does_not_answer_is_told_of_first_and_goes_on_being_told_of(
    splits: Splits, teacher: nn.Module, tmp_path: Path
) -> None:
    """On all images that it answers NaN to under any attack; where an exam goes on, too."""
    groups, keep = class_groups(splits.train.class_counts()), tmp_path / "one.parquet"
    fails = torch.arange(len(splits.test)) % 3 == 0

    def exam(model: nn.Module, keep: Path | None) -> list[ExamResult]:
        return [result for _, result in examine(model, splits.test, groups, ATTACK, "none", keep=keep)]

    honest, model = exam(teacher.eval(), None)[-1], Faulty(teacher, lambda inputs: fails)
    first, *_, last = exam(model, keep)
    for result in (first, last):
        assert result.doubts[0] == ("the network answers NaN or infinity on 14 of 40 test images: these count as wrong")
    for name, correctness in last.correctness.items():
        assert torch.equal(correctness.right, honest.correctness[name].right & ~fails), name
    assert repr(exam(model, keep)[-1].as_json()) == repr(last.as_json())


def test_a_statistic_that_is_not_finite_is_told_of_though_the_answers_are(splits: Splits, teacher: nn.Module) -> None:
    with torch.no_grad():
        teacher.state_dict()["features.2.running_var"][0] = float("inf")
    _, result = next(examine(teacher.eval(), splits.test, class_groups(splits.train.class_counts()), ATTACK, "none"))
    assert result.doubts[0] == "features.2.running_var of the network is not finite"


def test_an_ordinary_model_is_not_doubted(splits: Splits, teacher: nn.Module) -> None:
    *_, (_, result) = examine(
        teacher.eval(), splits.test, class_groups(splits.train.class_counts()), ATTACK, "apgd-ce+t"
    )
    assert result.doubts == ()
    assert result.values()["test/apgd_ce_t_acc"] < result.values()["test/clean_acc"]


def test_one_step_that_beats_twenty_is_doubted() -> None:
    sound = Signs(images=500, still=0.0, unbounded=0.0, chance=0.1)
    assert doubts({"FGSM": 0.5, "PGD-20": 0.45, "CW-20": 0.4, "AutoAttack": 0.36}, sound) == []
    (doubt,) = doubts({"FGSM": 0.4, "PGD-20": 0.45, "CW-20": 0.44, "AutoAttack": 0.39}, sound)
    assert doubt.startswith("FGSM leaves 40.0% right and PGD-20 45.0%: one step beats twenty")
