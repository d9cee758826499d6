"""Images with boxes in COCO's and PASCAL VOC's layouts: what they give, and what is said of those that are wrong."""

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import faster_coco_eval
import numpy as np
import pytest
import torch
from boxsets import (
    BCCD,
    BoxSet,
    Picture,
    as_coco,
    as_labelled,
    as_parquet,
    as_roboflow,
    as_voc,
    blood_cells,
    coco_of,
    digits,
    write,
)
from imagesets import encoded, refusal
from torch import Tensor
from torchvision.datasets import CocoDetection, VOCDetection

from ltsd.__main__ import main
from ltsd.config import DataConfig
from ltsd.data.sources import Source, load_source
from sweeps.search import read_flags

SETS = [
    pytest.param(digits, id="digits"),
    pytest.param(
        blood_cells, id="cells", marks=pytest.mark.skipif(not BCCD.exists(), reason="blood cells are not here")
    ),
]
LAYOUTS: Mapping[str, Callable[[Path, BoxSet], Path]] = {
    "coco": as_coco,
    "roboflow": as_roboflow,
    "voc": as_voc,
    "beside": as_labelled,
}


def read(source: Path, **options: Any) -> Source:
    return load_source(DataConfig(source=str(source), **options))


def named(found: Source, labels: Tensor) -> list[list[tuple[str, list[float]]]]:
    """The boxes of every image, with their classes by name."""
    names = found.train.class_names
    return [[(names[int(c)], box) for c, *box in image.tolist() if c >= 0] for image in labels]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("data_of", SETS)
def test_a_data_set_is_the_same_in_every_layout(layout: str, data_of: Callable[[], BoxSet], tmp_path: Path) -> None:
    data = data_of()
    expected = read(as_parquet(tmp_path / "parquet", data))
    found = read(LAYOUTS[layout](tmp_path / layout, data))
    assert found.validation_from == expected.validation_from == len(data.splits["train"])
    for mine, theirs in ((found.train, expected.train), (found.test, expected.test)):
        assert torch.equal(mine.images, theirs.images)
        assert named(found, mine.labels) == named(expected, theirs.labels)
    assert sorted(found.train.class_names) == sorted(data.names)
    if layout not in ("voc", "beside"):  # which have no order of classes but that of their names
        assert torch.equal(found.train.labels, expected.train.labels)
        assert found.train.class_names == tuple(data.names)


def corners(x: float, y: float, width: float, height: float) -> list[float]:
    return [x, y, x + width, y + height]


