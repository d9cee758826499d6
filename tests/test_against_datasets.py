"""Made-up trees of files, read here and by Hugging Face's `datasets`: the same images of the same classes in the same
splits, or a refusal in one line.

Three things `datasets` does not see, and leaves out without a word: words for splits in capitals, folders that are
links, splits named by a file beside those named by a folder. There it is given small letters, the folder in place of
the link, and folders alone.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from imagesets import encoded, images_of, maps_of, write_parquet

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

import datasets  # reads its environment when it is imported

from ltsd.config import DataConfig
from ltsd.data.layouts.roles import ROLE_OF, ROLES
from ltsd.data.sources import load_source
from ltsd.errors import UserError

CLASSES = ("cat", "dog", "owl")
DECORATIONS = ("{}", "{}-images", "my_{}", "{}_2", "{} set", "2024.{}")
ENDINGS = {"png": "png", "jpg": "jpeg", "JPEG": "jpeg", "jfif": "jpeg", "webp": "webp", "bmp": "bmp", "gif": "gif"}
JUNK = (
    ".DS_Store",
    "__MACOSX/cat/._0.png",
    "{train}/cat/._0.png",
    "{train}/dog/notes.txt",
    ".git/cat/0.png",
    "LICENSE",
)

Found = Counter[tuple[str, str, bytes]]
"""(role, class, pixels) of every image."""


@dataclass(frozen=True)
class Tree:
    """What lies in a folder: by split its name, and whether that is the name of a file; the folders of the data sets;
    the endings of images, what is no image, and whether a class of the training images is a link to elsewhere.
    """

    is_tables: bool
    names: tuple[tuple[str, str], ...]
    by_file: frozenset[str]
    homes: tuple[str, ...]
    endings: tuple[str, ...]
    junk: tuple[str, ...]
    has_empty: bool
    is_linked: bool

    @property
    def is_plain(self) -> bool:
        """Whether there is one way to read it."""
        return (
            len(self.homes) == 1
            and (not self.names or "train" in dict(self.names))
            and (bool(self.names) or not self.is_tables)
        )

    def for_datasets(self) -> "Tree":
        """What `datasets` is given."""
        small = tuple((role, name.lower()) for role, name in self.names)
        return replace(self, names=small, by_file=frozenset(), is_linked=False)

    def write(self, root: Path, elsewhere: Path) -> None:
        images = iter(images_of(200, size=5))
        for home in self.homes:
            for role, name in self.names or (("train", ""),):
                place = root / home / name
                if self.is_tables:
                    path = place.with_name(f"{name}.parquet") if role in self.by_file else place / "0.parquet"
                    write_parquet(path, [encoded(next(images)) for _ in range(9)], [0, 1, 2] * 3, CLASSES)
                else:
                    self._write_folders(place, images, elsewhere if self.is_linked and role == "train" else None)
        for path in (root / self.homes[0] / one.format(train=dict(self.names).get("train", "")) for one in self.junk):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"no image")
        if self.has_empty:
            (root / self.homes[0] / "hollow").mkdir(parents=True)

    def _write_folders(self, place: Path, images: Iterator[Any], elsewhere: Path | None) -> None:
        for number, name in enumerate(CLASSES):
            folder = place / name
            if elsewhere and number == 0:
                place.mkdir(parents=True, exist_ok=True)
                target = elsewhere / str(len(list(elsewhere.iterdir())))
                target.mkdir()
                folder.symlink_to(target)
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(3):
                ending = self.endings[(number + i) % len(self.endings)]
                (folder / f"{i}.{ending}").write_bytes(encoded(next(images), ENDINGS[ending]))


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    names = []
    for role in draw(st.sets(st.sampled_from(ROLES))):
        word = draw(st.sampled_from([word for word, of in ROLE_OF.items() if of == role]))
        name = draw(st.sampled_from(DECORATIONS)).format(word)
        names.append((role, draw(st.sampled_from([name, name, name.upper(), name.title()]))))
    return Tree(
        is_tables=draw(st.booleans()),
        names=tuple(sorted(names)),
        by_file=frozenset(draw(st.sets(st.sampled_from([role for role, _ in names])) if names else st.just(()))),
        homes=draw(st.sampled_from([("",), ("",), ("data",), ("inner/deep",), ("one", "two")])),
        endings=tuple(draw(st.lists(st.sampled_from(sorted(ENDINGS)), min_size=1, max_size=3))),
        junk=tuple(sorted(draw(st.sets(st.sampled_from(JUNK))))),
        has_empty=draw(st.booleans()),
        is_linked=draw(st.booleans()),
    )


def pixels_of(image: Any) -> bytes:
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1).tobytes()


def read_by_datasets(root: Path, cache: Path) -> Found:
    """A validation split is the test set where there is no other, and a share of the training images where there is
    neither.
    """
    found: Found = Counter()
    parts = datasets.load_dataset(str(root), cache_dir=str(cache))
    for split, rows in parts.items():
        role = "test" if split == "validation" and "test" not in parts else split
        names = rows.features["label"].names
        found.update((role, names[row["label"]], pixels_of(row["image"])) for row in rows)
    return found if {"test"} & {role for role, *_ in found} else as_one(found)


def read_here(root: Path) -> Found:
    found: Found = Counter()
    source = load_source(DataConfig(source=str(root)))
    for role, part in (("train", source.train), ("test", source.test)):
        for row, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
            served = "validation" if role == "train" and row >= source.validation_from else role
            found[served, part.class_names[label], image.numpy().tobytes()] += 1
    return as_one(found) if source.reading.is_test_held_out else found


def as_one(found: Found) -> Found:
    """Training and held-out images together."""
    return Counter({("train" if role == "test" else role, name, image): n for (role, name, image), n in found.items()})


@settings(max_examples=60)
@given(trees())
def test_a_tree_is_read_as_datasets_reads_it_or_refused_in_one_line(tree: Tree) -> None:
    with tempfile.TemporaryDirectory() as name:
        root, same, elsewhere, cache = (Path(name) / part for part in ("root", "same", "elsewhere", "cache"))
        elsewhere.mkdir()
        for folder in (root, same):
            folder.mkdir()
        tree.write(root, elsewhere)
        tree.for_datasets().write(same, elsewhere)
        try:
            here, said = read_here(root), ""
        except UserError as error:
            here, said = None, str(error)
        event("refused" if said else "read")
        if tree.is_plain:
            assert not said
        assert "\n" not in said
        assert said or here == read_by_datasets(same, cache)


def test_what_datasets_saves_to_disk_is_read_as_it_reads_it(tmp_path: Path) -> None:
    """Mapped, so that a cache file lies beside the data; and shuffled and filtered before it is saved."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    rows = [{"bytes": encoded(image), "path": None} for image in images_of(60)]
    whole = datasets.Dataset.from_dict({"image": rows, "label": [i % 3 for i in range(60)]}, features=features)
    datasets.DatasetDict({"train": whole.select(range(45)), "test": whole.select(range(45, 60))}).save_to_disk(
        str(tmp_path / "saved")
    )
    loaded = datasets.load_from_disk(str(tmp_path / "saved"))
    loaded.map(lambda row: {"label": 2 - row["label"]}, load_from_cache_file=False)
    assert len(list((tmp_path / "saved" / "train").glob("*.arrow"))) == 2
    shuffled = loaded.shuffle(seed=1).filter(lambda row: row["label"] > 0)
    shuffled.save_to_disk(str(tmp_path / "shuffled"))
    for name in ("saved", "shuffled"):
        source = load_source(DataConfig(source=str(tmp_path / name)))
        for part, split in ((source.train, "train"), (source.test, "test")):
            expected = datasets.load_from_disk(str(tmp_path / name))[split]
            assert part.labels.tolist() == expected["label"]
            assert [image.numpy().tobytes() for image in part.images] == [pixels_of(i) for i in expected["image"]]


