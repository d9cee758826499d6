"""Groups of images, as the frames of a video: splits that do not tear them apart, and what is said of wrong columns."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imagesets import CAMVID, FORMS, IMAGE, encoded, images_of, maps_of, refusal, table_of

from ltsd.__main__ import main
from ltsd.config import DataConfig
from ltsd.data import Splits, load_splits
from ltsd.data.groups import BLOCK, GAP, MANY, bootstrap_blocks, hold_out_groups
from ltsd.errors import UserError
from ltsd.evaluation.correctness import read_correctness, write_correctness
from ltsd.evaluation.pixels_on_disk import read_counts

MERGED = "train=train+validation,validation=none"


def write_frames(path: Path, groups: Sequence[str | None], names: Sequence[str], maps: np.ndarray, form: str) -> None:
    """Frames whose pixels all have the number of their row among `names`, sorted, as value."""
    size = maps.shape[1]
    images = [np.full((size, size, 3), sorted(names).index(name), np.uint8) for name in names]
    pictures = [{"bytes": encoded(one), "path": name} for one, name in zip(images, names, strict=True)]
    masks = [{"bytes": encoded(one), "path": None} for one in maps]
    columns = {"image": pa.array(pictures, IMAGE), "annotation": pa.array(masks, IMAGE), "video": pa.array(groups)}
    FORMS[form](pa.table(columns), path)


def split_up(source: Path, **options: object) -> Splits:
    return load_splits(DataConfig(source=str(source), group_by="video", **options))  # type: ignore[arg-type]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(25, 40), min_size=2, max_size=2 * MANY), st.floats(0.05, 0.5), st.integers(0, 9))
def test_what_is_held_out_is_not_beside_what_is_kept(sizes: list[int], fraction: float, seed: int) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    counts = np.random.RandomState(seed).randint(1, 9, (len(groups), 3))
    kept, held = hold_out_groups(groups, counts, fraction, source="films", class_names=("a", "b", "c"))
    assert not set(kept) & set(held)
    if len(sizes) >= MANY:
        assert not set(groups[kept]) & set(groups[held])
        assert len(kept) + len(held) == len(groups)
        return
    for group in range(len(sizes)):
        block = held[groups[held] == group]
        assert len(block) == max(1, round(fraction * sizes[group])) == block[-1] - block[0] + 1
        beside = kept[groups[kept] == group]
        assert not len(beside) or np.abs(beside[:, None] - block).min() == GAP + 1


def test_the_held_out_groups_have_the_classes_of_the_whole() -> None:
    """Five of a hundred groups have the rare class, so that one in ten groups cannot have a tenth of it."""
    groups = np.repeat(np.arange(100), 10)
    counts = np.where(groups[:, None] % 20 == 0, [9, 1], [10, 0])
    _, held = hold_out_groups(groups, counts, 0.1, source="films", class_names=("a", "b"))
    assert len(set(groups[held])) == 10
    assert len({group for group in groups[held] if group % 20 == 0}) == 1


@pytest.mark.parametrize("form", FORMS)
def test_frames_are_in_the_order_of_their_names_and_validation_is_a_block_of_them(tmp_path: Path, form: str) -> None:
    """The validation split fills a hole in the training videos; without leading zeros text would sort otherwise."""
    names = [f"{video}_{frame}.png" for video in "ab" for frame in range(85, 145)]
    groups, ending = [name[0] for name in names], form.split()[0]
    own = np.array([20 <= k % 60 < 40 for k in range(120)])
    maps = maps_of(120)
    for split, rows in {"validation": own, "train": ~own, "test": np.arange(120) < 25}.items():
        of_split = np.flatnonzero(rows)
        shown = [f"c{names[k]}" if split == "test" else names[k] for k in of_split]
        videos = ["c" if split == "test" else groups[k] for k in of_split]
        write_frames(tmp_path / f"{split}.{ending}", videos, shown, maps[of_split], form)
    splits = split_up(tmp_path, split_map=MERGED, duplicates="allow")
    assert np.array_equal(splits.train.labels.numpy(), maps)
    held, kept = splits.val.rows.numpy(), splits.train.rows.numpy()
    assert [(held < 60).sum(), (held >= 60).sum()] == [6, 6]
    assert np.abs(kept[:, None] - held)[(kept // 60)[:, None] == held // 60].min() == GAP + 1
    assert len(splits.complete) == 120
    assert splits.val_from.startswith("0.1 of the training examples, a block of consecutive ones of each of 2 groups")
    assert splits.test_blocks is not None
    assert splits.test_blocks.tolist() == [0] * 10 + [1] * 10 + [2] * 5


def test_an_exam_keeps_what_a_bootstrap_draws_together(tmp_path: Path) -> None:
    names, maps = [f"{k:03}" for k in range(60)], maps_of(60, size=8)
    write_frames(tmp_path / "train.parquet", ["a"] * 20 + ["b"] * 20, names[:40], maps[:40], "parquet")
    write_frames(tmp_path / "test.parquet", ["c"] * 9 + ["d"] * 11, names[40:], maps[40:], "parquet")
    out, kept = tmp_path / "one.pt", tmp_path / "counts.parquet"
    flags = ["--method", "natural", "--epochs", "1", "--model.width", "8", "--evaluate.steps", "1", "--out", str(out)]
    grouped = ["--data.group-by", "video", "--data.duplicates", "allow"]
    assert main(["train", "--data", str(tmp_path), *grouped, *flags]) == 0
    assert main(["evaluate", str(out), "--correctness", str(kept)]) == 0
    counts, _ = read_counts(kept)
    assert counts["clean"].blocks is not None
    assert counts["clean"].blocks.tolist() == [0] * 9 + [1] * 10 + [2]


def test_an_exam_of_classes_keeps_them_too(tmp_path: Path) -> None:
    """And with a file of the same exam that knows of no groups, as one from before is."""
    tail = np.random.default_rng(0).permutation(np.repeat(np.arange(5), [16, 9, 6, 5, 4]))
    labels, images = np.concatenate([tail, np.arange(20) % 5]), images_of(60, size=8)
    for split, rows, smears in (("train", range(40), "a" * 20 + "b" * 20), ("test", range(40, 60), "c" * 9 + "d" * 11)):
        pictures = [{"bytes": encoded(images[k]), "path": f"{k:03}"} for k in rows]
        columns = {"image": pa.array(pictures, IMAGE), "label": labels[list(rows)], "smear": pa.array(list(smears))}
        FORMS["parquet"](pa.table(columns), tmp_path / f"{split}.parquet")
    out, kept = tmp_path / "one.pt", tmp_path / "correctness.parquet"
    small = ["--method", "natural", "--epochs", "1", "--model.name", "small-cnn", "--model.width", "8"]
    assert main(["train", "--data", str(tmp_path), "--data.group-by", "smear", *small, "--out", str(out)]) == 0
    for _ in range(2):
        assert main(["evaluate", str(out), "--correctness", str(kept)]) == 0
        correctness, fingerprint = read_correctness(kept)
        assert all(one.blocks is not None for one in correctness.values())
        assert correctness["pgd20"].blocks.tolist() == [0] * 9 + [1] * 10 + [2]
        write_correctness(kept, {name: replace(one, blocks=None) for name, one in correctness.items()}, fingerprint)


def test_a_split_that_shares_a_group_is_told_and_kept(tmp_path: Path) -> None:
    for split, videos in {"train": "aabb", "validation": "bb", "test": "ac"}.items():
        names = [f"{split}{k}" for k in range(len(videos))]
        write_frames(tmp_path / f"{split}.parquet", list(videos), names, maps_of(len(videos)), "parquet")
    splits = split_up(tmp_path, duplicates="allow")
    assert len(splits.val) == 2
    assert splits.reading.notes == ["video b: in train and in validation", "video a: in train and in test"]


def test_without_a_test_split_no_group_is_in_two_splits(tmp_path: Path) -> None:
    groups = [f"film {k // 4}" for k in range(80)]
    write_frames(tmp_path / "one.parquet", groups, [f"{k:03}" for k in range(80)], maps_of(80), "parquet")
    splits = split_up(tmp_path / "one.parquet", duplicates="allow")
    films = [{int(p.images[row, 0, 0, 0]) // 4 for row in p.rows} for p in (splits.train, splits.val, splits.test)]
    assert [len(part) for part in films] == [13, 1, 6]
    assert len(set.union(*films)) == 20


def test_classes_of_images_are_held_out_by_group_too(tmp_path: Path) -> None:
    labels = [0] * 90 + [1] * 30
    table = table_of([*map(encoded, images_of(120))], labels)
    pq.write_table(table.append_column("video", pa.array([k % 15 for k in range(120)])), tmp_path / "one.parquet")
    splits = split_up(tmp_path / "one.parquet")
    hashes = [{p.images[row].numpy().tobytes() for row in p.rows} for p in (splits.train, splits.val, splits.test)]
    group_of = {one.transpose(2, 0, 1).tobytes(): k % 15 for k, one in enumerate(images_of(120))}
    groups = [{group_of[one] for one in part} for part in hashes]
    assert len(set.union(*groups)) == sum(map(len, groups)) == 15
    assert min(splits.val.class_counts()) > 0
    with pytest.raises(UserError, match=r"--data\.group-by video: a simulated tail draws examples one by one"):
        split_up(tmp_path / "one.parquet", imbalance_ratio=2.0)


def test_a_wrong_column_of_groups_is_refused(tmp_path: Path) -> None:
    path, names = tmp_path / "one.parquet", [f"{k:03}" for k in range(8)]
    write_frames(path, ["a"] * 8, names, maps_of(8), "parquet")
    assert "one.parquet has no such column; it has image, annotation, video; did you mean 'video'?" in refusal(
        path, group_by="vidio"
    )
    assert "--data.group-by finds one group in its 8 training images, and two are needed" in refusal(
        path, group_by="video"
    )
    write_frames(path, ["a"] * 7 + [None], names, maps_of(8), "parquet")
    assert "one.parquet row 7: has no video" in refusal(path, group_by="video")
    assert "digits has none; leave the flag out" in refusal("digits", group_by="video")
    maps = np.zeros((8, 6, 6), np.uint8)
    maps[:4, 0], maps[4:, 0] = 1, 2
    write_frames(path, ["a"] * 4 + ["b"] * 4, names, maps, "parquet")
    assert "it would have nothing to train on; set a smaller fraction" in refusal(path, group_by="video")


def test_a_bootstrap_draws_whole_groups_where_there_are_many() -> None:
    many = np.repeat(np.arange(MANY) + 7, 15)
    assert np.array_equal(bootstrap_blocks(many), np.repeat(np.arange(MANY), 15))
    few = np.repeat([4, 9], [BLOCK + 3, BLOCK])
    assert np.array_equal(bootstrap_blocks(few), np.repeat([0, 1, 2], [BLOCK, 3, BLOCK]))


@pytest.mark.skipif(not CAMVID.exists(), reason=f"{CAMVID} is not on this machine")
def test_camvid_validates_on_what_its_training_images_are_like() -> None:
    """Its own validation split has 2.3% of cyclists, its training split 0.3%."""
    options = {"source": str(CAMVID), "group_by": "sequence", "split_map": MERGED}
    splits = load_splits(DataConfig(**options))  # type: ignore[arg-type]
    held, whole = (np.array(part.class_counts()) for part in (splits.val, splits.complete))
    assert [len(splits.complete), len(splits.val)] == [468, 46]
    assert np.abs(np.log(held / held.sum() * whole.sum() / whole)).max() < np.log(1.5)
    assert np.abs(splits.train.rows.numpy()[:, None] - splits.val.rows.numpy()).min() > GAP
