"""Images in folders: one folder per class, as torchvision's `ImageFolder` reads them, and Tiny-ImageNet as it is."""

from collections.abc import Sequence
from pathlib import Path

from ltsd.data.decode import Encoded
from ltsd.data.places import SPLIT_WORDS, Place
from ltsd.errors import UserError

Samples = list[tuple[str, int]]


def read_folder(place: Place) -> tuple[list[str], dict[str, Encoded]]:
    """Class names, sorted, and the images of each part, not decoded yet.

    Images may lie in folders below their class's. Tiny-ImageNet is known by its `wnids.txt`; its labels are the
    places in the sorted WordNet ids, its validation images the test set, its unlabelled ones are not read.

    Raises:
        UserError: not local, not an image set, or a test image whose class has no training images.
    """
    if not place.is_local:
        raise UserError(
            f"--data.source {place.source}: holds no Parquet or Arrow file; folders of images are read from local disks"
        )
    root = Path(place.root)
    folders = _split_folders(place, root)
    if (root / "wnids.txt").is_file() and "train" in folders:
        names, samples = _tiny_imagenet(root)
    else:
        names = _class_names(folders.get("train", root))
        samples = {part: _of_classes(folder, names) for part, folder in (folders or {"train": root}).items()}
    if not samples["train"]:
        raise UserError(
            f"--data.source {place.source}: not an image set; it needs Parquet or Arrow files, or one folder of images "
            f"per class"
        )
    return names, {part: _encoded(found) for part, found in samples.items()}


def _split_folders(place: Place, root: Path) -> dict[str, Path]:
    """`train/` and `test/`, or nothing where the folder holds the classes directly."""
    found = {
        part: next(filter(Path.is_dir, (root / word for word in words)), None) for part, words in SPLIT_WORDS.items()
    }
    folders = {part: folder for part, folder in found.items() if folder}
    if folders and "train" not in folders:
        raise UserError(f"--data.source {place.source}: has a folder {folders['test'].name} and none named train")
    return folders


def _tiny_imagenet(root: Path) -> tuple[list[str], dict[str, Samples]]:
    names = sorted((root / "wnids.txt").read_text().split())
    annotations = root / "val" / "val_annotations.txt"
    if annotations.is_file() and (root / "val" / "images").is_dir():
        test = _annotated(annotations, names)
    else:
        test = _of_classes(root / "val", names)
    return names, {"train": _of_classes(root / "train", names), "test": test}


def _annotated(annotations: Path, names: Sequence[str]) -> Samples:
    """Images of `images/` beside a table of file name, class and bounding box, separated by tabs."""
    samples: Samples = []
    for number, line in enumerate(annotations.read_text().splitlines(), start=1):
        file, name = [*line.split("\t"), ""][:2]
        if name not in names:
            raise UserError(f"{annotations} line {number}: {name!r} is not one of the classes of wnids.txt")
        samples.append((str(annotations.parent / "images" / file), names.index(name)))
    return samples


def _class_names(folder: Path) -> list[str]:
    from torchvision.datasets.folder import find_classes

    try:
        names, _ = find_classes(folder)
    except OSError:
        return []
    return list(names)


def _of_classes(folder: Path, names: Sequence[str]) -> Samples:
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    for name in _class_names(folder):
        if name not in names:
            raise UserError(f"{folder / name}: is not one of the classes of the training images, {', '.join(names)}")
    label_of = {name: label for label, name in enumerate(names)}
    return list(make_dataset(folder, label_of, IMG_EXTENSIONS, allow_empty=True)) if names else []


def _encoded(samples: Samples) -> Encoded:
    for path, label in samples:
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        yield path, content, label
