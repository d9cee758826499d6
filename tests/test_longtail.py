"""Which images train, validate and test: the tail as the field draws it, and the validation protocol."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ltsd.config import DataConfig
from ltsd.data.longtail import (
    balanced_resample,
    check_groups,
    class_groups,
    hold_out,
    long_tail_counts,
    shuffled_by_class,
)
from ltsd.data.protocol import draw_protocol
from ltsd.errors import UserError

Labels = NDArray[np.int64]


def labels_of(counts: list[int], seed: int = 0) -> Labels:
    return np.random.RandomState(seed).permutation(np.repeat(np.arange(len(counts)), counts))


def names_of(counts: list[int]) -> list[str]:
    return [f"class-{c}" for c in range(len(counts))]


def counts_in(labels: Labels, rows: Labels, num_classes: int) -> list[int]:
    return np.bincount(labels[rows], minlength=num_classes).tolist()


@pytest.mark.parametrize(
    ("n_max", "ratio", "classes", "total", "n_min"),
    [
        (5000, 50, 10, 13_996, 100),
        (5000, 100, 10, 12_406, 50),
        (500, 10, 100, 19_573, 50),
        (500, 10, 200, 39_072, 50),
        (124, 20, 10, None, 6),
        (37, 1, 4, 148, 37),
    ],
)
def test_counts_have_the_published_totals(
    n_max: int, ratio: float, classes: int, total: int | None, n_min: int
) -> None:
    counts = long_tail_counts(n_max, ratio, classes, "exponential")
    assert (counts[0], counts[-1]) == (n_max, n_min)
    assert counts == sorted(counts, reverse=True)
    assert total is None or sum(counts) == total


def steps_of_the_fields_code(n_max: int, ratio: float, classes: int) -> list[int]:
    """As the code of LDAM has it, whose two halves are classes // 2 each: for even numbers of classes."""
    counts = []
    for _ in range(classes // 2):
        counts.append(int(n_max))
    for _ in range(classes // 2):
        counts.append(int(n_max * (1 / ratio)))
    return counts


@given(n_max=st.integers(1, 5000), ratio=st.floats(1, 200), half=st.integers(1, 100))
def test_a_step_is_the_one_of_the_fields_code(n_max: int, ratio: float, half: int) -> None:
    assert long_tail_counts(n_max, ratio, 2 * half, "step") == steps_of_the_fields_code(n_max, ratio, 2 * half)
    odd = long_tail_counts(n_max, ratio, 2 * half + 1, "step")
    assert odd == [n_max] * half + [int(n_max * (1 / ratio))] * (half + 1)


def test_the_draw_is_the_one_of_the_fields_code() -> None:
    labels = labels_of([5000] * 10, seed=3)
    random = np.random.RandomState(0)
    expected: list[int] = []
    for c in range(10):
        of_class = np.where(labels == c)[0]
        random.shuffle(of_class)
        expected += of_class[: int(5000 * 0.02 ** (c / 9.0))].tolist()
    protocol = draw_protocol(labels, names_of([1] * 10), DataConfig(imbalance_ratio=50.0))
    assert protocol.complete.tolist() == expected
    assert (protocol.imbalance_ratio, protocol.simulated) == (50.0, True)


@given(
    num_classes=st.integers(2, 12),
    per_class=st.integers(20, 40),
    ratio=st.floats(1, 5),
    val_per_class=st.integers(1, 9),
    tail=st.sampled_from(["exponential", "step"]),
    seed=st.integers(0, 99),
)
def test_validation_is_balanced_and_disjoint_and_takes_left_overs_first(
    num_classes: int, per_class: int, ratio: float, val_per_class: int, tail: str, seed: int
) -> None:
    counts = [per_class] * num_classes
    labels = labels_of(counts, seed)
    data = DataConfig(imbalance_ratio=ratio, val_per_class=val_per_class, tail=tail)
    protocol = draw_protocol(labels, names_of(counts), data)
    train, val, complete = set(protocol.train), set(protocol.val), set(protocol.complete)
    wanted = long_tail_counts(per_class, ratio, num_classes, tail)
    assert counts_in(labels, protocol.val, num_classes) == [val_per_class] * num_classes
    assert counts_in(labels, protocol.complete, num_classes) == wanted
    assert len(train) == len(protocol.train)
    assert len(val) == len(protocol.val)
    assert not train & val
    assert train == complete - val
    reserve = set(protocol.reserve)
    assert reserve >= val
    assert not reserve & (complete - val)
    assert len(reserve) == len(protocol.reserve)
    given_up = [max(0, val_per_class - (per_class - count)) for count in wanted]
    assert counts_in(labels, np.array(sorted(complete & val), dtype=np.int64), num_classes) == given_up


def test_only_class_0_gives_its_validation_images_up_from_training() -> None:
    counts = [125] * 10
    labels = labels_of(counts)
    protocol = draw_protocol(labels, names_of(counts), DataConfig(imbalance_ratio=20.0, val_per_class=25))
    complete = counts_in(labels, protocol.complete, 10)
    assert counts_in(labels, protocol.train, 10) == [complete[0] - 25, *complete[1:]]


def test_balanced_data_get_a_tail_without_being_asked() -> None:
    counts = [110, 100, 100, 95]
    protocol = draw_protocol(labels_of(counts), names_of(counts), DataConfig(n_max=100, val_per_class=2))
    assert protocol.simulated
    assert protocol.imbalance_ratio == 50.0


@pytest.mark.parametrize(
    ("images", "asked", "expected"), [(249, {}, 1), (250, {}, 50), (40, {"imbalance_ratio": 4.0}, 4)]
)
def test_balanced_data_too_small_for_the_usual_tail_are_used_as_they_are(
    images: int, asked: dict[str, float], expected: float
) -> None:
    counts = [images] * 3
    protocol = draw_protocol(labels_of(counts), names_of(counts), DataConfig(val_per_class=2, **asked))
    assert protocol.imbalance_ratio == expected
    assert protocol.simulated == (expected != 1)


@given(
    counts=st.lists(st.integers(2, 60), min_size=2, max_size=8).filter(lambda counts: max(counts) > 2 * min(counts)),
    fraction=st.floats(0.05, 0.5),
)
def test_natural_data_give_a_stratified_slice(counts: list[int], fraction: float) -> None:
    labels = labels_of(counts)
    protocol = draw_protocol(labels, names_of(counts), DataConfig(val_fraction=fraction))
    held_out = counts_in(labels, protocol.val, len(counts))
    assert not protocol.simulated
    assert protocol.imbalance_ratio == max(counts) / min(counts)
    assert sorted(protocol.complete) == list(range(len(labels)))
    assert sorted([*protocol.train, *protocol.val]) == sorted(protocol.complete)
    assert all(abs(held - fraction * count) <= 0.5 or held == 1 for held, count in zip(held_out, counts, strict=True))
    assert min(held_out) >= 1


@pytest.mark.parametrize(
    ("counts", "data", "said"),
    [
        ([10, 0, 10], DataConfig(imbalance_ratio=2.0), "class 'class-1' has no training example"),
        (
            [40, 40, 5],
            DataConfig(imbalance_ratio=2.0),
            r"class 'class-2' has 5 examples and the tail asks for 20.*n-max",
        ),
        ([40, 40, 40], DataConfig(imbalance_ratio=100.0), r"asks for 0; set a smaller --data.imbalance-ratio"),
        (
            [9, 9, 9],
            DataConfig(imbalance_ratio=2.0, val_per_class=9),
            "class 'class-0' has 9 examples, too few to give 9",
        ),
        ([90, 1, 20], DataConfig(), r"class 'class-1' has 1 training example\(s\), too few to give one to validation"),
    ],
)
def test_a_class_too_small_is_named_with_a_remedy(counts: list[int], data: DataConfig, said: str) -> None:
    with pytest.raises(UserError, match=said):
        draw_protocol(labels_of(counts), names_of(counts), data)


@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=6), fraction=st.floats(0.1, 0.9))
def test_holding_out_a_test_set_splits_every_class(counts: list[int], fraction: float) -> None:
    labels = labels_of(counts)
    train, test = hold_out(labels, len(counts), fraction)
    assert sorted([*train, *test]) == list(range(len(labels)))
    held_out = counts_in(labels, test, len(counts))
    assert held_out == [max(1, round(count * fraction)) for count in counts]


