"""More images than memory: streamed splits, images that stay encoded, room on the disk."""

import itertools
import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from imagesets import encoded, images_of, refusal, table_of, write_folder
from PIL import Image
from torch import Tensor

from ltsd.config import Config, DataConfig
from ltsd.data import Splits, load_splits
from ltsd.data.batches import Split, epoch_batches
from ltsd.data.encoded import EncodedImages
from ltsd.data.sources import load_source
from ltsd.data.streaming import Streamed
from ltsd.runs import open_run

CPU = torch.device("cpu")
NAMES = ("few", "many")
FORMS = {"decoded": {}, "encoded": {"decoded_gib": 0.0}}


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """JPEG and PNG images of several sizes with splits; one is turned by its tag, one is grey."""
    for split, seed in (("train", 0), ("validation", 1), ("test", 2)):
        images = [image[:, : 9 + k % 4] for k, image in enumerate(images_of(40, 12, seed))]
        write_folder(tmp_path / "set" / split, images, [0] * 12 + [1] * 28, NAMES)
        tag = Image.Exif()
        tag[0x0112] = 6
        Image.fromarray(images[0]).save(tmp_path / "set" / split / "few" / "000.png", "JPEG", exif=tag)
        Image.fromarray(images[1][..., 0]).save(tmp_path / "set" / split / "few" / "001.png", "JPEG")
    return tmp_path / "set"


def splits_of(source: Path, form: str, **options: Any) -> Splits:
    return load_splits(replace(DataConfig(source=str(source), image_size=8), **FORMS[form], **options), check=True)


def batches_of(split: Split, augmentation: str) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    epochs = [list(epoch_batches(split, 7, augmentation, generator)) for _ in range(2)]
    taken = split.take(torch.tensor([5, 0, 0]))
    return [*itertools.chain(*epochs), *split.chunks(9), taken, split.first_of_each_class(2)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("augmentation", ["none", "crop-flip", "randaugment"])
def test_a_streamed_split_gives_the_bits_of_a_resident_one(photographs: Path, form: str, augmentation: str) -> None:
    resident = splits_of(photographs, "decoded").complete.to(CPU)
    streamed = splits_of(photographs, form, resident_gib=0.0).complete.to(CPU)
    assert isinstance(resident.images, Tensor)
    assert isinstance(streamed.images, Streamed)
    assert streamed.class_counts() == resident.class_counts() == [12, 28]
    pairs = zip(batches_of(resident, augmentation), batches_of(streamed, augmentation), strict=True)
    assert all(torch.equal(one, other) for pair in pairs for one, other in zip(*pair, strict=True))


@pytest.mark.parametrize("parts", [("train",), ("train", "validation"), ("train", "validation", "test")])
def test_images_that_stay_encoded_are_those_that_would_have_been_decoded(
    photographs: Path, parts: Sequence[str]
) -> None:
    for part in {"train", "validation", "test"}.difference(parts):
        shutil.rmtree(photographs / part)
    plain, kept = splits_of(photographs, "decoded"), splits_of(photographs, "encoded")
    assert isinstance(kept.train.images, EncodedImages)
    assert kept.fingerprint == plain.fingerprint
    assert kept.copies == plain.copies
    assert kept.reading == plain.reading
    for name in ("train", "val", "complete", "test"):
        one, other = getattr(plain, name), getattr(kept, name)
        assert torch.equal(one.rows, other.rows)
        assert torch.equal(one.images[one.rows], other.images[other.rows])
        assert torch.equal(one.labels, other.labels)


def test_training_is_the_same_whatever_is_resident_and_goes_on_with_another_form(
    photographs: Path, tmp_path: Path
) -> None:
    weights = []
    for form, limit, resume in (("decoded", None, None), ("encoded", None, None), ("decoded", 0.0, "encoded.pt")):
        splits = splits_of(photographs, form, resident_gib=limit)
        fixed = {"method": "natural", "model.name": "small-cnn", "model.width": 8, "epochs": 2, "optim.batch_size": 8}
        config = Config.preset("data").override({"precision": "fp32", **fixed})
        path = None if resume is None else tmp_path / resume
        run = open_run(config, splits, splits.train, splits.val, CPU, teacher=None, resume=path)
        for metrics in run.epochs():
            if metrics.epoch == 1:
                run.save(tmp_path / f"{form}.pt")
        weights.append(run.state.student.state_dict())
    assert all(
        torch.equal(one, other)
        for state in weights[1:]
        for one, other in zip(weights[0].values(), state.values(), strict=True)
    )


def test_what_is_streamed_is_told_with_its_sizes() -> None:
    images = torch.zeros(2**10, 1, 32, 32, dtype=torch.uint8)
    split = Split(images, torch.zeros(2**10).long(), torch.arange(2**10), 2)
    assert split.to(CPU).whereabouts() == "0.000977 GiB, one file, mapped into memory"
    told = Split(images, split.labels, split.rows, 2, resident_gib=0.0005).to(CPU).whereabouts()
    assert told == "0.000977 GiB, streamed to cpu; more than 0.0005 GiB (--data.resident-gib)"


def test_no_thread_is_left_when_an_epoch_is_abandoned() -> None:
    images = torch.zeros(100, 1, 4, 4, dtype=torch.uint8)
    split = Split(images, torch.zeros(100).long(), torch.arange(100), 2, resident_gib=0.0).to(CPU)
    before = threading.active_count()
    chunks = split.chunks(3)
    next(chunks)
    assert threading.active_count() == before + 1
    chunks.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_set_that_the_disk_has_no_room_for_stays_encoded_or_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.parquet"
    pq.write_table(table_of([encoded(image) for image in images_of(200)], [0, 1] * 100), path)
    usage = namedtuple("usage", "free")
    encoded_bytes = 200 * len(encoded(images_of(1)[0]))
    decoded_bytes = 200 * 3 * 64 * 64

    def free(room: int) -> None:
        monkeypatch.setattr("ltsd.data.room.shutil.disk_usage", lambda folder: usage(room))

    free(encoded_bytes)
    told = refusal(path, image_size=64)
    assert "about 0.0 GiB decoded" in told
    assert "set XDG_CACHE_HOME to a folder of a larger disk" in told
    free(decoded_bytes)
    assert isinstance(load_source(DataConfig(source=str(path), image_size=64)).train.images, EncodedImages)
    free(3 * decoded_bytes)
    assert isinstance(load_source(DataConfig(source=str(path), image_size=32)).train.images, Tensor)


def test_a_damaged_encoded_set_is_made_again(photographs: Path) -> None:
    splits = splits_of(photographs, "encoded")
    before = splits.train.images[:]
    path, content = splits.folder / "train.arrow", bytearray((splits.folder / "train.arrow").read_bytes())
    content[content.index(b"JFIF") + 60] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="decoded again"):
        again = splits_of(photographs, "encoded")
    assert torch.equal(again.train.images[:], before)


@pytest.mark.slow
def test_an_epoch_and_an_evaluation_need_less_memory_than_the_images(tmp_path: Path) -> None:
    """The process has Python, torch and the network in the same memory, and that is most of it."""
    count = 18_000
    pixels = np.random.RandomState(0).randint(0, 256, (count, 4, 4, 3)).astype(np.uint8)
    table = table_of([encoded(image, "bmp") for image in pixels], [0, 1, 1] * (count // 3))
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=500)
    program = Path(__file__).parent / "memory_program.py"
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "train.parquet"), "auto"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    peak, size = map(int, done.stdout.split())
    assert size == count * 3 * 128 * 128
    assert peak < 0.8 * size
