"""Where images come from: each source becomes a training and a test `ImageSet`, decoded once per machine."""

import hashlib
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from ltsd.config import DataConfig
from ltsd.data.arrow import ImageSet, cache_folder, check_image_set, read_image_set, write_image_set
from ltsd.data.longtail import hold_out
from ltsd.errors import UserError

MAX_PIXELS = 4096 * 4096
MAX_UNPACKED, MAX_UNPACKED_RATIO = 256 * 2**20, 10
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
SPLIT_FOLDERS = {"train": ("train",), "test": ("test", "validation", "valid", "val")}
DECODER_VERSION = 1

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Encoded = Iterator[tuple[str, bytes, int]]


@dataclass(frozen=True)
class Source:
    """The training and the test images of a data set."""

    train: ImageSet
    test: ImageSet


def load_source(data: DataConfig, *, check: bool = False) -> Source:
    """The images of `data.source`, decoded on first use and mapped into memory from then on.

    With `check` the decoded images are held against their checksum; damaged ones are decoded again, with a warning.

    Raises:
        UserError: a path that is missing or holds no images, a broken or huge image (its row is named), a
            label outside the classes, sizes that differ.
    """
    folder = cache_folder() / _key(data)
    train, test = folder / "train.arrow", folder / "test.arrow"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the image cache {folder} cannot be written ({error.strerror}); set XDG_CACHE_HOME to a folder that can"
        ) from error
    with FileLock(folder / "lock"):
        if not (train.exists() and test.exists()) or (check and _are_damaged(train, test)):
            _decode(data, train, test)
    return Source(read_image_set(train), read_image_set(test))


def _are_damaged(*paths: Path) -> bool:
    try:
        for path in paths:
            check_image_set(path)
    except UserError as error:
        warnings.warn(f"{error}; they are decoded again", stacklevel=3)
        return True
    return False


def _decode(data: DataConfig, train: Path, test: Path) -> None:
    if data.source == "digits":
        parts, names = _digits()
    elif data.source in ("cifar10", "cifar100"):
        parts, names = _torchvision(data.source)
    else:
        parts, names = _path(Path(data.source), data.image_size)
    if "test" not in parts:
        images, labels = parts["train"]
        kept, held_out = hold_out(labels, len(names), data.test_fraction)
        parts = {"train": (images[kept], labels[kept]), "test": (images[held_out], labels[held_out])}
    write_image_set(train, *parts["train"], names)
    write_image_set(test, *parts["test"], names)


