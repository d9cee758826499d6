"""Images with boxes, and the layouts in which they lie on a disk."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
from imagesets import IMAGE, REAL_DATA, encoded
from PIL import Image

from ltsd.data.scenes import digits_scenes

BCCD = REAL_DATA / "bccd"
COCO_IDS = (7, 2, 90, 11, 3, 44, 5, 61, 17, 9)
"""Ids of categories: neither dense nor in the order of the names in the file."""


class Picture(NamedTuple):
    """An encoded image, the name of its file, and its boxes: class, and x, y, width and height."""

    name: str
    content: bytes
    boxes: Sequence[tuple[int, Sequence[float]]]


class BoxSet(NamedTuple):
    """Class names, and pictures by split."""

    names: Sequence[str]
    splits: Mapping[str, Sequence[Picture]]


def digits() -> BoxSet:
    """Some of the embedded scenes, as JPEG."""
    drawn = digits_scenes()
    splits = {}
    for split, count in (("train", 40), ("validation", 8), ("test", 30)):
        scenes = drawn[split]
        splits[split] = [
            Picture(
                f"{split} {row}.jpg",
                encoded(image[0], "jpeg"),
                [(int(c), [x0, y0, x1 - x0, y1 - y0]) for c, x0, y0, x1, y1 in boxes.tolist() if c >= 0],
            )
            for row, (image, boxes) in enumerate(zip(scenes.images[:count], scenes.boxes[:count], strict=True))
        ]
    return BoxSet([f"the {digit}" for digit in range(10)], splits)


def blood_cells() -> BoxSet:
    """Some photographs of BCCD."""
    splits = {}
    for split, count in (("train", 12), ("validation", 5), ("test", 5)):
        table = pq.read_table(BCCD / f"{split}.parquet").slice(0, count).to_pylist()
        splits[split] = [
            Picture(
                row["image"]["path"],
                row["image"]["bytes"],
                list(zip(row["objects"]["category"], row["objects"]["bbox"], strict=True)),
            )
            for row in table
        ]
    return BoxSet(["RBC", "WBC", "Platelets"], splits)


def size_of(one: Picture) -> tuple[int, int]:
    """Width and height."""
    return Image.open(io.BytesIO(one.content)).size


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def as_parquet(root: Path, data: BoxSet) -> Path:
    """As the Hugging Face library writes it."""
    category = {"names": list(data.names), "_type": "ClassLabel"}
    features = {"objects": {"feature": {"category": category}, "_type": "Sequence"}}
    kind = pa.struct([("bbox", pa.list_(pa.list_(pa.float32(), 4))), ("category", pa.list_(pa.int64()))])
    root.mkdir()
    for split, pictures in data.splits.items():
        objects = [{"bbox": [s for _, s in one.boxes], "category": [c for c, _ in one.boxes]} for one in pictures]
        images = pa.array([{"bytes": one.content, "path": None} for one in pictures], IMAGE)
        table = pa.table({"image": images, "objects": pa.array(objects, kind)})
        about = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table.replace_schema_metadata(about), root / f"{split}.parquet")
    return root


def coco_of(data: BoxSet, split: str) -> dict[str, Any]:
    """The content of an annotation file: ids of categories are sparse, and those of images begin at 100."""
    ids = sorted(COCO_IDS[: len(data.names)])
    categories = [{"id": one, "name": name, "supercategory": "all"} for one, name in zip(ids, data.names, strict=True)]
    images, annotations = list[Any](), list[Any]()
    for number, one in enumerate(data.splits[split], start=100):
        width, height = size_of(one)
        images.append({"id": number, "file_name": one.name, "width": width, "height": height})
        for c, box in one.boxes:
            known = {"id": len(annotations) + 1, "image_id": number, "category_id": ids[c], "iscrowd": 0}
            annotations.append(known | {"bbox": list(box), "area": box[2] * box[3], "segmentation": []})
    # In another order than that of the ids.
    return {"images": images, "annotations": annotations, "categories": categories[::-1]}


def as_coco(root: Path, data: BoxSet) -> Path:
    """As COCO unpacks: `annotations/instances_train2017.json` and `train2017/`."""
    for split, pictures in data.splits.items():
        short = {"train": "train2017", "validation": "val2017", "test": "test2017"}[split]
        for one in pictures:
            write(root / short / one.name, one.content)
        write(root / "annotations" / f"instances_{short}.json", json.dumps(coco_of(data, split)))
    write(root / "annotations" / "captions_train2017.json", "{}")
    return root


def as_roboflow(root: Path, data: BoxSet) -> Path:
    """As Roboflow exports COCO: a folder a split with all its files, and a category that has no box."""
    for split, pictures in data.splits.items():
        short = {"train": "train", "validation": "valid", "test": "test"}[split]
        content = coco_of(data, split)
        content["categories"].append({"id": 0, "name": "things", "supercategory": "none"})
        for one in pictures:
            write(root / short / one.name, one.content)
        write(root / short / "_annotations.coco.json", json.dumps(content))
    write(root / "README.roboflow.txt", "exported")
    return root


def xml_of(data: BoxSet, one: Picture) -> ElementTree.Element:
    """An annotation of PASCAL VOC: the first and the last pixel of each box, counted from 1."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = one.name
    size = ElementTree.SubElement(root, "size")
    for side, pixels in zip(("width", "height"), size_of(one), strict=True):
        ElementTree.SubElement(size, side).text = str(pixels)
    for c, (x, y, width, height) in one.boxes:
        found = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(found, "name").text = data.names[c]
        ElementTree.SubElement(found, "difficult").text = "0"
        box = ElementTree.SubElement(found, "bndbox")
        for side, value in {"xmin": x + 1, "ymin": y + 1, "xmax": x + width, "ymax": y + height}.items():
            ElementTree.SubElement(box, side).text = f"{value:g}"
    return root


def as_voc(root: Path, data: BoxSet) -> Path:
    """As VOC2012 unpacks, with the list `trainval` and a list of one class beside those of the splits."""
    home = root / "VOCdevkit" / "VOC2012"
    lists = dict[str, list[str]]()
    for split, pictures in data.splits.items():
        for one in pictures:
            stem = Path(one.name).stem
            write(home / "JPEGImages" / one.name, one.content)
            write(home / "Annotations" / f"{stem}.xml", ElementTree.tostring(xml_of(data, one)))
            lists.setdefault({"validation": "val"}.get(split, split), []).append(stem)
    lists["trainval"] = [*lists["train"], *lists["val"]]
    for split, stems in lists.items():
        write(home / "ImageSets" / "Main" / f"{split}.txt", "\n".join([*stems, ""]))
    write(home / "ImageSets" / "Main" / f"{data.names[0]}_train.txt", f"{lists['train'][0]}  1\n")
    return root


def as_labelled(root: Path, data: BoxSet) -> Path:
    """As labelling programs leave it: a folder a split, VOC's XML files beside their images, in the order of names."""
    for split, pictures in data.splits.items():
        for number, one in enumerate(pictures):
            path = root / split / f"{number:04d} {one.name}"
            write(path, one.content)
            write(path.with_suffix(".xml"), ElementTree.tostring(xml_of(data, one)))
    return root
