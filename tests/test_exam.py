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
from masking import telling_rows, trained_masked
from torch import Tensor, nn

from ltsd.attacks.losses import cross_entropy, cw_margin, scaled_cross_entropy
from ltsd.config import AttackConfig
from ltsd.data import Splits
from ltsd.data.batches import Split
from ltsd.errors import UserError
from ltsd.evaluate import Accuracy, clean_verdicts, pgd_verdicts
from ltsd.exam import examine
from ltsd.pictures import COLOURS, class_bars
from ltsd.verdicts import read_verdicts

ATTACK = AttackConfig(eps=0.05)
ATTACKS = ["clean", "fgsm", "pgd20", "cw20", "ls20"]


@contextmanager
def counted(model: nn.Module) -> Iterator[list[int]]:
    """The sizes of the batches that a model is asked."""
    sizes = list[int]()
    hook = model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    yield sizes
    hook.remove()


def test_the_exam_tells_every_attack_by_class_and_group(splits: Splits, teacher: nn.Module) -> None:
    counts = splits.train.class_counts()
    model = teacher.eval()
    *_, (done, result) = examine(model, splits.test, counts, ATTACK, "none")
    assert (done, result.images) == ("LSA-20", len(splits.test))
    expected = {"clean": Accuracy.of(clean_verdicts(model, splits.test), counts)}
    for name, loss in (("pgd20", cross_entropy), ("cw20", cw_margin), ("ls20", scaled_cross_entropy)):
        verdicts = pgd_verdicts(model, splits.test, eps=0.05, step_size=ATTACK.step, steps=20, seed=0, loss=loss)
        expected[name] = Accuracy.of(verdicts, counts)
    values = result.values()
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
    counts = splits.train.class_counts()
    whole, broken = tmp_path / "whole.parquet", tmp_path / "broken.parquet"
    with counted(model) as asked:
        *_, (_, uninterrupted) = examine(model, test, counts, attack, "standard", keep=whole)
    total = sum(asked)
    with counted(model) as asked:
        for last in ("CW-20", "AutoAttack apgd-ce", "AutoAttack fab-t", "AutoAttack square"):
            torch.rand(7)
            parts = examine(model, test, counts, attack, "standard", keep=broken)
            result = next(result for done, result in parts if done == last)
    assert broken.read_bytes() == whole.read_bytes()
    assert repr(result.as_json()) == repr(uninterrupted.as_json())
    assert sum(asked) == total + 2 * len(test), "beyond the clean logits that every run of AutoAttack begins with"

    table = pq.read_table(whole)
    assert table.column_names == ["label", *ATTACKS, "apgd-ce", "apgd-t", "fab-t", "square"]
    assert {str(field.type) for field in table.schema} == {"int64", "bool"}
    assert table["label"].to_pylist() == test.labels[test.rows].tolist()
    standing = [torch.tensor(table[name].to_pylist()) for name in ("clean", "apgd-ce", "apgd-t", "fab-t", "square")]
    assert all(not (after & ~before).any() for before, after in itertools.pairwise(standing))
    aa = Accuracy.of(read_verdicts(whole)[0]["square"], counts)
    assert result.values()["test/aa_acc"] == pytest.approx(aa.balanced, nan_ok=True)


def test_an_exam_goes_on_with_no_verdicts_but_its_own(splits: Splits, teacher: nn.Module, tmp_path: Path) -> None:
    """Not with those of other weights, images, labels or radius, and not with a damaged file."""
    path, counts = tmp_path / "one.parquet", splits.train.class_counts()
    model, test = teacher.eval(), splits.test

    def verdicts_of(model: nn.Module, test: Split, attack: AttackConfig) -> dict[str, Tensor]:
        list(examine(model, test, counts, attack, "none", keep=path))
        return {name: one.right for name, one in read_verdicts(path)[0].items()}

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
        mine = verdicts_of(model, test, ATTACK)
        theirs = verdicts_of(*exam)
        assert any(not torch.equal(mine[name], theirs[name]) for name in ATTACKS)
        with counted(exam[0]) as asked:
            verdicts_of(*exam)
        assert not asked
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="holds no verdicts of an exam"):
        read_verdicts(path)
    assert torch.equal(verdicts_of(model, test, ATTACK)["pgd20"], mine["pgd20"])


@pytest.mark.parametrize("ensemble", ["aa", "apgd_ce_t"])
def test_the_picture_of_an_exam_tells_its_attacks_apart(ensemble: str) -> None:
    recalls = {name: [0.9, 0.5, 0.2] for name in (*ATTACKS, ensemble)}
    _, labels = class_bars(recalls, [9, 5, 2], ["a", "b", "c"]).axes[0].get_legend_handles_labels()
    assert labels == list(recalls)
    assert len({COLOURS[name] for name in recalls}) == len(recalls)