def by_torchvision(layout: str, root: Path, split: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Pixels of the images of a split with their boxes, as torchvision reads them."""
    if layout == "voc":
        samples = VOCDetection(str(root), "2012", split)
        drawn = [[(one["name"], one["bndbox"]) for one in found["annotation"]["object"]] for _, found in samples]
        sides = [
            [(c, [float(box[side]) - ("min" in side) for side in ("xmin", "ymin", "xmax", "ymax")]) for c, box in image]
            for image in drawn
        ]
    else:
        for module in ("coco", "cocoeval", "mask"):
            monkeypatch.setitem(sys.modules, f"pycocotools.{module}", getattr(faster_coco_eval.core, module))
        monkeypatch.setitem(sys.modules, "pycocotools", faster_coco_eval)
        folder = {"train": "train2017", "val": "val2017"}[split]
        samples = CocoDetection(str(root / folder), str(root / "annotations" / f"instances_{folder}.json"))
        name_of = {one["id"]: one["name"] for one in samples.coco.loadCats(samples.coco.getCatIds())}
        sides = [
            [
                (name_of[one["category_id"]], [*one["bbox"][:2], *np.add(*np.split(np.array(one["bbox"]), 2))])
                for one in of
            ]
            for _, of in samples
        ]
    pixels = [np.asarray(image.convert("RGB")).transpose(2, 0, 1) for image, _ in samples]
    return list(zip(pixels, sides, strict=True))


@pytest.mark.parametrize("layout", ["coco", "voc"])
@pytest.mark.parametrize("data_of", SETS)
def test_torchvision_reads_the_same(
    layout: str, data_of: Callable[[], BoxSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = LAYOUTS[layout](tmp_path, data_of())
    found = read(root)
    expected = [one for split in ("train", "val") for one in by_torchvision(layout, root, split, monkeypatch)]
    for image, boxes, (pixels, sides) in zip(
        found.train.images, named(found, found.train.labels), expected, strict=True
    ):
        assert (image.numpy() == pixels).all()
        assert boxes == sides


def small(**boxes: list[tuple[int, list[float]]]) -> BoxSet:
    """Noise of 40x20 pixels; the first images have boxes of their own."""
    usual: list[tuple[int, list[float]]] = [(0, [0, 0, 20, 10]), (1, [30, 10, 10, 10])]
    splits = {}
    for split, count in (("train", 9), ("validation", 2), ("test", 2)):
        images = np.random.RandomState(len(split)).randint(0, 256, (count, 20, 40, 3)).astype(np.uint8)
        own = [*boxes.get(split, []), *[usual] * count]
        splits[split] = [
            Picture(f"{split}_{n}.png", encoded(image), own[n])
            for n, image in enumerate(images)  # type: ignore[arg-type]
        ]
    return BoxSet(["cat", "dog"], splits)


FOLDERS = ("", "images", "train2017", "train", "images/train2017", "../images", "../train2017", "../images/train", "..")


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_images_of_one_json_file_are_found_beside_it(folder: str, tmp_path: Path) -> None:
    data = small()
    file = write(tmp_path / "some" / "instances_train2017.json", json.dumps(coco_of(data, "train")))
    for one in data.splits["train"]:
        write(file.parent / folder / one.name, one.content)
    write(file.parent / "elsewhere" / "train_0.png", b"another image of that name, alone")
    write(file.parent / "instances_val2017.json", "of another split")
    found = read(file)
    assert len(found.train.labels) + len(found.test.labels) == 9
    assert found.reading.is_test_held_out
    assert not found.reading.passed_over
    changed = small().splits["test"][0].content
    write(file.parent / folder / "train_0.png", changed)
    assert read(file).fingerprint != found.fingerprint


def test_what_has_no_box_is_told_and_images_without_any_are_kept(tmp_path: Path) -> None:
    data = small(train=[[], [(0, [2, 2, 5, 5]), (1, [9, 3, 8, 8]), (0, [20, 2, 9, 9])]])
    content = coco_of(data, "train")
    content["annotations"][1]["iscrowd"] = 1
    content["categories"].append({"id": 1, "name": "owl"})
    root = as_coco(tmp_path / "coco", data)
    write(root / "annotations" / "instances_train2017.json", json.dumps(content))
    write(root / "train2017" / "alone.png", b"of no annotation")
    xml = as_voc(tmp_path / "voc", data) / "VOCdevkit/VOC2012/Annotations/train_1.xml"
    tree = ElementTree.fromstring(xml.read_bytes())
    tree.findall("object/difficult")[1].text = "1"
    write(xml, ElementTree.tostring(tree))
    for layout, boxes in (("coco", "boxes of crowds (iscrowd)"), ("voc", "objects marked difficult")):
        found = read(tmp_path / layout)
        drawn = named(found, found.train.labels)
        assert drawn[:2] == [[], [("cat", [2.0, 2, 7, 7]), ("cat", [20.0, 2, 29, 11])]]
        assert len(drawn) == 11
        assert found.train.class_names == ("cat", "dog")
        assert found.reading.passed_over[boxes][0] == 1
    told = "\n".join(read(tmp_path / "coco").reading.lines())
    assert "left out: boxes of crowds (iscrowd): 1 (annotations/instances_train2017.json annotation 2)" in told
    assert "left out: categories without any box: 1 (owl)" in told
    assert "left out: files outside the splits: 1 (train2017/alone.png)" in told


def coco_refusal(tmp_path: Path, spoil: Callable[[dict[str, Any]], Any], split: str = "train2017") -> str:
    root = as_coco(tmp_path, small())
    file = root / "annotations" / f"instances_{split}.json"
    content = json.loads(file.read_text())
    changed = spoil(content)
    write(file, changed if isinstance(changed, bytes) else json.dumps(content))
    return refusal(root)


def annotation(**values: Any) -> Callable[[dict[str, Any]], None]:
    """Change the fourth annotation, which is of the second image and of class dog."""
    return lambda content: content["annotations"][3].update(values)


BROKEN_COCO: Mapping[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "cut": (lambda content: json.dumps(content)[:-9].encode(), "train2017.json: is not JSON, or was cut short"),
    "deep": (lambda _: b"[" * 10**5, "train2017.json: is not JSON, or was cut short"),
    "other": (lambda _: b'{"info": {}}', "is no annotation file of COCO; it needs the lists images, annotations and"),
    "outside": (
        annotation(bbox=[30, 0, 20, 10]),
        r"instances_train2017.json, image train_1.png, annotation 4: reaches from \(30, 0\) to \(50, 10\), outside",
    ),
    "corners": (
        annotation(bbox=[20, 8, 39, 19]),
        "annotation 4: reaches .*; it would fit as x0, y0, x1, y1: write x, y,",
    ),
    "shares": (annotation(bbox=[0.1, 0.1, 0.4, 0.4]), "which looks like shares of the image; write x, y, width and"),
    "no area": (annotation(bbox=[5, 5, 0, 4]), "annotation 4: reaches .*, which has no area; mend it"),
    "in the margin": (annotation(bbox=[40, 5, 2, 4]), r"annotation 4: reaches from \(40, 5\) .* outside of its image"),
    "no box": (annotation(bbox=[5, 5, 4]), r"annotation 4: its bbox is \[5, 5, 4\]; write \[x, y, width, height\] in"),
    "not finite": (annotation(bbox=[5, 5, float("nan"), 4]), r"its bbox is \[5, 5, NaN, 4\]; write"),
    "category": (annotation(category_id=1), "annotation 4: its category_id 1 is not in the file"),
    "image": (annotation(image_id=1), "annotation 4: its image_id 1 is not in the file"),
    "twice": (
        lambda content: content["images"][2].update(file_name="train_1.png"),
        "image 102: is a second entry beside image 101 for one image, train_1.png; keep one",
    ),
    "same id": (lambda content: content["images"][2].update(id=101), "is a second entry beside image 101"),
    "same name": (lambda content: content["categories"][0].update(name="cat"), "'cat' is not the name of one more"),
    "size": (
        lambda content: content["images"][1].update(width=20, height=40),
        "image train_1.png: is of an image of 20x40 pixels, and its image, upright, has 40x20",
    ),
    "missing": (
        lambda content: [one.update(file_name=f"{n}.png") for n, one in enumerate(content["images"]) if n > 3],
        r"train2017.json: names 5 image\(s\) that are not there: 4.png, 5.png, 6.png, … and 2 more; bring them",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), BROKEN_COCO.values(), ids=BROKEN_COCO)
def test_what_is_wrong_with_an_annotation_of_coco_is_told(
    spoil: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    assert re.search(message, coco_refusal(tmp_path, spoil))


def test_a_class_of_test_images_alone_is_told(tmp_path: Path) -> None:
    message = coco_refusal(tmp_path, lambda content: content["categories"][0].update(name="owl"), "val2017")
    assert "instances_val2017.json, image validation_0.png, annotation 2: 'owl' is not one of the 2 classes" in message


BOX = "<bndbox><xmin>3</xmin><ymin>3</ymin><xmax>9</xmax><ymax>{}</ymax></bndbox>"
DOG = f"<annotation><object><name>dog</name>{BOX}</object></annotation>"
BROKEN_VOC: Mapping[str, tuple[str, str]] = {
    "cut": (DOG[:-9], r"Annotations/train_1.xml: is not XML, or was cut short"),
    "encoding": (f"<?xml version='1.0' encoding='none'?>{DOG}", "train_1.xml: is not XML, or was cut short"),
    "entities": (
        f"<!DOCTYPE a [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]>{DOG.replace('dog', '&b;')}",
        "train_1.xml: declares a document type, which annotations have none of; take it away",
    ),
    "outside": (DOG.format(29), r"train_1.xml, object 1 \(dog\): reaches from \(2, 2\) to \(9, 29\), outside of its"),
    "no area": (
        DOG.format(2).replace("<ymin>3", "<ymin>20"),
        r"object 1 \(dog\): reaches .*, which has no area; mend it, or take it away",
    ),
    "widths": (
        DOG.format(9).replace("<xmin>3", "<xmin>20"),
        "which has no area; it would fit as x, y, width, height: write xmin, ymin, xmax and ymax",
    ),
    "shares": (
        DOG.format(0.9).replace(">3<", ">0.5<").replace(">9<", ">1<"),
        "which looks like shares of the image; write xmin, ymin, xmax and ymax in pixels",
    ),
    "no box": (
        DOG.format("9 px"),
        r"object 1 \(dog\): has no box, xmin '3', ymin '3', xmax '9', ymax '9 px'; write four numbers",
    ),
    "no name": (DOG.format(9).replace("dog", " "), "train_1.xml, object 1: has no name; write its class"),
    "size": (
        DOG.format(9).replace("<object>", "<size><width>80</width><height>40</height></size><object>"),
        "train_1.xml: is of an image of 80x40 pixels, and its image, upright, has 40x20",
    ),
}


@pytest.mark.parametrize(("xml", "message"), BROKEN_VOC.values(), ids=BROKEN_VOC)
def test_what_is_wrong_with_an_annotation_of_voc_is_told(xml: str, message: str, tmp_path: Path) -> None:
    root = as_voc(tmp_path, small())
    write(root / "VOCdevkit/VOC2012/Annotations/train_1.xml", xml)
    assert re.search(message, refusal(root))


def test_a_box_of_voc_holds_the_pixels_of_its_corners(tmp_path: Path) -> None:
    root = as_voc(tmp_path, small())
    write(root / "VOCdevkit/VOC2012/Annotations/train_1.xml", DOG.format(3))
    found = read(root)
    assert named(found, found.train.labels)[1] == [("dog", [2.0, 2, 9, 3])]


def test_what_a_list_of_voc_names_is_there_once(tmp_path: Path) -> None:
    home = as_voc(tmp_path, small()) / "VOCdevkit/VOC2012"
    for n in (8, 5, 6, 3):
        (home / "Annotations" / f"train_{n}.xml").unlink()
    told = (
        "train.txt: names 4 annotation(s) of Annotations/ that are not there: train_3, train_5, train_6, … and 1 more"
    )
    assert told in refusal(tmp_path)
    (home / "JPEGImages" / "train_7.png").unlink()
    assert "train.txt: names 1 image(s) of JPEGImages/ that are not there: train_7; bring them" in refusal(tmp_path)
    write(home / "JPEGImages" / "train_6.jpg", b"")
    assert "JPEGImages/train_6.png: is a second image named train_6, beside" in refusal(tmp_path)
    (home / "JPEGImages" / "train_6.jpg").unlink()
    write(home / "ImageSets/Main/train.txt", "train_1\ntrain_2\ntrain_1\n")
    assert "train.txt: names the image train_1 twice; take one away" in refusal(tmp_path)


def test_splits_of_voc_are_its_lists_and_without_any_all_images_are_one(tmp_path: Path) -> None:
    home = as_voc(tmp_path, small()) / "VOCdevkit/VOC2012"
    for one in (home / "Annotations").glob("test_*.xml"):
        one.unlink()
    withheld = read(home)
    assert [len(withheld.train.labels), len(withheld.test.labels)] == [9, 2]
    assert "split 'val' is the test set, since there is no other" in withheld.reading.notes[0]
    assert withheld.reading.passed_over["files of held-out splits without any box"][0] == 3
    (home / "ImageSets/Main/train.txt").unlink()
    assert len(read(home, split_map="validation=none,test=val").train.labels) == 11
    for one in (*(home / "ImageSets/Main").iterdir(), *(home / "JPEGImages").glob("test_*")):
        one.unlink()
    found = read(home)
    assert found.reading.is_test_held_out
    assert len(found.train.labels) + len(found.test.labels) == 11


def test_xml_beside_images_is_of_the_split_above_it_or_where_boxes_are_asked_for_of_a_single_one(
    tmp_path: Path,
) -> None:
    root = as_labelled(tmp_path / "beside", small())
    for split in ("train", "validation", "test"):
        (root / split).rename(tmp_path / "moved")
        (root / split).mkdir()
        (tmp_path / "moved").rename(root / split / "images")
    for one in (root / "test").rglob("*.xml"):
        one.rename(one.with_suffix(".XML"))
    found = read(root)
    assert [len(found.train.labels), len(found.test.labels), found.validation_from] == [11, 2, 9]
    for folder in ("monday", "tuesday", "wednesday"):
        next(root.iterdir()).rename(tmp_path / folder)
    for folder in ("monday", "tuesday", "wednesday"):
        (tmp_path / folder).rename(root / folder)
    whole = read(root, labels="boxes")
    assert whole.reading.is_test_held_out
    assert len(whole.train.labels) + len(whole.test.labels) == 13
    next(root.rglob("*.xml")).unlink()
    assert "beside/: 1 image(s) have no XML file beside them, as others have: " in refusal(root, labels="boxes")


def test_folders_of_classes_with_xml_beside_their_images_are_classes(tmp_path: Path) -> None:
    """Boxes or anything else in them: `--data.labels boxes` asks for boxes."""
    root = as_labelled(tmp_path / "one", small())
    classes = tmp_path / "classes"
    for name, folder in (("cat", "train"), ("dog", "test")):
        (classes / "train").mkdir(parents=True, exist_ok=True)
        (root / folder).rename(classes / "train" / name)
    assert read(classes).train.class_names == ("cat", "dog")
    assert read(classes).train.labels.ndim == 1
    assert read(classes, labels="boxes").train.labels.ndim == 3


def test_of_masks_and_boxes_the_labels_that_are_asked_for_are_read(tmp_path: Path) -> None:
    data = small()
    home = as_voc(tmp_path, data) / "VOCdevkit/VOC2012"
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        for n, one in enumerate(data.splits[split]):
            write(home / "SegmentationClass" / one.name, encoded(np.full((20, 40), n, dtype=np.uint8)))
            (home / "JPEGImages" / one.name).rename(home / "JPEGImages" / one.name.replace("png", "jpg"))
        write(home / "ImageSets/Segmentation" / f"{name}.txt", (home / "ImageSets/Main" / f"{name}.txt").read_bytes())
    assert read(tmp_path).train.labels.dtype == torch.uint8
    assert read(tmp_path, labels="boxes").train.labels.dtype == torch.float32


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_task_is_found_and_a_detector_trains(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = LAYOUTS[layout](tmp_path / layout, small())
    assert read_flags(["--data", str(root)]).base.task == "detection"
    assert main(["data", str(root), "--picture", str(tmp_path / "data.png")]) == 0
    assert "9 training images with" in capsys.readouterr().out
    quick = ("--method", "at", "--epochs", "1", "--attack.steps", "1", "--evaluate.steps", "1", "--model.width", "8")
    sized = ("--data.image-size", "32", "--out", str(tmp_path / "one.pt"))
    assert main(["train", "--data.source", str(root), *quick, *sized]) == 0
