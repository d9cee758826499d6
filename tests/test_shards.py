"""The shards of an exam: whoever attacks them, in whatever order, wherever they are broken off, the same verdicts."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor, nn

from ltsd.attacks.autoattack import Round, Shard
from ltsd.config import AttackConfig
from ltsd.data import Splits
from ltsd.data.longtail import class_groups
from ltsd.evaluation import shards
from ltsd.evaluation.exam import ExamResult, attack_shard, examine
from ltsd.evaluation.shards import OwnDisk, folder_of_shards

ATTACK, BATCH = AttackConfig(eps=0.05), 16


@pytest.fixture(autouse=True)
def attacked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each shard is attacked. They are many and small, and their attacks shorter than those of exams."""
    found, attack = Counter[str](), Round.attacked

    def counted(one: Round, shard: Shard) -> Tensor:
        found[str(shard)] += 1
        return attack(one, shard)

    monkeypatch.setattr(Round, "attacked", counted)
    monkeypatch.setattr(shards, "CHUNK", BATCH)
    monkeypatch.setattr("ltsd.attacks.fab.STEPS", 5)
    monkeypatch.setattr("ltsd.attacks.square.QUERIES", 60)
    return found


def exam(splits: Splits, model: nn.Module, keep: Path) -> Iterator[tuple[str, ExamResult]]:
    return examine(model.eval(), splits.test, class_groups(splits.train.class_counts()), ATTACK, "standard", keep=keep)


def test_shards_that_others_attack_in_any_order_or_leave_undone_give_the_same_bits(
    splits: Splits, teacher: nn.Module, tmp_path: Path, attacked: Counter[str]
) -> None:
    """Others come while the exam is made, and before it goes on where it was broken off; one file is damaged."""
    alone, shared, draw = tmp_path / "alone.parquet", tmp_path / "shared.parquet", random.Random(0)
    *_, (_, whole) = exam(splits, teacher, alone)
    assert len(attacked) > 9
    assert {*attacked.values()} == {1}

    offered = set[str]()
    for done, result in exam(splits, teacher, shared):
        for name in draw.sample(result.left, len(result.left) // 2):
            attack_shard(teacher, splits.test, ATTACK, "standard", name, keep=shared, sharing=OwnDisk())
        offered |= set(result.left)
        if done.startswith("AutoAttack fab-t "):
            break
    damaged = next(folder_of_shards(shared).glob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    *_, (_, result) = exam(splits, teacher, shared)
    assert offered > {"fab-t-0-1", "fab-t-2-1"}
    assert shared.read_bytes() == alone.read_bytes()
    assert repr(result) == repr(whole)
    assert not folder_of_shards(shared).exists()
    assert {name for name, times in attacked.items() if times != 2} == {damaged.stem}, "once by either exam"


def test_a_shard_of_another_exam_or_of_a_round_that_has_not_come_is_left_alone(
    splits: Splits, teacher: nn.Module, tmp_path: Path
) -> None:
    keep = tmp_path / "one.parquet"
    left = next(result.left for done, result in exam(splits, teacher, keep) if result.left)
    other = AttackConfig(eps=0.02)
    for attack, name in ((ATTACK, "square-0-0"), (ATTACK, "apgd-ce-0-99"), (other, left[0])):
        attack_shard(teacher, splits.test, attack, "standard", name, keep=keep, sharing=OwnDisk())
        assert not (folder_of_shards(keep) / f"{name}.parquet").exists()
