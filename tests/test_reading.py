"""What is read of a source as people have it: splits, data sets side by side, companions, copies; nothing is dropped
without a word.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from imagesets import Images, channels_first, encoded, images_of, refusal, table_of, write_arrow_stream, write_parquet
from PIL import Image

from ltsd.config import DataConfig
from ltsd.data import Splits, load_splits
from ltsd.data.description import introduction
from ltsd.data.filesystems import find_place
from ltsd.data.sources import Source, load_source
from ltsd.errors import UserError

NAMES = ("cat", "dog", "owl")


def read(source: Path, **options: Any) -> Source:
    return load_source(DataConfig(source=str(source), **options))


def split_up(source: Path, **options: Any) -> Splits:
    return load_splits(DataConfig(source=str(source), **options))


def told(source: Path, **options: Any) -> str:
    data = DataConfig(source=str(source), **options)
    return "\n".join(introduction(load_splits(data), data))


def write_classes(root: Path, images: Images, names: Sequence[str] = NAMES) -> None:
    """Images [N, H, W, 3] into one folder per class, in turn."""
    for index, image in enumerate(images):
        folder = root / names[index % len(names)]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index:03d}.png").write_bytes(encoded(image))


def write_split(path: Path, images: Images, labels: Sequence[int] | None = None) -> None:
    labels = [i % 3 for i in range(len(images))] if labels is None else labels
    write_parquet(path, [*map(encoded, images)], labels, NAMES)


SPELLINGS = [("Train", "Test"), ("TRAINING", "Testing"), ("train_images", "test-images"), ("my train", "EVAL 2")]


@pytest.mark.parametrize("form", ["folders", "tables", "tables in folders"])
@pytest.mark.parametrize("words", SPELLINGS)
def test_splits_are_known_in_any_case_and_common_spelling(tmp_path: Path, form: str, words: tuple[str, str]) -> None:
    images = images_of(48)
    for word, part in zip(words, (images[:36], images[36:]), strict=True):
        if form == "folders":
            write_classes(tmp_path / word, part)
        else:
            write_split(tmp_path / (f"{word}.parquet" if form == "tables" else f"{word}/0.parquet"), part)
    source = read(tmp_path)
    assert source.train.class_names == NAMES
    assert torch.bincount(source.train.labels).tolist() == [12, 12, 12]
    assert torch.bincount(source.test.labels).tolist() == [4, 4, 4]


def test_a_validation_split_of_its_own_validates(tmp_path: Path) -> None:
    """Whole, also for the last choice; final runs train on train alone, or with it by a flag, and the table says so."""
    images = images_of(90)
    sizes = {"train": 48, "validation": 24, "test": 18}
    labels = {"train": [0] * 24 + [1] * 16 + [2] * 8, "validation": [0] * 12 + [1] * 8 + [2] * 4, "test": [0, 1, 2] * 6}
    start = 0
    for split, size in sizes.items():
        write_split(tmp_path / f"{split}.parquet", images[start : start + size], labels[split])
        start += size
    alone, both = split_up(tmp_path), split_up(tmp_path, finalists="train+validation")
    validating = {image.tobytes() for image in channels_first(images[48:72]).numpy()}
    for splits in (alone, both):
        assert {image.numpy().tobytes() for image in splits.val.images[splits.val.rows]} == validating
        assert torch.equal(splits.reserve.rows, splits.val.rows)
        assert splits.train.class_counts() == [24, 16, 8]
        assert splits.test.class_counts() == [6, 6, 6]
    assert alone.complete.class_counts() == [24, 16, 8]
    assert both.complete.class_counts() == [36, 24, 12]
    assert "the data's own validation split, whole" in told(tmp_path)
    assert "final runs train on the training split alone" in told(tmp_path)
    assert "final runs train on the training and the validation split" in told(tmp_path, finalists="train+validation")
    assert alone.fingerprint == both.fingerprint
    assert alone.fingerprint != split_up(tmp_path, split_map="validation=none").fingerprint


def test_under_a_simulated_tail_it_is_balanced(tmp_path: Path) -> None:
    images = images_of(120)
    write_split(tmp_path / "train.parquet", images[:90])
    write_split(tmp_path / "val.parquet", images[90:108], [0] * 9 + [1] * 6 + [2] * 3)
    write_split(tmp_path / "test.parquet", images[108:])
    splits = split_up(tmp_path, imbalance_ratio=3.0)
    assert splits.val.class_counts() == [3, 3, 3]
    assert splits.train.class_counts() == splits.complete.class_counts() == [30, 17, 10]
    with pytest.raises(UserError, match="the tail is simulated, and validation examples would change it"):
        split_up(tmp_path, imbalance_ratio=3.0, finalists="train+validation")
    write_split(tmp_path / "val.parquet", images[90:108], [0] * 9 + [1] * 9)
    with pytest.raises(UserError, match=r"class 'owl' has no example in the validation split.*validation=none"):
        split_up(tmp_path, imbalance_ratio=3.0)


@pytest.mark.parametrize("form", ["tables", "folders"])
def test_a_test_split_without_labels_is_left_aside(tmp_path: Path, form: str) -> None:
    """Then a share of the training images is the test set, and the validation split validates as ever."""
    images = images_of(90)
    if form == "tables":
        write_split(tmp_path / "train.parquet", images[:60])
        write_split(tmp_path / "validation.parquet", images[60:75])
        write_split(tmp_path / "test.parquet", images[75:], [-1] * 15)
    else:
        write_classes(tmp_path / "train", images[:60])
        write_classes(tmp_path / "validation", images[60:75])
        write_classes(tmp_path / "test", images[75:], ["."])
    options = {"imbalance_ratio": 2.0, "val_per_class": 1}
    splits = split_up(tmp_path, **options)
    assert sum(splits.val.class_counts()) == 15
    assert splits.test.class_counts() == [6, 6, 6]
    assert "split 'test' has no labels and is left aside" in told(tmp_path, **options)
    assert "files of splits that are not used: " in told(tmp_path, **options)
    tested = split_up(tmp_path, split_map="validation=none, test=validation", **options)
    expected = {image.tobytes() for image in channels_first(images[60:75]).numpy()}
    assert {image.numpy().tobytes() for image in tested.test.images} == expected


def test_a_split_map_names_any_folder_or_file(tmp_path: Path) -> None:
    images = images_of(60)
    for fold in range(3):
        write_split(tmp_path / f"fold{fold}.parquet", images[20 * fold : 20 * fold + 20])
    source = read(tmp_path, split_map="train=fold0+fold2,test=fold1")
    assert torch.equal(source.train.images, channels_first(images[[*range(20), *range(40, 60)]]))
    assert torch.equal(source.test.images, channels_first(images[20:40]))
    for text, said in [
        ("train", "'train' is not understood; give each of train, validation, test at most once"),
        ("trian=fold0", "'trian=fold0' is not understood"),
        ("train=fold0,test=fold9", "test=fold9: .* has no such split; it has fold0"),
        ("train=fold0,test=fold0", r"a split serves twice \(fold0, fold0\)"),
    ]:
        with pytest.raises(UserError, match=said):
            read(tmp_path, split_map=text)


def write_configurations(root: Path) -> tuple[Images, Images]:
    images = images_of(132)
    for name, part in (("r-10", images[:60]), ("r-20", images[60:])):
        write_split(root / name / "train-00000-of-00001.parquet", part[:-15])
        write_split(root / name / "test-00000-of-00001.parquet", part[-15:])
    return images[:45], images[60:117]


CARD = "---\nlicense: mit\nconfigs:\n- config_name: small\n  data_dir: r-10\n- config_name: large\n  {}\n---\n# Data\n"
FILES = "data_files:\n  - split: train\n    path: r-20/train-*\n  - split: test\n    path: r-20/test-*"


@pytest.mark.parametrize(
    ("card", "names"),
    [
        ("", ("r-10", "r-20")),
        (CARD.format("data_dir: r-20"), ("small", "large")),
        (CARD.format(FILES), ("small", "large")),
    ],
)
def test_of_several_data_sets_in_one_folder_the_user_chooses(tmp_path: Path, card: str, names: tuple[str, str]) -> None:
    small, large = write_configurations(tmp_path)
    if card:
        (tmp_path / "README.md").write_text(card)
    said = refusal(tmp_path)
    assert f"has 2 data sets, {'which its README.md names' if card else 'in the folders'} {', '.join(names)}" in said
    assert "--data.config" in said
    for name, images in zip(names, (small, large), strict=True):
        source = read(tmp_path, config=name)
        assert torch.equal(source.train.images, channels_first(images))
        assert len(source.test.labels) == 15
        assert source.reading.passed_over["files of other data sets in the same folder"][0] == 2
    assert f"has no such data set; it has {', '.join(names)}" in refusal(tmp_path, config="r-30")


def test_the_default_of_a_card_is_read_where_none_is_chosen(tmp_path: Path) -> None:
    _, large = write_configurations(tmp_path)
    (tmp_path / "README.md").write_text(CARD.format(f"default: true\n  {FILES}"))
    assert torch.equal(read(tmp_path).train.images, channels_first(large))
    assert "data set 'large'" in "\n".join(read(tmp_path).reading.lines())
    (tmp_path / "README.md").write_text(CARD.format("data_dir: ["))
    assert "the configurations in its README.md cannot be read" in refusal(tmp_path)
    (tmp_path / "README.md").write_text(CARD.format("default: true\n  data_files: gone/*.parquet"))
    assert "says that split 'train' of 'large' is gone/*.parquet, and no such file is there" in refusal(tmp_path)


def saved(root: Path, split: str, tables: Sequence[pa.Table], indices: Sequence[int] | None = None) -> Path:
    """A split as `save_to_disk` writes it, by older versions with the rows that are selected in a file of their own."""
    folder = root / split
    folder.mkdir(parents=True)
    files = [f"data-{i:05d}-of-{len(tables):05d}.arrow" for i in range(len(tables))]
    for name, table in zip(files, tables, strict=True):
        write_arrow_stream(table, folder / name)
    state: dict[str, Any] = {"_data_files": [{"filename": name} for name in files], "_split": split}
    if indices is not None:
        write_arrow_stream(pa.table({"indices": pa.array(indices, pa.uint64())}), folder / "indices.arrow")
        state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_a_saved_data_set_is_what_its_state_says(tmp_path: Path) -> None:
    """Cache files of an earlier `map` are not data; indices say which rows, in which order."""
    images, labels = images_of(42), [i % 3 for i in range(42)]
    tables = [table_of([*map(encoded, images[a:b])], labels[a:b], NAMES) for a, b in ((0, 20), (20, 30), (30, 42))]
    order = [29, 4, 4, 11, 0, 21]
    train = saved(tmp_path, "train", tables[:2], order)
    saved(tmp_path, "test", tables[2:])
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    write_arrow_stream(tables[0], train / "cache-0123456789abcdef.arrow")
    source = read(tmp_path)
    assert torch.equal(source.train.images, channels_first(images[order]))
    assert source.train.labels.tolist() == [labels[i] for i in order]
    assert torch.equal(source.test.images, channels_first(images[30:]))
    assert source.reading.passed_over == {
        "cache files that Hugging Face's datasets left": (1, "train/cache-0123456789abcdef.arrow")
    }
    (train / "data-00001-of-00002.arrow").unlink()
    assert "train/state.json names data-00001-of-00002.arrow, which is not there" in refusal(tmp_path)


APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(40)


def test_hidden_files_and_companions_are_passed_over_and_counted(tmp_path: Path) -> None:
    write_classes(tmp_path, images_of(60))
    for path in ("cat/._000.png", ".DS_Store", "__MACOSX/cat/._001.png", "dog/Thumbs.db", ".cache/cat/1.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(APPLE_DOUBLE)
    (tmp_path / "owl" / "notes.txt").write_text("not an image")
    (tmp_path / "stray.png").write_bytes(encoded(images_of(1)[0]))
    source = read(tmp_path)
    assert source.train.class_names == NAMES
    assert len(source.train.labels) + len(source.test.labels) == 60
    passed_over = {reason: count for reason, (count, _) in source.reading.passed_over.items()}
    assert list(passed_over.values()) == [5, 1, 1]
    assert "hidden files, or companions that an operating system made: 5 (" in told(
        tmp_path, val_per_class=1, imbalance_ratio=2.0
    )


def test_links_are_followed_and_those_that_cannot_be_are_counted(tmp_path: Path) -> None:
    images, root = images_of(24), tmp_path / "root"
    write_classes(tmp_path / "elsewhere", images, ["owl"])
    write_classes(root, images_of(24, seed=1), ["cat"])
    (root / "owl").symlink_to("../elsewhere/owl")
    (root / "cat" / "gone.png").symlink_to("nowhere.png")
    (root / "cat" / "again").symlink_to("..")
    (root / "cat" / "knot").symlink_to("knot")
    (root / "empty").mkdir()
    source = read(root)
    assert source.train.class_names == ("cat", "owl")
    assert len(source.train.labels) + len(source.test.labels) == 48
    assert source.reading.passed_over == {
        "links that lead nowhere": (2, str(root / "cat" / "gone.png")),
        "links to a folder above them": (1, str(root / "cat" / "again")),
    }


def test_a_name_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    write_classes(tmp_path, images_of(24), ["cat", "owl"])
    (tmp_path / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    with pytest.raises(UserError, match=r"cat: holds the name b'caf\\xe9.png', which is not UTF-8; rename it"):
        read(tmp_path)


def test_what_pillow_reads_is_read_whatever_its_ending(tmp_path: Path) -> None:
    images = images_of(24)
    write_classes(tmp_path, images, ["cat", "dog"])
    for ending, kind in [("jfif", "jpeg"), ("GIF", "gif"), ("webp", "webp"), ("jp2", "jpeg2000"), ("ico", "png")]:
        (tmp_path / "cat" / f"a.{ending}").write_bytes(encoded(images[0], kind))
    assert torch.bincount(read(tmp_path).train.labels).tolist() == [12, 8]
    for name in ("a.heic", "b.heic"):
        (tmp_path / "owl").mkdir(exist_ok=True)
        (tmp_path / "owl" / name).write_bytes(b"ftypheic")
    said = refusal(tmp_path)
    assert f"{tmp_path}/owl: none of its files is an image that can be read (a.heic)" in said


@pytest.mark.parametrize("tag", range(1, 9))
def test_orientation_tags_are_obeyed(tmp_path: Path, tag: int) -> None:
    """The eight ways to hold a camera: what undoes each is Pillow's."""
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    upright = images_of(1, size=8)[0]
    undo = {0: 0, 1: 1, 2: 4, 3: 3, 4: 2, 5: 5, 6: 6}
    picture = Image.fromarray(upright)
    stored = picture if tag == 1 else picture.transpose(Image.Transpose(undo[turns[tag]]))
    exif = Image.Exif()
    exif[0x0112] = tag
    for name in ("plain", "tagged"):
        (tmp_path / name).mkdir()
        for i in range(4):
            (picture if name == "plain" else stored).save(
                tmp_path / name / f"{i}.png", **({"exif": exif} if name == "tagged" else {})
            )
    source = read(tmp_path)
    assert torch.equal(source.train.images, channels_first(upright[None]).expand(len(source.train.labels), -1, -1, -1))
    assert source.reading.oriented == (4 if tag > 1 else 0)


