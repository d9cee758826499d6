"""Published sets of label maps, in tiny trees of their layouts, as torchvision's own classes read them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from imagesets import encoded, images_of, refusal
from PIL import Image
from torchvision.datasets import Cityscapes, OxfordIIITPet, VOCSegmentation

from ltsd.config import DataConfig
from ltsd.data.sources import Source, load_source

NAMES = ("b_2", "a_1", "c_3", "d_4", "e_5")
SIZE = 8
Samples = Sequence[tuple[Image.Image, Image.Image]]


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def masks_of(count: int, values: Sequence[int]) -> list[np.ndarray]:
    """Every value stands in every mask."""
    drawn = np.random.RandomState(1).choice(values, (count, SIZE, SIZE)).astype(np.uint8)
    drawn.reshape(count, -1)[:, : len(values)] = values
    return list(drawn)


def indexed(mask: np.ndarray, path: Path) -> None:
    """A PNG of mode P, as VOC's masks are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    image.putpalette([(7 * value) % 256 for value in range(3 * 256)])
    image.save(path)


def voc(root: Path) -> None:
    home = root / "VOCdevkit" / "VOC2012"
    for name, image, mask in zip(NAMES, images_of(5, SIZE), masks_of(5, [*range(21), 255]), strict=True):
        write(home / "JPEGImages" / f"{name}.jpg", encoded(image, "jpeg"))
        indexed(mask, home / "SegmentationClass" / f"{name}.png")
        indexed(mask, home / "SegmentationObject" / f"{name}.png")
    for split, rows in {"train": NAMES[:3], "val": NAMES[3:], "trainval": NAMES}.items():
        write(home / "ImageSets" / "Segmentation" / f"{split}.txt", "\n".join([*rows, ""]).encode())
    write(home / "ImageSets" / "Main" / "train.txt", b"a_1 1\n")


def cityscapes(root: Path) -> None:
    for number, (image, mask) in enumerate(zip(images_of(5, SIZE), masks_of(5, range(34)), strict=True)):
        below = f"{'train' if number < 3 else 'val'}/{'ulm' if number % 2 else 'aachen'}"
        stem = f"{below}/{below[-3:]}_00000{number}_000019"
        write(root / "leftImg8bit" / f"{stem}_leftImg8bit.png", encoded(image))
        write(root / "gtFine" / f"{stem}_gtFine_labelIds.png", encoded(mask))
        write(root / "gtFine" / f"{stem}_gtFine_instanceIds.png", encoded(mask))
    write(root / "leftImg8bit" / "test" / "berlin" / "berlin_0_0_leftImg8bit.png", encoded(images_of(1, SIZE)[0]))
    write(root / "gtFine" / "test" / "berlin" / "berlin_0_0_gtFine_labelIds.png", encoded(np.zeros((8, 8), np.uint8)))


def pets(root: Path) -> None:
    home = root / "oxford-iiit-pet"
    for name, image, mask in zip(NAMES, images_of(5, SIZE), masks_of(5, [1, 2, 3]), strict=True):
        write(home / "images" / f"{name}.jpg", encoded(image, "jpeg"))
        write(home / "annotations" / "trimaps" / f"{name}.png", encoded(mask))
        write(home / "annotations" / "trimaps" / f"._{name}.png", b"of another system")
    for split, rows in {"trainval": NAMES[:3], "test": NAMES[3:]}.items():
        write(home / "annotations" / f"{split}.txt", "".join(f"{name} 1 1 1\n" for name in rows).encode())


def same_ids(mask: np.ndarray) -> np.ndarray:
    return mask


def train_ids(mask: np.ndarray) -> np.ndarray:
    table = {one.id: one.train_id for one in Cityscapes.classes}
    return np.vectorize(lambda value: table[value] if 0 <= table[value] < 19 else 255)(mask)


def of_trimap(mask: np.ndarray) -> np.ndarray:
    return np.array([255, 0, 1, 255])[mask]


