"""Sources of images: what they give, how they lie in memory, what is said of files that are wrong."""

import io
import json
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from ltsd.config import DataConfig
from ltsd.data import load_splits
from ltsd.data.arrow import cache_folder, read_image_set
from ltsd.data.sources import decode_image, load_source
from ltsd.errors import UserError

Images = NDArray[np.uint8]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CIFAR10_COPY = Path(__file__).parent.parent.parent / "shared" / "data" / "cifar10-jpeg"


def images_of(count: int, size: int = 6, seed: int = 0) -> Images:
    """uint8 [N, H, W, 3]."""
    return np.random.RandomState(seed).randint(0, 256, (count, size, size, 3)).astype(np.uint8)


def encoded(image: Images, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def header_of_a_huge_png(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def write_parquet(path: Path, images: Sequence[bytes], labels: Sequence[Any], names: Sequence[str] = ()) -> Path:
    """In the Hugging Face image layout, with its metadata where there are class names."""
    rows = pa.array([{"bytes": image, "path": None} for image in images], IMAGE)
    table = pa.table({"image": rows, "label": pa.array(labels, pa.int64())})
    if names:
        label = {"names": list(names), "_type": "ClassLabel"}
        features = {"image": {"_type": "Image"}, "label": label}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def write_folder(root: Path, images: Sequence[Images], labels: Sequence[int], names: Sequence[str]) -> None:
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (root / names[label]).mkdir(parents=True, exist_ok=True)
        (root / names[label] / f"{index:03d}.png").write_bytes(encoded(image))


def channels_first(images: Images) -> Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def refusal(source: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_source(DataConfig(source=str(source), **options))
    return str(caught.value)


def test_the_digits_are_those_of_scikit_learn_whole_and_stratified() -> None:
    source = load_source(DataConfig())
    images = torch.cat([source.train.images, source.test.images]).flatten(1).numpy()
    labels = torch.cat([source.train.labels, source.test.labels]).numpy()
    digits = load_digits()
    shades = np.rint(images * (16 / 255))
    assert np.abs(shades * (255 / 16) - images).max() <= 0.5
    found = sorted(map(tuple, np.column_stack([labels, shades]).tolist()))
    assert found == sorted(map(tuple, np.column_stack([digits.target, digits.data]).tolist()))
    share = torch.bincount(source.test.labels) / torch.from_numpy(np.bincount(digits.target))
    assert torch.allclose(share, torch.tensor(0.3, dtype=share.dtype), atol=0.005)


def mappings_of(path: Path) -> list[tuple[int, int]]:
    """The address ranges of this process that are a file's pages."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(path)):
            low, high = line.split(maxsplit=1)[0].split("-")
            found.append((int(low, 16), int(high, 16)))
    return found


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc to see where memory lies")
def test_images_are_pages_of_one_file_never_a_copy() -> None:
    """So that ten processes hold the images once."""
    splits = [load_splits(DataConfig(imbalance_ratio=5.0)), load_splits(DataConfig(imbalance_ratio=20.0))]
    files = list((cache_folder()).glob("*/train.arrow"))
    pages = [pages for file in files for pages in mappings_of(file)]
    for loaded in splits:
        for split in (loaded.train, loaded.val, loaded.complete.to(torch.device("cpu"))):
            address = split.images.data_ptr()
            assert any(low <= address and address + split.images.nbytes <= high for low, high in pages)
    assert torch.equal(splits[0].train.images, splits[1].train.images)


@pytest.mark.parametrize("names", [(), ("cat", "dog", "owl")])
def test_a_parquet_file_gives_its_images_pixel_by_pixel(tmp_path: Path, names: tuple[str, ...]) -> None:
    images, labels = images_of(30), [i % 3 for i in range(30)]
    path = write_parquet(tmp_path / "one.parquet", [encoded(image) for image in images], labels, names)
    source = load_source(DataConfig(source=str(path), test_fraction=0.2))
    assert source.train.class_names == source.test.class_names == (names or ("0", "1", "2"))
    assert torch.bincount(source.test.labels).tolist() == [2, 2, 2]
    expected = {(label, image.tobytes()) for label, image in zip(labels, channels_first(images).numpy(), strict=True)}
    found = {
        (int(label), image.numpy().tobytes())
        for part in (source.train, source.test)
        for image, label in zip(part.images, part.labels, strict=True)
    }
    assert found == expected


def test_a_folder_of_parquet_files_keeps_its_own_test_set(tmp_path: Path) -> None:
    images, labels = images_of(12), [i % 2 for i in range(12)]
    data = [encoded(image) for image in images]
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", data[:5], labels[:5], ["a", "b"])
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", data[5:9], labels[5:9], ["a", "b"])
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", data[9:], labels[9:], ["a", "b"])
    source = load_source(DataConfig(source=str(tmp_path)))
    assert torch.equal(source.train.images, channels_first(images[:9]))
    assert torch.equal(source.test.images, channels_first(images[9:]))
    assert (source.train.labels.tolist(), source.test.labels.tolist()) == (labels[:9], labels[9:])


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


def test_the_folder_named_test_is_the_test_set_whatever_lies_beside_it(tmp_path: Path) -> None:
    images, names = images_of(8), ["cat", "dog"]
    for index, part in enumerate(("train", "test", "val", "validation")):
        write_folder(tmp_path / part, list(images[2 * index : 2 * index + 2]), [0, 1], names)
    assert torch.equal(load_source(DataConfig(source=str(tmp_path))).test.images, channels_first(images[2:4]))


def test_class_folders_without_a_test_set_give_one_up(tmp_path: Path) -> None:
    labels = [i % 2 for i in range(20)]
    write_folder(tmp_path, list(images_of(20)), labels, ["cat", "dog"])
    source = load_source(DataConfig(source=str(tmp_path), test_fraction=0.3))
    assert torch.bincount(source.train.labels).tolist() == [7, 7]
    assert torch.bincount(source.test.labels).tolist() == [3, 3]


def test_images_are_resized_only_where_a_size_is_asked_for(tmp_path: Path) -> None:
    small, large = images_of(1, size=6)[0], images_of(1, size=8)[0]
    path = write_parquet(tmp_path / "one.parquet", [encoded(small)] * 4 + [encoded(large)], [0, 1, 0, 1, 0])
    assert "row 4: is 8x8 and the first image 6x6; give --data.image-size" in refusal(path)
    assert load_source(DataConfig(source=str(path), image_size=5)).train.images.shape[1:] == (3, 5, 5)


def test_files_that_change_are_read_again(tmp_path: Path) -> None:
    path, labels = tmp_path / "one.parquet", [0, 1, 0, 1]
    fingerprints = []
    for seed in (1, 2, 2):
        write_parquet(path, [encoded(image) for image in images_of(4, seed=seed)], labels)
        fingerprints.append(load_source(DataConfig(source=str(path))).train.fingerprint)
    assert fingerprints[0] != fingerprints[1] == fingerprints[2]


def test_the_test_set_may_be_cut_per_class_and_the_same_for_all() -> None:
    whole = load_splits(DataConfig(imbalance_ratio=5.0))
    cut = load_splits(DataConfig(imbalance_ratio=5.0, test_per_class=7))
    assert cut.test.class_counts() == [7] * 10
    assert sum(whole.test.class_counts()) == len(whole.test.labels)
    assert cut.fingerprint == whole.fingerprint


PNG = encoded(images_of(1)[0])
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda root: None, "no such file or folder; give digits, cifar10, cifar100 or the path"),
    "empty folder": (lambda root: root.mkdir(), "not an image set; it needs Parquet files, or one folder of images"),
    "text file": (lambda root: root.write_text("label,path\n"), "is not a Parquet file, or was cut short"),
    "no such columns": (
        lambda root: pq.write_table(pa.table({"text": ["a"], "label": [0]}), root),
        "is not an image set: it needs the columns image (struct of bytes and path) and label (int64), and has text",
    ),
    "image column of plain bytes": (
        lambda root: pq.write_table(pa.table({"image": [PNG], "label": [0]}), root),
        "is not an image set: it needs the columns image (struct of bytes and path) and label (int64), and has image",
    ),
    "labels that are words": (
        lambda root: pq.write_table(pa.table({"image": [{"bytes": PNG, "path": ""}], "label": ["cat"]}), root),
        "and has image (struct<bytes: binary, path: string>), label (string)",
    ),
    "16 bits a channel": (
        lambda root: write_parquet(root, [PNG, encoded(np.full((6, 6), 300, np.uint16))], [0, 1]),
        "row 1: has 16 bits a channel",
    ),
    "no rows": (lambda root: write_parquet(root, [], []), "holds no images"),
    "no training file": (
        lambda root: write_parquet(root / "all.parquet", [PNG], [0]),
        "none of its Parquet files is named train*.parquet: all.parquet",
    ),
    "label too large": (
        lambda root: write_parquet(root, [PNG] * 4, [0, 1, 0, 2], ["a", "b"]),
        "row 3: label 2 is outside the 2 classes",
    ),
    "negative label": (lambda root: write_parquet(root, [PNG] * 3, [0, -1, 1]), "row 1: label -1 is outside"),
    "missing label": (
        lambda root: write_parquet(root, [PNG] * 3, [0, None, 1], ["a", "b"]),
        "row 1: label None is outside the 2 classes",
    ),
    "no bytes": (lambda root: write_parquet(root, [PNG, b"", PNG], [0, 1, 0]), "row 1: has no image bytes"),
    "broken image": (
        lambda root: write_parquet(root, [PNG, PNG, PNG[: len(PNG) // 2]], [0, 1, 0]),
        "row 2: a broken image",
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
        "test/c: is not one of the classes of the training images, a, b",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_source_that_is_wrong_is_refused_by_its_place(tmp_path: Path, name: str) -> None:
    make, said = BROKEN[name]
    make(tmp_path / "source")
    message = refusal(tmp_path / "source")
    assert said in message
    assert str(tmp_path / "source") in message


def test_a_parquet_file_cut_short_is_refused(tmp_path: Path) -> None:
    whole = write_parquet(tmp_path / "one.parquet", [encoded(image) for image in images_of(8)], [0, 1] * 4).read_bytes()
    for part in (0.1, 0.5, 0.99):
        path = tmp_path / f"cut-{part}.parquet"
        path.write_bytes(whole[: int(len(whole) * part)])
        assert "is not a Parquet file, or was cut short" in refusal(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(5000, 4000), (12000, 10000), (20000, 20000)])
def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
    """Told from its header: there are no pixels in this file that could be decoded."""
    path = write_parquet(tmp_path / "one.parquet", [PNG, header_of_a_huge_png(*size)], [0, 1])
    message = refusal(path, image_size=8)
    assert f"{path} row 1: " in message
    assert "pixels" in message
    assert "truncated" not in message


@given(st.data())
def test_no_image_however_damaged_gives_anything_but_pixels_or_a_refusal(data: st.DataObject) -> None:
    content = bytearray(encoded(images_of(1, size=12)[0], data.draw(st.sampled_from(["png", "jpeg", "webp", "bmp"]))))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = decode_image(bytes(content), "the place", None)
            outcome = f"{image.dtype} of {len(image)} channels"
        except UserError as error:
            outcome = str(error)
    assert outcome == "uint8 of 3 channels" or outcome.startswith("the place: ")


def test_a_damaged_cache_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    load_source(DataConfig())
    whole = next(cache_folder().glob("*/train.arrow")).read_bytes()
    (tmp_path / "train.arrow").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"not a decoded image set .* delete it, it is made again"):
        read_image_set(tmp_path / "train.arrow")


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_in_the_cache_is_noticed_and_the_images_are_decoded_again(tmp_path: Path) -> None:
    source = DataConfig(source=str(write_parquet(tmp_path / "a.parquet", [*map(encoded, images_of(8))], [0, 1] * 4)))
    fingerprint = load_source(source, check=True).train.fingerprint
    files = list(cache_folder().glob("*/train.arrow"))
    path = next(path for path in files if read_image_set(path).fingerprint == fingerprint)
    whole = path.read_bytes()
    flip(path, whole.index(load_source(source).train.images[0].numpy().tobytes()))
    with pytest.warns(UserWarning, match=r"train\.arrow is damaged: .* they are decoded again"):
        load_source(source, check=True)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:100])
    with pytest.warns(UserWarning, match=r"train\.arrow is not a decoded image set .* they are decoded again"):
        load_source(source, check=True)
    assert path.read_bytes() == whole


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


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10_COPY.exists(), reason=f"the JPEG copy of CIFAR-10 is not in {CIFAR10_COPY}")
def test_loads_the_jpeg_copy_of_cifar_10_and_gives_it_the_published_tail() -> None:
    data = DataConfig(source=str(CIFAR10_COPY), imbalance_ratio=50.0, val_per_class=100)
    source = load_source(data)
    assert source.train.images.shape == (50_000, 3, 32, 32)
    assert source.test.images.shape == (10_000, 3, 32, 32)
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert source.train.class_names == source.test.class_names == names
    splits = load_splits(data)
    assert sum(splits.complete.class_counts()) == 13_996
    assert splits.val.class_counts() == [100] * 10
    assert splits.test.class_counts() == [1000] * 10