def test_images_of_two_splits_are_refused_or_told(tmp_path: Path) -> None:
    images = images_of(400)
    write_split(tmp_path / "train.parquet", images[:300])
    write_split(tmp_path / "test.parquet", np.concatenate([images[300:399], images[:3]]))
    options = {"imbalance_ratio": 1.0, "val_per_class": 3}
    with pytest.raises(UserError, match=r": 3 of 102 test examples are, value by value, also training examples.*allow"):
        split_up(tmp_path, **options)
    assert "3 examples both trained on and tested on" in told(tmp_path, duplicates="allow", **options)
    write_split(tmp_path / "test.parquet", np.concatenate([images[300:399], images[:1]]))
    assert "1 examples both trained on and tested on" in told(tmp_path, **options)
    write_split(tmp_path / "test.parquet", np.concatenate([images[300:399], images[300:302]]))
    assert "2 test examples that repeat another one" in told(tmp_path, **options)


def test_folds_side_by_side_are_not_one_data_set(tmp_path: Path) -> None:
    """Joined they would train on every test image, and said so where one asks for it."""
    images = images_of(90)
    for fold in range(3):
        inside = np.arange(90) // 30 == fold
        write_split(tmp_path / f"fold-{fold}" / "train.parquet", images[~inside])
        write_split(tmp_path / f"fold-{fold}" / "test.parquet", images[inside])
    assert "has 3 data sets, in the folders fold-0, fold-1, fold-2" in refusal(tmp_path)
    assert len(read(tmp_path, config="fold-1").test.labels) == 30
    shutil.copy(tmp_path / "fold-0" / "train.parquet", tmp_path / "fold-1" / "train.parquet")
    with pytest.raises(UserError, match="30 of 30 test examples are, value by value, also training examples"):
        split_up(tmp_path, config="fold-1", imbalance_ratio=1.0, val_per_class=2)