ByTorchvision = Callable[[Path], tuple[Samples, Samples]]
LAYOUTS: dict[str, tuple[Callable[[Path], None], ByTorchvision, Callable[..., Any], int]] = {
    "voc": (
        voc,
        lambda root: tuple(VOCSegmentation(str(root), "2012", split) for split in ("train", "val")),  # type: ignore[return-value]
        same_ids,
        21,
    ),
    "cityscapes": (
        cityscapes,
        lambda root: tuple(Cityscapes(str(root), split, target_type="semantic") for split in ("train", "val")),  # type: ignore[return-value]
        train_ids,
        19,
    ),
    "pets": (
        pets,
        lambda root: tuple(  # type: ignore[return-value]
            OxfordIIITPet(str(root), split, target_types="segmentation") for split in ("trainval", "test")
        ),
        of_trimap,
        2,
    ),
}


def read(source: Path, **options: Any) -> Source:
    return load_source(DataConfig(source=str(source), **options))


def pairs_of(part: Any) -> list[tuple[bytes, bytes]]:
    return sorted((i.numpy().tobytes(), m.numpy().tobytes()) for i, m in zip(part.images, part.labels, strict=True))


def expected_of(samples: Samples, of_mask: Callable[..., Any]) -> list[tuple[bytes, bytes]]:
    return sorted(
        (
            np.asarray(image.convert("RGB")).transpose(2, 0, 1).tobytes(),
            of_mask(np.asarray(mask)).astype(np.uint8).tobytes(),
        )
        for image, mask in (samples[row] for row in range(len(samples)))  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_set_is_read_as_torchvision_reads_it(tmp_path: Path, layout: str) -> None:
    write_tree, by_torchvision, of_mask, classes = LAYOUTS[layout]
    write_tree(tmp_path)
    found = read(tmp_path)
    train, test = by_torchvision(tmp_path)
    assert [len(train), len(test), len(found.train.class_names)] == [3, 2, classes]
    assert pairs_of(found.train) == expected_of(train, of_mask)
    assert pairs_of(found.test) == expected_of(test, of_mask)


def test_the_classes_of_cityscapes_are_those_of_torchvision(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    evaluated = sorted((one for one in Cityscapes.classes if 0 <= one.train_id < 19), key=lambda one: one.train_id)
    found = read(tmp_path)
    assert found.train.class_names == tuple(one.name for one in evaluated)
    withheld = found.reading.passed_over["images whose masks are not published"]
    assert withheld == (1, "leftImg8bit/test/berlin/berlin_0_0_leftImg8bit.png")
    assert "split 'val' is the test set, since there is no other" in found.reading.notes[0]


def test_the_joined_split_of_voc_trains_where_it_is_asked_for(tmp_path: Path) -> None:
    voc(tmp_path)
    found = read(tmp_path, split_map="train=trainval,validation=none,test=none", test_fraction=0.2)
    assert [len(found.train.labels), len(found.test.labels)] == [4, 1]
    (tmp_path / "VOCdevkit" / "VOC2012").rename(tmp_path / "VOCdevkit" / "VOC2007")
    voc(tmp_path)
    assert "has 2 data sets, in the folders VOCdevkit/VOC2007, VOCdevkit/VOC2012" in refusal(tmp_path)
    one, other = (read(tmp_path, config=f"VOCdevkit/VOC{year}") for year in (2007, 2012))
    assert torch.equal(one.test.images, other.test.images)


def test_what_a_list_names_and_is_not_there_is_named(tmp_path: Path) -> None:
    voc(tmp_path)
    (tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages" / "c_3.jpg").unlink()
    assert "train.txt: lists what is not there, VOCdevkit/VOC2012/JPEGImages/c_3.jpg" in refusal(tmp_path)
    city = tmp_path / "city"
    cityscapes(city)
    next((city / "gtFine" / "val").rglob("*_labelIds.png")).unlink()
    assert "unpack gtFine_trainvaltest.zip beside it" in refusal(city)
