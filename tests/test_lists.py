"""Lists of images, as ImageNet-LT, Places-LT and iNaturalist 2018 are distributed."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from imagesets import encoded, images_of, refusal
from sklearn.datasets import load_digits

from ltsd.__main__ import main
from ltsd.config import DataConfig
from ltsd.data.sources import Source, decoded, load_source
from ltsd.flags import exit_code_of

NAMES = ("zero", "one", "two")
SPLITS = {"train": 40, "val": 6, "test": 9}


def read(source: Path, **options: Any) -> Source:
    return load_source(DataConfig(source=str(source), **options))


def write_digits(root: Path, splits: Mapping[str, int] = SPLITS) -> dict[str, list[str]]:
    """Write that many of the digits 0, 1 and 2 a split into folders of classes; return the lines of lists of them, in
    the order of sorted folders.
    """
    digits = load_digits(n_class=len(NAMES))
    images = np.repeat((digits.images * 15.9).astype(np.uint8)[..., None], 3, axis=3)
    lines: dict[str, list[str]] = {}
    first = 0
    for split, count in splits.items():
        for row in range(first, first + count):
            folder = root / split / NAMES[digits.target[row]]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row:04d}.png").write_bytes(encoded(images[row]))
        files = sorted((root / split).rglob("*.png"))
        lines[split] = [f"{file.relative_to(root)} {sorted(NAMES).index(file.parent.name)}" for file in files]
        first += count
    return lines


def write_lists(folder: Path, lines: Mapping[str, Sequence[str]], name: str = "Digits_LT_{}.txt") -> Path:
    """Write a list a split; return that of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, of_split in lines.items():
        (folder / name.format(split)).write_text("\n".join([*of_split, ""]))
    return folder / name.format(next(iter(lines)))