def _key(data: DataConfig) -> str:
    """Names the decoded form of a source: changes with the files behind it and with how they are decoded."""
    identity: list[object] = [DECODER_VERSION, data.source, data.image_size, data.test_fraction]
    if data.source not in ("digits", "cifar10", "cifar100"):
        root = Path(data.source).expanduser().resolve()
        if not root.exists():
            raise UserError(
                f"--data.source {data.source}: no such file or folder; give digits, cifar10, cifar100 or the path of "
                f"a Parquet file or an image folder"
            )
        files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
        stats = ((path, path.stat()) for path in files)
        identity.append([(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats])
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


Parts = dict[str, tuple[Images, Labels]]


def _digits() -> tuple[Parts, list[str]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return {"train": (images, digits.target.astype(np.int64))}, [str(c) for c in range(10)]


def _torchvision(name: str) -> tuple[Parts, list[str]]:
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    root = cache_folder() / "torchvision"
    try:
        sets = {part: kind(str(root), train=part == "train", download=True) for part in SPLIT_FOLDERS}
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"--data.source {name}: not in {root} and it could not be downloaded ({error}); put torchvision's "
            f"archive there, or give the path of a Parquet file or image folder"
        ) from error
    parts = {
        part: (images.data.transpose(0, 3, 1, 2), np.asarray(images.targets, dtype=np.int64))
        for part, images in sets.items()
    }
    return parts, list(sets["train"].classes)


def _path(root: Path, image_size: int | None) -> tuple[Parts, list[str]]:
    root = root.expanduser()
    files = _parquet_files(root)
    if files:
        names = _class_names_of_parquet(files["train"][0])
        encoded = {part: _rows_of_parquet(paths, len(names)) for part, paths in files.items()}
    else:
        folders = _class_folders(root)
        names = sorted(path.name for path in folders["train"].iterdir() if path.is_dir())
        encoded = {part: _files_of_folder(folder, names) for part, folder in folders.items()}
    return {part: _decode_all(rows, root, image_size) for part, rows in encoded.items()}, names


def _parquet_files(root: Path) -> dict[str, list[Path]]:
    """Parquet files by split: a single file, or `train*.parquet` and `test*.parquet`, at any depth."""
    if root.is_file():
        return {"train": [root]}
    found = sorted(root.rglob("*.parquet"))
    parts = {
        part: next(filter(None, ([path for path in found if path.name.startswith(p)] for p in prefixes)), [])
        for part, prefixes in SPLIT_FOLDERS.items()
    }
    if found and not parts["train"]:
        raise UserError(f"--data.source {root}: none of its Parquet files is named train*.parquet: {found[0].name} …")
    return {part: paths for part, paths in parts.items() if paths}


def _class_names_of_parquet(path: Path) -> list[str]:
    """Class names from the Hugging Face schema metadata, else the numbers up to the largest label.

    Raises:
        UserError: not a Parquet file, or without the columns `image` and `label`.
    """
    try:
        schema = pq.read_schema(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a Parquet file, or was cut short ({error})") from error
    types = {field.name: field.type for field in schema}
    image, label = types.get("image", pa.null()), types.get("label", pa.null())
    if not (pa.types.is_struct(image) and image.get_field_index("bytes") >= 0 and pa.types.is_integer(label)):
        raise UserError(
            f"{path} is not an image set: it needs the columns image (struct of bytes and path) and label (int64), "
            f"and has {', '.join(f'{name} ({kind})' for name, kind in types.items())}"
        )
    if names := _names_in_metadata(schema):
        return names
    largest = pc.max(pq.read_table(path, columns=["label"])["label"]).as_py()
    return [str(c) for c in range((-1 if largest is None else largest) + 1)]


def _names_in_metadata(schema: pa.Schema) -> list[str]:
    """The class names that the Hugging Face library wrote; none where it, or its form, is another."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])
        return [str(name) for name in features["info"]["features"]["label"]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _rows_of_parquet(paths: Sequence[Path], num_classes: int) -> Encoded:
    for path in paths:
        row = 0
        try:
            file = pq.ParquetFile(path, page_checksum_verification=True)
            _refuse_bomb(path, file.metadata)
            for batch in file.iter_batches(1000, columns=["image", "label"]):
                for image, label in zip(batch["image"].to_pylist(), batch["label"].to_pylist(), strict=True):
                    place = f"{path} row {row}"
                    if label is None or not 0 <= label < num_classes:
                        raise UserError(f"{place}: label {label} is outside the {num_classes} classes")
                    if not image or not image["bytes"]:
                        raise UserError(f"{place}: has no image bytes")
                    yield place, image["bytes"], label
                    row += 1
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read after row {row} ({error})") from error


def _refuse_bomb(path: Path, metadata: pq.FileMetaData) -> None:
    """Images are compressed already: what unpacks to a multiple of itself is made to fill the memory."""
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            packed, unpacked = chunk.total_compressed_size, chunk.total_uncompressed_size
            if unpacked > MAX_UNPACKED and unpacked > MAX_UNPACKED_RATIO * packed:
                raise UserError(
                    f"{path}: column {chunk.path_in_schema} of row group {group} unpacks {packed} bytes to {unpacked}; "
                    f"more than {MAX_UNPACKED_RATIO} times are refused; if that is meant, write it without compression"
                )


def _class_folders(root: Path) -> dict[str, Path]:
    """`train/` and `test/` of an image folder, or the folder itself where it holds the classes directly."""
    candidates = {part: [root / name for name in names] for part, names in SPLIT_FOLDERS.items()}
    parts = {part: path for part, paths in candidates.items() for path in reversed(paths) if path.is_dir()}
    folders = parts if "train" in parts else {"train": root}
    if not any(path.suffix.lower() in IMAGE_SUFFIXES for path in folders["train"].glob("*/*")):
        raise UserError(
            f"--data.source {root}: not an image set; it needs Parquet files, or one folder of images per class"
        )
    return folders


def _files_of_folder(folder: Path, names: Sequence[str]) -> Encoded:
    for found in sorted(path for path in folder.iterdir() if path.is_dir()):
        if found.name not in names:
            raise UserError(f"{found}: is not one of the classes of the training images, {', '.join(names)}")
        for path in sorted(found.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield str(path), path.read_bytes(), names.index(found.name)


def _decode_all(rows: Encoded, root: Path, image_size: int | None) -> tuple[Images, Labels]:
    images: list[Images] = []
    labels: list[int] = []
    for place, encoded, label in rows:
        image = decode_image(encoded, place, image_size)
        if images and image.shape != images[0].shape:
            raise UserError(
                f"{place}: is {_size(image)} and the first image {_size(images[0])}; give --data.image-size to resize"
            )
        images.append(image)
        labels.append(label)
    if not images:
        raise UserError(f"--data.source {root}: holds no images")
    return np.stack(images), np.asarray(labels, dtype=np.int64)


def decode_image(encoded: bytes, place: str, image_size: int | None) -> Images:
    """An encoded image as uint8 [3, H, W].

    Raises:
        UserError: broken, or of more than 16.7 million pixels (told from its header, before decoding).
    """
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(encoded)) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UserError(f"{place}: an image of {width}x{height} pixels, more than {MAX_PIXELS} are refused")
            size = (width, height) if image_size is None else (image_size, image_size)
            if image.mode.startswith("I"):
                raise UserError(f"{place}: has 16 bits a channel; images of 8 bits are read")
            resized = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
            return np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1)
    except Image.DecompressionBombError as error:
        raise UserError(f"{place}: {error}; more than {MAX_PIXELS} pixels are refused") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{place}: a broken image ({error})") from error


def _size(image: Images) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"