def test_copies_of_what_is_held_out_are_not_trained_on(tmp_path: Path) -> None:
    """Where this project draws the splits, it draws them so that none holds another's images."""
    images = images_of(120)
    images[1::10] = images[0]
    labels = [i % 2 for i in range(120)]
    write_parquet(tmp_path / "one.parquet", [*map(encoded, images)], labels, NAMES[:2])
    splits = split_up(tmp_path / "one.parquet", imbalance_ratio=2.0, val_per_class=4)
    rows = {name: getattr(splits, name) for name in ("train", "val", "complete", "test")}
    pixels = {name: {image.numpy().tobytes() for image in s.images[s.rows]} for name, s in rows.items()}
    assert not pixels["complete"] & pixels["test"]
    assert not pixels["train"] & pixels["val"]
    write_parquet(tmp_path / "same.parquet", [encoded(images[0])] * 40, labels[:40], NAMES[:2])
    with pytest.raises(UserError, match=r"every training example of class 'cat' is, value by value, also held out"):
        split_up(tmp_path / "same.parquet", imbalance_ratio=2.0, val_per_class=1)


WORDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "splits without classes": (
        lambda root: [write_classes(root / word, images_of(6), ["."]) for word in ("Train", "Test")],
        "its only folders of images, Test, Train, are named as splits are and have no folder for each class",
    ),
    "classes called as splits are": (
        lambda root: write_classes(root, images_of(12), ["trainset", "testset"]),
        "its only classes, testset, trainset, are named as splits are",
    ),
    "a column of splits for labels": (
        lambda root: write_parquet(
            root / "train.parquet", [*map(encoded, images_of(6))], [0, 1] * 3, ["Train", "Test"]
        ),
        "its only classes, Train, Test, are named as splits are",
    ),
    "a class of one image, which the test set takes": (
        lambda root: [write_classes(root, images_of(6), ["cat", "dog"]), write_classes(root, images_of(1), ["owl"])],
        "class 'owl' has one image, and the test set takes it",
    ),
    "a test split that is chosen and has no labels": (
        lambda root: [
            write_split(root / "train.parquet", images_of(6)),
            write_split(root / "test.parquet", images_of(3), [-1] * 3),
        ],
        "--data.split-map test=test: ",
    ),
}


