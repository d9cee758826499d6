"""Parquet and Arrow files: what they give, and what is said of those that are wrong."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from imagesets import (
    FORMS,
    PNG,
    channels_first,
    encoded,
    flip,
    images_of,
    opened,
    refusal,
    table_of,
    write_parquet,
)

from ltsd.config import DataConfig
from ltsd.data.layouts.layout import WHOLE
from ltsd.data.sources import load_source
from ltsd.errors import UserError


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("columns", [("image", "label"), ("img", "labels"), ("img", "fine_label")])
@pytest.mark.parametrize("names", [(), ("cat", "dog", "owl")])
def test_a_file_gives_its_images_pixel_by_pixel(
    tmp_path: Path, form: str, columns: tuple[str, str], names: tuple[str, ...]
) -> None:
    images, labels = images_of(30), [i % 3 for i in range(30)]
    table = table_of([encoded(image) for image in images], labels, names, columns)
    FORMS[form](table.append_column("coarse_label", pa.array([99] * 30)), tmp_path / "one")
    source = load_source(DataConfig(source=str(tmp_path / "one"), test_fraction=0.2))
    assert source.train.class_names == source.test.class_names == (names or ("0", "1", "2"))
    assert torch.bincount(source.test.labels).tolist() == [2, 2, 2]
    expected = {(label, image.tobytes()) for label, image in zip(labels, channels_first(images).numpy(), strict=True)}
    found = {
        (int(label), image.numpy().tobytes())
        for part in (source.train, source.test)
        for image, label in zip(part.images, part.labels, strict=True)
    }
    assert found == expected


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_labels_may_be_the_names_of_their_classes(tmp_path: Path, kind: pa.DataType) -> None:
    images, names = images_of(30), ["a dog", "9", "10"]
    labels = [names[k % 3] for k in range(30)]
    table = table_of([encoded(image) for image in images], [0] * 30).drop_columns("label")
    pq.write_table(table.append_column("label", pa.array(labels).cast(kind)), tmp_path / "one.parquet")
    source = load_source(DataConfig(source=str(tmp_path / "one.parquet")))
    assert source.train.class_names == ("10", "9", "a dog")
    expected = {image.tobytes(): label for image, label in zip(channels_first(images).numpy(), labels, strict=True)}
    for part in (source.train, source.test):
        found = [part.class_names[label] for label in part.labels.tolist()]
        assert found == [expected[image.numpy().tobytes()] for image in part.images]


def test_names_in_one_file_and_numbers_in_another_are_refused(tmp_path: Path) -> None:
    images = [encoded(image) for image in images_of(6)]
    named = table_of(images, [0] * 6).drop_columns("label").append_column("label", pa.array(["b", "a"] * 3))
    pq.write_table(named, tmp_path / "train.parquet")
    write_parquet(tmp_path / "test.parquet", images, [0, 1] * 3, ["b", "a"])
    with pytest.raises(
        UserError, match=r"test.parquet: its column label holds numbers, and that of the first training"
    ):
        load_source(DataConfig(source=str(tmp_path)))


LAYOUTS = {
    "the hub": ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-0.parquet"),
    "zh-plus/tiny-imagenet": ("data/train-0-of-2-a.parquet", "data/train-1-of-2-b.parquet", "data/valid-0.parquet"),
    "save_to_disk": ("train/data-0-of-2.arrow", "train/data-1-of-2.arrow", "validation/data-0.arrow"),
    "the library's cache": ("0.0.0/cifar-train-0.arrow", "0.0.0/cifar-train-1.arrow", "0.0.0/cifar-test.arrow"),
    "words inside words": ("contest/train-0.arrow", "contest/train-1.arrow", "contest/test_values.arrow"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_of_files_keeps_its_own_test_set(tmp_path: Path, layout: str) -> None:
    """Without class names, and with labels in order: the first file does not have the largest."""
    images, labels = images_of(12), [0, 0, 0, 0, 0, 1, 1, 2, 2, 0, 1, 2]
    table = table_of([encoded(image) for image in images], labels)
    for path, part in zip(LAYOUTS[layout], (table[:5], table[5:9], table[9:]), strict=True):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        FORMS["parquet" if path.endswith(".parquet") else "arrow stream"](part, tmp_path / path)
    (tmp_path / "dataset_dict.json").write_text("{}")
    source = load_source(DataConfig(source=str(tmp_path)))
    assert source.train.class_names == ("0", "1", "2")
    assert torch.equal(source.train.images, channels_first(images[:9]))
    assert torch.equal(source.test.images, channels_first(images[9:]))
    assert (source.train.labels.tolist(), source.test.labels.tolist()) == (labels[:9], labels[9:])


def test_a_single_file_is_the_whole_data_set_whatever_it_is_called(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [*map(encoded, images_of(20))], [0, 1] * 10)
    source = load_source(DataConfig(source=str(path)))
    assert (len(source.train.labels), len(source.test.labels)) == (14, 6)


def rows_read(path: Path) -> int:
    return len(list(opened(path).rows[WHOLE]))


NEEDED = (
    "is not an image set: it needs the columns image or img (struct of bytes and path) and label or labels or "
    "fine_label (integers or strings), and has "
)
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda root: None, "no such file or folder; give digits, digits-scenes, cifar10, cifar100 or the path"),
    "text file": (lambda root: root.write_text("label,path\n"), "is not a Parquet or Arrow file, or was cut short"),
    "no such columns": (
        lambda root: pq.write_table(pa.table({"words": ["a"], "label": [0]}), root),
        NEEDED + "words",
    ),
    "image column of plain bytes": (
        lambda root: pq.write_table(pa.table({"image": [PNG], "label": [0]}), root),
        NEEDED + "image",
    ),
    "labels that are fractions": (
        lambda root: pq.write_table(pa.table({"image": [{"bytes": PNG, "path": ""}], "label": [0.5]}), root),
        "and has image (struct<bytes: binary, path: string>), label (double)",
    ),
    "16 bits a channel": (
        lambda root: write_parquet(root, [PNG, encoded(np.full((6, 6), 300, np.uint16))], [0, 1]),
        "row 1: has more than 8 bits a channel (mode I;16)",
    ),
    "no rows": (lambda root: write_parquet(root, [], []), "holds no images"),
    "no training file": (
        lambda root: write_parquet(root / "all.parquet", [PNG], [0]),
        "none of its Parquet or Arrow files is named train*: ",
    ),
    "label too large": (
        lambda root: write_parquet(root, [PNG] * 4, [0, 1, 0, 2], ["a", "b"]),
        "row 3: label 2 is outside the 2 classes",
    ),
    "labels that are no numbers of classes": (
        lambda root: write_parquet(root, [PNG] * 3, [0, 2**60, 1]),
        f"the largest label is {2**60}, of 3 rows without class names; labels are the numbers from 0",
    ),
    "negative label": (lambda root: write_parquet(root, [PNG] * 3, [0, -1, 1]), "row 1: label -1 is outside"),
    "missing label": (
        lambda root: write_parquet(root, [PNG] * 3, [0, None, 1], ["a", "b"]),
        "row 1: label None is outside the 2 classes",
    ),
    "no bytes": (
        lambda root: write_parquet(root, [PNG, b"", PNG], [0, 1, 0]),
        "row 1: has no bytes in the column image",
    ),
    "broken image": (
        lambda root: write_parquet(root, [PNG, PNG, PNG[: len(PNG) // 2]], [0, 1, 0]),
        "row 2: a broken image",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_source_that_is_wrong_is_refused_by_its_place(tmp_path: Path, name: str) -> None:
    make, said = BROKEN[name]
    make(tmp_path / "source")
    message = refusal(tmp_path / "source")
    assert said in message
    assert str(tmp_path / "source") in message


@pytest.mark.parametrize("form", FORMS)
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, form: str) -> None:
    """A stream is whole batches after each of its messages, and must not pass for a smaller data set."""
    whole = tmp_path / "whole"
    FORMS[form](table_of([PNG] * 8, [0, 1] * 4), whole)
    content = whole.read_bytes()
    rows_read(whole)
    path = tmp_path / "cut"
    for end in [*range(0, len(content), 8), len(content) - 1]:
        path.write_bytes(content[:end])
        with pytest.raises(UserError, match=r"cut (is not a Parquet or Arrow file, or was cut short|cannot be read)"):
            rows_read(path)


@given(st.data())
def test_no_arrow_file_however_damaged_gives_anything_but_rows_or_a_refusal(data: st.DataObject) -> None:
    sink = pa.BufferOutputStream()
    FORMS[data.draw(st.sampled_from(["arrow file", "arrow stream"]))](table_of([PNG] * 6, [0, 1] * 3), sink)
    content = bytearray(sink.getvalue().to_pybytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one"
        path.write_bytes(content)
        try:
            outcome = f"{rows_read(path)} rows"
        except UserError as error:
            outcome = str(error)
    assert outcome.startswith(str(path)) or outcome in [f"{rows} rows" for rows in range(7)]


def test_a_flipped_bit_in_a_parquet_file_with_checksums_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [*map(encoded, images_of(8))], [0, 1] * 4)
    pq.write_table(pq.read_table(path), path, write_page_checksum=True, compression="none")
    load_source(DataConfig(source=str(path), test_fraction=0.5))
    flip(path, path.read_bytes().index(b"IDAT") + 12)
    assert "cannot be read after row 0" in refusal(path, test_fraction=0.5)


def test_a_parquet_file_that_unpacks_to_fill_the_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "bomb.parquet", [bytes([n]) * (90 * 2**20) for n in range(3)], [0, 1, 0])
    assert path.stat().st_size < 2**24
    said = refusal(path)
    assert "column image.bytes of row group 0 unpacks" in said
    assert "write it without compression" in said