@pytest.mark.parametrize("where", ["beside the images", "apart", "any of them", "in a folder"])
def test_lists_give_what_the_folders_of_the_same_files_give(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / ".hidden" / "images"
    lines = write_digits(root)
    expected = read(root)
    if where == "beside the images":
        found = read(write_lists(root, lines))
    else:
        monkeypatch.chdir(tmp_path)
        own = write_lists(tmp_path / "lists", lines)
        (tmp_path / "lists" / "Other_LT_val.txt").write_text("of another data set")
        given = {"apart": own, "any of them": own.with_name("Digits_LT_val.txt"), "in a folder": own.parent}[where]
        found = read(given.relative_to(tmp_path), root=".hidden/images")
    assert found.train.class_names == expected.train.class_names == tuple(sorted(NAMES))
    assert found.validation_from == expected.validation_from == SPLITS["train"]
    for mine, theirs in ((found.train, expected.train), (found.test, expected.test)):
        assert torch.equal(mine.images, theirs.images)
        assert torch.equal(mine.labels, theirs.labels)
    assert found.fingerprint == expected.fingerprint
    assert {role: part.files for role, part in found.reading.parts.items()} == {
        role: 1 + SPLITS[split] for role, split in (("train", "train"), ("validation", "val"), ("test", "test"))
    }
    assert not found.reading.passed_over


def test_a_validation_list_is_the_test_set_where_there_is_no_other_and_one_list_alone_gives_all(tmp_path: Path) -> None:
    lines = write_digits(tmp_path, {"train": 40, "val": 9})
    two = read(write_lists(tmp_path, lines, "iNaturalist18_{}.txt"))
    assert (len(two.train.labels), len(two.test.labels), two.validation_from) == (40, 9, 40)
    one = read(write_lists(tmp_path, {"all": lines["train"]}, "{}.txt"), test_fraction=0.2)
    assert one.reading.is_test_held_out
    assert len(one.train.labels) + len(one.test.labels) == 40


def test_a_split_map_chooses_lists_by_the_word_that_differs(tmp_path: Path) -> None:
    lines = write_digits(tmp_path, {"train": 40, "extra": 12, "val": 9})
    path = write_lists(tmp_path, lines)
    found = read(path, split_map="train=train+extra,validation=none,test=val")
    assert (len(found.train.labels), found.validation_from, len(found.test.labels)) == (52, 52, 9)
    without = read(path, split_map="validation=none", test_fraction=0.2)
    assert without.reading.passed_over == {"files of splits that are not used": (1, "Digits_LT_val.txt")}


def test_the_cache_follows_the_lists_and_their_images(tmp_path: Path) -> None:
    path = write_lists(tmp_path, write_digits(tmp_path))
    data = DataConfig(source=str(path))
    keys = {decoded(data)}
    assert decoded(data) in keys
    image = next((tmp_path / "train" / "one").iterdir())
    image.write_bytes(encoded(images_of(1, size=8)[0]))
    keys.add(decoded(data))
    path.write_text("\n".join(path.read_text().splitlines()[1:]))
    keys.add(decoded(data))
    (tmp_path / "Digits_LT_test.txt").unlink()
    keys.add(decoded(data))
    assert len(keys) == 4


NAMED_BY_FOLDER = {
    "of each class": (("a/cat", "a/dog", "b/owl"), ("cat", "dog", "owl")),
    "of one name in several places": (("a/cat", "a/dog", "b/cat"), ("cat", "dog", "cat")),
    "of Places": (("church/indoor", "church/outdoor", "mill/outdoor"), ("indoor", "church/outdoor", "mill/outdoor")),
    "of all classes": (("images", "images", "images"), ("0", "1", "2")),
    "of none": (("", "", ""), ("0", "1", "2")),
}


@pytest.mark.parametrize("case", NAMED_BY_FOLDER)
def test_classes_are_called_as_their_folders_or_by_number(case: str, tmp_path: Path) -> None:
    folders, names = NAMED_BY_FOLDER[case]
    labels = [sorted(set(names)).index(name) for name in names]
    lines = []
    for number, image in enumerate(images_of(30)):
        file = Path(folders[number % 3]) / f"{number} of thirty.png"
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(encoded(image))
        lines.append(f"{file}\t{labels[number % 3]}\r")
    found = read(write_lists(tmp_path, {"train": lines}))
    assert found.train.class_names == tuple(sorted(set(names)))


def changed(change: Callable[[list[str]], list[str]], split: str = "train") -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        lines = write_digits(root)
        return write_lists(root, lines | {split: change(lines[split])})

    return write


WRONG: dict[str, tuple[Callable[[Path], Path], str]] = {
    "images that are not there": (
        changed(lambda lines: [*lines, *(f"gone/{n}.png 0" for n in range(4))], "val"),
        "{root}/Digits_LT_val.txt: names 4 image(s) that are not in {root}: gone/0.png, gone/1.png, gone/2.png, … and "
        "1 more; give the folder that its paths are relative to with --data.root",
    ),
    "a folder for an image": (changed(lambda lines: [*lines, "train/one 0"]), "names 1 image(s) that are not in"),
    "no label": (
        changed(lambda lines: [lines[0], "", "train/one/0001.png", *lines[1:]]),
        "{root}/Digits_LT_train.txt line 3: 'train/one/0001.png' is not the path of an image, a blank and the number",
    ),
    "commas": (changed(lambda lines: [line.replace(" ", ",") for line in lines]), "Digits_LT_train.txt line 1: 'train"),
    "a name for a label": (changed(lambda lines: [*lines, "train/one/0001.png one"]), "line 41: "),
    "a zero byte": (changed(lambda lines: [*lines, "train/o\0ne.png 0"]), "line 41: "),
    "a path that is too long": (changed(lambda lines: [*lines, "x" * 5000 + " 0"]), "cannot be used"),
    "a negative label": (
        changed(lambda lines: [*lines, lines[0].replace(" 0", " -1")], "test"),
        "{root}/Digits_LT_test.txt line 10: the label -1 is negative; number classes from 0",
    ),
    "labels from 1": (
        changed(lambda lines: [line[:-1] + str(int(line[-1]) + 5) for line in lines]),
        "{root}/Digits_LT_train.txt: labels go up to 7, and no image has the label 3, 4; number classes from 0",
    ),
    "a huge label": (
        changed(lambda lines: [*lines[:-1], lines[-1][:-1] + "999999999"]),
        "labels go up to 999999999, and no image has the label 3, 4, 5, … and 999,999,993 more",
    ),
    "two labels of one image": (
        changed(lambda lines: [*lines, "./train/../" + lines[0].replace(" 0", " 2")]),
        "{root}/Digits_LT_train.txt line 41: train/one/0001.png has the label 2, and in {root}/Digits_LT_train.txt "
        "line 1 the label 0; keep one",
    ),
    "an absolute path": (changed(lambda lines: ["/" + lines[0]]), "line 1: the path /train/one/0001.png is not below"),
    "a path that leaves": (changed(lambda lines: ["a/../../" + lines[0]]), "is not below the folder of images; write"),
    "no line": (changed(lambda _: ["", " "]), "{root}/Digits_LT_train.txt: lists no image"),
    "no list that trains": (
        lambda root: write_lists(root, {"val": write_digits(root)["val"]}),
        "has beside it no list of the same name with train in place of val; bring it",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_list_is_refused_with_its_place(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write, message = WRONG[case]
    path = write(tmp_path)
    assert exit_code_of(lambda: main(["data", str(path)])) == 2
    said = capsys.readouterr().err
    assert message.format(root=tmp_path) in " ".join(said.split())
    assert "Traceback" not in said


def test_the_folder_of_images_is_that_of_a_list(tmp_path: Path) -> None:
    path = write_lists(tmp_path / "lists", write_digits(tmp_path / "images"))
    assert "names 40 image(s) that are not in" in refusal(path)
    assert f"--data.root {tmp_path}/none: no such folder; give the one that" in refusal(path, root=f"{tmp_path}/none")
    assert "and digits is no such list; leave the flag out" in refusal("digits", root=str(tmp_path))
    assert "one whose name says train; it has no text file" in refusal(tmp_path / "images", root=str(tmp_path))
    (tmp_path / "lists" / "Other_LT_train.txt").write_text("of another data set")
    assert "it has Digits_LT_train.txt, Other_LT_train.txt; name one" in refusal(path.parent, root=str(tmp_path))
    assert "a list of images is one data set" in refusal(path, root=str(tmp_path / "images"), config="one")


def test_300_classes_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = images_of(1200)
    labels = [number % 300 if number < 900 else number % 30 for number in range(1200)]
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / f"n{label:05d}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.png").write_bytes(encoded(image))
        lines["test" if number < 300 else "train"].append(f"n{label:05d}/{number}.png {label}")
    picture = tmp_path.with_suffix(".png")
    assert main(["data", str(write_lists(tmp_path, lines)), "--picture", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert "240 classes between" in shown
    assert "head: n00000 (12)" in shown
    assert picture.exists()
