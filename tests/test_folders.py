"""Folders of images: what they give, and what is said of those that are wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from imagesets import Images, channels_first, images_of, opened, refusal, write_folder
from PIL import Image
from torchvision.datasets import ImageFolder

from ltsd.config import DataConfig
from ltsd.data.layouts.layout import WHOLE
from ltsd.data.sources import load_source


def test_class_folders_with_a_test_set(tmp_path: Path) -> None:
    images, labels, names = images_of(10), [0, 0, 0, 1, 1, 1, 0, 0, 1, 1], ["cat", "dog"]
    write_folder(tmp_path / "train", list(images[:6]), labels[:6], names)
    write_folder(tmp_path / "test", list(images[6:]), labels[6:], names)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    source = load_source(DataConfig(source=str(tmp_path)))
    assert source.train.class_names == ("cat", "dog")
    assert torch.equal(source.train.images, channels_first(images[:6]))
    assert torch.equal(source.test.images, channels_first(images[6:]))
    assert source.test.labels.tolist() == [0, 0, 1, 1]


def test_of_two_folders_for_one_split_the_user_chooses(tmp_path: Path) -> None:
    images, names = images_of(8), ["cat", "dog"]
    for index, part in enumerate(("train", "test", "val", "validation")):
        write_folder(tmp_path / part, list(images[2 * index : 2 * index + 2]), [0, 1], names)
    assert "several splits for validation: val, validation; choose with --data.split-map" in refusal(tmp_path)
    source = load_source(DataConfig(source=str(tmp_path), split_map="validation=val"))
    assert torch.equal(source.test.images, channels_first(images[2:4]))
    assert torch.equal(source.train.images[source.validation_from :], channels_first(images[4:6]))
    assert source.reading.passed_over["files of splits that are not used"] == (2, "validation/cat/000.png")


def test_class_folders_without_a_test_set_give_one_up(tmp_path: Path) -> None:
    labels = [i % 2 for i in range(20)]
    write_folder(tmp_path, list(images_of(20)), labels, ["cat", "dog"])
    source = load_source(DataConfig(source=str(tmp_path), test_fraction=0.3))
    assert torch.bincount(source.train.labels).tolist() == [7, 7]
    assert torch.bincount(source.test.labels).tolist() == [3, 3]


def test_images_are_found_as_torchvision_finds_them(tmp_path: Path) -> None:
    """In folders below their class's, and by every ending that it knows."""
    write_folder(tmp_path / "owl", list(images_of(6)), [0, 0, 1, 1, 2, 2], ["2024", "2025/may", "."])
    write_folder(tmp_path, list(images_of(3, seed=1)), [0, 0, 0], ["cat"])
    (tmp_path / "cat" / "000.png").rename(tmp_path / "cat" / "000.TIFF")
    expected = ImageFolder(str(tmp_path))
    folder = opened(tmp_path)
    assert folder.class_names == expected.classes
    found = [(place, label) for place, _, label in folder.rows[WHOLE]]
    assert found == expected.samples
    assert len(found) == 9


def write_tiny_imagenet(root: Path, images: list[Images], wnids: list[str]) -> None:
    """As it is distributed; two training images and one for validation of every class."""
    order = [name for name in wnids for _ in range(3)]
    lines = []
    for index, (image, name) in enumerate(zip(images, order, strict=True)):
        part = root / ("val/images" if index % 3 == 2 else f"train/{name}/images")
        part.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0] if index % 2 else image).save(part / f"{index}.JPEG", "jpeg")
        lines += [f"{index}.JPEG\t{name}\t0\t32\t44\t62"] if index % 3 == 2 else []
        (root / "train" / name / f"{name}_boxes.txt").write_text("0.JPEG\t0\t10\t63\t58\n")
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (root / "wnids.txt").write_text("\n".join(wnids) + "\n")
    (root / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\n")
    write_folder(root / "test", list(images_of(1, seed=9)), [0], ["images"])


def test_tiny_imagenet_is_read_as_it_is_distributed(tmp_path: Path) -> None:
    """Classes sorted, whatever the order in wnids.txt; grey images among them; the unlabelled ones left alone."""
    wnids = ["n02124075", "n01443537", "n04067472"]
    write_tiny_imagenet(tmp_path, list(images_of(9, size=16)), wnids)
    source = load_source(DataConfig(source=str(tmp_path)))
    assert source.train.class_names == tuple(sorted(wnids))
    assert source.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert source.test.labels.tolist() == [1, 0, 2]
    assert source.train.images.shape[1:] == source.test.images.shape[1:] == (3, 16, 16)
    for index, image in zip([2, 5, 8], source.test.images, strict=True):
        path = tmp_path / "val" / "images" / f"{index}.JPEG"
        assert torch.equal(image, channels_first(np.asarray(Image.open(path).convert("RGB"))[None])[0])
    assert (source.test.images[1][0] == source.test.images[1][1]).all()


def change(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def test_wrong_annotations_of_tiny_imagenet_are_named_by_their_line(tmp_path: Path) -> None:
    write_tiny_imagenet(tmp_path, list(images_of(6)), ["n1", "n2"])
    annotations = tmp_path / "val" / "val_annotations.txt"
    change(annotations, "5.JPEG\tn2", "5.JPEG\tn3")
    assert f"{annotations} line 2: 'n3' is not one of the classes of wnids.txt" in refusal(tmp_path)
    change(annotations, "5.JPEG\tn3", "7.JPEG\tn2")
    assert "val/images/7.JPEG: cannot be read (No such file or directory)" in refusal(tmp_path)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty folder": (lambda root: root.mkdir(), "not an image set; it needs Parquet or Arrow files, or one folder of"),
    "no images": (lambda root: (root / "cat").mkdir(parents=True), "not an image set; it needs Parquet or Arrow files"),
    "no training images": (
        lambda root: write_folder(root / "testing", list(images_of(2)), [0, 1], ["a", "b"]),
        "has a folder testing and none named train",
    ),
    "broken file": (
        lambda root: (write_folder(root, list(images_of(2)), [0, 1], ["a", "b"]), (root / "b" / "x.png").touch()),
        "b/x.png: a broken image",
    ),
    "unknown class": (
        lambda root: (
            write_folder(root / "train", list(images_of(2)), [0, 1], ["a", "b"]),
            write_folder(root / "test", list(images_of(1)), [0], ["c"]),
        ),
        "test/c: is not one of the 2 classes of the training images, a, b",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_folder_that_is_wrong_is_refused_by_its_place(tmp_path: Path, name: str) -> None:
    make, said = BROKEN[name]
    make(tmp_path / "source")
    message = refusal(tmp_path / "source")
    assert said in message
    assert str(tmp_path / "source") in message