@pytest.mark.parametrize("name", WORDS)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, name: str) -> None:
    make, said = WORDS[name]
    make(tmp_path)
    options = {"split_map": "test=test"} if "chosen" in name else {}
    assert said in refusal(tmp_path, **options)


def test_a_class_may_be_called_as_a_split_is(tmp_path: Path) -> None:
    """Things that move: beside other classes a folder of that name is one of them."""
    write_classes(tmp_path / "flat", images_of(30), ["bus", "car", "train"])
    assert read(tmp_path / "flat").train.class_names == ("bus", "car", "train")
    for split in ("train", "test"):
        write_classes(tmp_path / "deep" / split, images_of(30), ["bus", "car", "train"])
    assert torch.bincount(read(tmp_path / "deep").test.labels).tolist() == [10, 10, 10]


def test_every_file_is_read_or_accounted_for(tmp_path: Path) -> None:
    write_configurations(tmp_path)
    write_classes(tmp_path / "assets", images_of(4))
    (tmp_path / "notes.txt").write_text("…")
    source = read(tmp_path, config="r-10")
    counted = sum(part.files for part in source.reading.parts.values())
    counted += sum(count for count, _ in source.reading.passed_over.values())
    assert counted == len(find_place(str(tmp_path)).files)


def test_a_folder_around_all_classes_is_none_and_two_levels_of_classes_are_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "data" / "images", images_of(30))
    assert read(tmp_path).train.class_names == NAMES
    write_classes(tmp_path / "data" / "more", images_of(30, seed=1))
    said = refusal(tmp_path / "data")
    assert "the folders images, more hold folders of the same names, cat, dog, owl" in said
    assert read(tmp_path / "data", config="more").train.class_names == NAMES
    assert read(tmp_path / "data", config=".").train.class_names == ("images", "more")
