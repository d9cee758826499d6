"""Data sets to read: images, and the forms in which they lie on a disk."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ltsd.config import DataConfig
from ltsd.data.filesystems import find_place
from ltsd.data.layouts.folders import open_folder
from ltsd.data.layouts.reading import Opened
from ltsd.data.layouts.tables import open_tables
from ltsd.data.sources import load_source
from ltsd.errors import UserError

Images = NDArray[np.uint8]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
REAL_DATA = Path(__file__).parent.parent.parent / "shared" / "data"
CIFAR10_COPY = REAL_DATA / "cifar10-jpeg"
CAMVID = REAL_DATA / "camvid"


def images_of(count: int, size: int = 6, seed: int = 0) -> Images:
    """uint8 [N, H, W, 3]."""
    return np.random.RandomState(seed).randint(0, 256, (count, size, size, 3)).astype(np.uint8)


def maps_of(count: int, size: int = 6, classes: int = 3, seed: int = 0) -> Images:
    """Class indices and a few void pixels, uint8 [N, H, W]."""
    drawn = np.random.RandomState(seed).randint(0, classes + 1, (count, size, size)).astype(np.uint8)
    return np.where(drawn == classes, np.uint8(255), drawn)


def encoded(image: Images, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


PNG = encoded(images_of(1)[0])


def table_of(
    images: Sequence[bytes],
    labels: Sequence[Any],
    names: Sequence[str] = (),
    columns: tuple[str, str] = ("image", "label"),
) -> pa.Table:
    """In the Hugging Face image layout, with its metadata where there are class names."""
    rows = pa.array([{"bytes": image, "path": None} for image in images], IMAGE)
    table = pa.table({columns[0]: rows, columns[1]: pa.array(labels, pa.int64())})
    if not names:
        return table
    features = {columns[0]: {"_type": "Image"}, columns[1]: {"names": list(names), "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def map_table(
    images: Sequence[bytes],
    masks: Sequence[bytes | None],
    names: Sequence[str] = (),
    columns: tuple[str, str] = ("image", "annotation"),
    kind: pa.DataType = IMAGE,
) -> pa.Table:
    """Images with masks in the Hugging Face layout; class names as a feature without a column."""
    pictures = [{"bytes": image, "path": None} for image in images]
    labels = masks if kind != IMAGE else [mask and {"bytes": mask, "path": None} for mask in masks]
    table = pa.table({columns[0]: pa.array(pictures, IMAGE), columns[1]: pa.array(labels, kind)})
    if not names:
        return table
    features = {name: {"_type": "Image"} for name in columns}
    features["classes"] = {"names": list(names), "_type": "ClassLabel"}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_parquet(path: Path, images: Sequence[bytes], labels: Sequence[Any], names: Sequence[str] = ()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table_of(images, labels, names), path)
    return path


def write_arrow_file(table: pa.Table, path: Path | pa.NativeFile, rows: int = 4) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, rows)


def write_arrow_stream(table: pa.Table, path: Path | pa.NativeFile, rows: int = 4) -> None:
    """As the Hugging Face library saves a data set to disk."""
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, rows)


FORMS = {"parquet": pq.write_table, "arrow file": write_arrow_file, "arrow stream": write_arrow_stream}


def write_folder(root: Path, images: Sequence[Images], labels: Sequence[int], names: Sequence[str]) -> None:
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (root / names[label]).mkdir(parents=True, exist_ok=True)
        (root / names[label] / f"{index:03d}.png").write_bytes(encoded(image))


def channels_first(images: Images) -> Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def opened(source: Path | str) -> Opened:
    """A source before its images are decoded."""
    place, data = find_place(str(source)), DataConfig(source=str(source))
    paths = [place.relative(file) for file in place.files]
    return open_tables(place, paths, data) or open_folder(place, paths, data)


def refusal(source: Path | str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_source(DataConfig(source=str(source), **options))
    return str(caught.value)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