@pytest.mark.parametrize("form", ["saved", "shuffled", "parquet"])
def test_images_with_masks_that_datasets_writes_are_read_as_it_reads_them(tmp_path: Path, form: str) -> None:
    features = datasets.Features({"image": datasets.Image(), "annotation": datasets.Image()})
    rows = [[{"bytes": encoded(image), "path": None} for image in of] for of in (images_of(30), maps_of(30))]
    whole = datasets.Dataset.from_dict({"image": rows[0], "annotation": rows[1]}, features=features)
    if form == "shuffled":
        whole = whole.shuffle(seed=1).select(range(20))
    if form == "parquet":
        for split, part in {"train": whole.select(range(20)), "test": whole.select(range(20, 30))}.items():
            part.to_parquet(str(tmp_path / f"{split}.parquet"))
        files = {split: str(tmp_path / f"{split}.parquet") for split in ("train", "test")}
        parts = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / ".cache"))
    else:
        parts = {"train": whole.select(range(12)), "test": whole.select(range(12, 20))}
        datasets.DatasetDict(parts).save_to_disk(str(tmp_path))
    source = load_source(DataConfig(source=str(tmp_path)))
    for part, split in ((source.train, "train"), (source.test, "test")):
        assert [image.numpy().tobytes() for image in part.images] == [pixels_of(i) for i in parts[split]["image"]]
        assert [one.numpy().tobytes() for one in part.labels] == [
            np.asarray(mask).tobytes() for mask in parts[split]["annotation"]
        ]