def test_shuffling_by_class_does_not_depend_on_numpys_global_state() -> None:
    labels = labels_of([30, 20])
    np.random.seed(1)
    first = shuffled_by_class(labels, 2)
    np.random.seed(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, shuffled_by_class(labels, 2), strict=True))


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    size=st.integers(1, 70),
    seed=st.integers(0, 2**31 - 1),
)
def test_the_balanced_resample_cuts_large_classes_and_repeats_small_ones_whole(
    counts: list[int], size: int, seed: int
) -> None:
    labels = labels_of(counts)
    rows = balanced_resample(labels, size, seed)
    assert counts_in(labels, rows, len(counts)) == [size] * len(counts)
    assert np.array_equal(rows, balanced_resample(labels, size, seed))
    times = Counter(rows.tolist())
    for c, count in enumerate(counts):
        drawn = [times[row] for row in np.flatnonzero(labels == c)]
        assert min(drawn) >= size // count
        assert count < size or max(drawn) == 1


def test_another_seed_draws_another_resample() -> None:
    labels = labels_of([30, 30])
    assert not np.array_equal(balanced_resample(labels, 10, 0), balanced_resample(labels, 10, 1))


@given(st.lists(st.integers(1, 100), min_size=2, max_size=20))
def test_head_medium_and_tail_are_thirds_by_training_count(counts: list[int]) -> None:
    groups = class_groups(counts)
    third = max(1, len(counts) // 3)
    assert list(groups) == (["head", "medium", "tail"] if len(counts) > 2 else ["head", "tail"])
    assert all(groups.values())
    assert sorted(c for members in groups.values() for c in members) == list(range(len(counts)))
    assert len(groups["head"]) == len(groups["tail"]) == third
    by_group = [[counts[c] for c in members] for members in groups.values()]
    assert all(min(larger) >= max(smaller) for larger, smaller in pairwise(by_group))


@pytest.mark.parametrize("counts", [long_tail_counts(5000, 50, 10, "exponential"), [7] * 10])
def test_the_tail_of_ten_classes_is_7_to_9(counts: list[int]) -> None:
    assert class_groups(counts) == {"head": [0, 1, 2], "medium": [3, 4, 5, 6], "tail": [7, 8, 9]}


def test_many_are_more_than_100_images_and_few_are_fewer_than_20() -> None:
    counts = [19, 20, 100, 101, 1, 1280]
    assert class_groups(counts, "many-medium-few") == {"head": [3, 5], "medium": [1, 2], "tail": [0, 4]}
    assert class_groups([30, 19], "many-medium-few") == {"medium": [0], "tail": [1]}
    check_groups(counts, "many-medium-few", "image")
    with pytest.raises(
        UserError, match=r"no class has fewer than 20 .*\(1 in the head, 1 in the medium; the rarest .*20"
    ):
        check_groups([300, 20], "many-medium-few", "image")
    with pytest.raises(UserError, match="counts images, and a label here is that of a pixel; leave it out"):
        check_groups(counts, "many-medium-few", "pixel")


def test_one_class_is_none() -> None:
    with pytest.raises(UserError, match="has one class, class-0, and nothing to tell apart; give data of several"):
        draw_protocol(labels_of([40]), names_of([40]), DataConfig())


def test_of_two_classes_the_frequent_one_is_the_head_and_the_rare_one_the_tail() -> None:
    assert class_groups([10, 90]) == {"head": [1], "tail": [0]}
