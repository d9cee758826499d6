"""Sources of images: what they give, how they lie in memory, when they are read again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from imagesets import CIFAR10_COPY, encoded, flip, images_of, write_parquet
from sklearn.datasets import load_digits

from ltsd.config import DataConfig
from ltsd.data import load_splits
from ltsd.data.arrow import cache_folder, read_image_set
from ltsd.data.sources import decoded, load_source
from ltsd.errors import UserError


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


def test_a_class_without_a_test_image_is_refused(tmp_path: Path) -> None:
    """Its recall, and with it every mean over classes, could not be told."""
    images = [*map(encoded, images_of(24))]
    write_parquet(tmp_path / "train.parquet", images[:18], [0, 1, 2] * 6, ["cat", "dog", "emu"])
    write_parquet(tmp_path / "test.parquet", images[18:], [0, 1] * 3, ["cat", "dog", "emu"])
    with pytest.raises(UserError, match=r"class 'emu' has no test example"):
        load_splits(DataConfig(source=str(tmp_path), n_max=4, imbalance_ratio=2.0, val_per_class=1))


def test_a_gap_in_the_numbers_of_classes_is_told_as_one(tmp_path: Path) -> None:
    write_parquet(tmp_path / "one.parquet", [*map(encoded, images_of(24))], [0, 1, 3] * 8)
    with pytest.raises(UserError, match=r"class '2' has nothing at all; .* or number the classes without a gap"):
        load_splits(DataConfig(source=str(tmp_path / "one.parquet")))


def test_a_damaged_cache_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    load_source(DataConfig())
    whole = next(cache_folder().glob("*/train.arrow")).read_bytes()
    (tmp_path / "train.arrow").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"not a decoded image set .* delete it, it is made again"):
        read_image_set(tmp_path / "train.arrow")


def test_a_flipped_bit_in_the_cache_is_noticed_and_the_images_are_decoded_again(tmp_path: Path) -> None:
    source = DataConfig(source=str(write_parquet(tmp_path / "a.parquet", [*map(encoded, images_of(8))], [0, 1] * 4)))
    path = decoded(source) / "train.arrow"
    whole = path.read_bytes()
    flip(path, whole.index(load_source(source).train.images[0].numpy().tobytes()))
    with pytest.warns(UserWarning, match=r"train\.arrow is damaged: .* they are decoded again"):
        load_source(source, check=True)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:100])
    with pytest.warns(UserWarning, match=r"train\.arrow is not a decoded image set .* they are decoded again"):
        load_source(source, check=True)
    assert path.read_bytes() == whole


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
