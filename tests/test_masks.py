"""Images with label maps, in Parquet, Arrow and folders: what they give, and what is said of those that are wrong."""

import io
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
from imagesets import CAMVID, FORMS, PNG, Images, channels_first, encoded, images_of, map_table, maps_of, refusal
from PIL import Image, ImageOps

from ltsd.__main__ import main
from ltsd.checkpoint import load_checkpoint
from ltsd.config import Config, DataConfig
from ltsd.data import Splits, load_splits
from ltsd.data.decode import Mask, decode_mask
from ltsd.data.sources import Source, load_source
from ltsd.errors import UserError

NAMES = ("ground", "cat", "dog")
SPLITS = {"train": slice(0, 5), "val": slice(5, 7), "test": slice(7, 10)}


def read(source: Path, **options: Any) -> Source:
    return load_source(DataConfig(source=str(source), **options))


def split_up(source: Path, **options: Any) -> Splits:
    return load_splits(DataConfig(source=str(source), **options))


def palette(classes: Images) -> bytes:
    """A PNG of mode P, in colours that are far from the indices."""
    image = Image.fromarray(classes)
    image.putpalette([(7 * value) % 256 for value in range(3 * 256)])
    assert image.mode == "P"
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_maps(root: Path, images: Images, maps: Images, names: Sequence[str] = ("images", "masks")) -> None:
    """PNGs with numbers for names; masks with a palette and grey in turn."""
    for number, (image, classes) in enumerate(zip(images, maps, strict=True)):
        write(root / names[0] / f"{number:03d}.png", encoded(image))
        write(root / names[1] / f"{number:03d}.png", palette(classes) if number % 2 else encoded(classes))


def same(found: Source, images: Images, maps: Images) -> bool:
    """Whether the splits of SPLITS are read as they are."""
    pool = slice(0, SPLITS["val"].stop)
    return (
        torch.equal(found.train.images, channels_first(images[pool]))
        and np.array_equal(found.train.labels.numpy(), maps[pool])
        and torch.equal(found.test.images, channels_first(images[SPLITS["test"]]))
        and np.array_equal(found.test.labels.numpy(), maps[SPLITS["test"]])
        and found.validation_from == SPLITS["val"].start
        and found.train.labels.dtype == torch.uint8
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("columns", [("image", "annotation"), ("img", "label"), ("image", "mask")])
@pytest.mark.parametrize("kind", ["struct", "binary"])
@pytest.mark.parametrize("names", [(), NAMES])
def test_a_table_gives_its_images_and_maps_pixel_by_pixel(
    tmp_path: Path, form: str, columns: tuple[str, str], kind: str, names: tuple[str, ...]
) -> None:
    images, maps = images_of(10), maps_of(10)
    masks = [palette(one) if number % 2 else encoded(one) for number, one in enumerate(maps)]
    options = {"kind": pa.binary()} if kind == "binary" else {}
    table = map_table([*map(encoded, images)], masks, names, columns, **options)
    for split, rows in SPLITS.items():
        FORMS[form](table[rows], tmp_path / f"{split}.{form.split()[0]}")
    found = read(tmp_path)
    assert same(found, images, maps)
    assert found.train.class_names == found.test.class_names == (names or ("class 0", "class 1", "class 2"))


def test_class_names_may_be_those_of_the_masks_own_feature(tmp_path: Path) -> None:
    table = map_table([*map(encoded, images_of(10))], [*map(encoded, maps_of(10))], NAMES)
    metadata = {key: value.replace(b'"classes"', b'"ignored"') for key, value in table.schema.metadata.items()}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "one.parquet")
    assert read(tmp_path / "one.parquet").train.class_names == ("class 0", "class 1", "class 2")
    metadata[b"huggingface"] = metadata[b"huggingface"].replace(
        b'"annotation": {', b'"annotation": {"names": ["a", "b", "c"], '
    )
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "two.parquet")
    assert read(tmp_path / "two.parquet").train.class_names == ("a", "b", "c")


def test_a_table_with_classes_is_one_for_classification_whatever_masks_it_has(tmp_path: Path) -> None:
    table = map_table([*map(encoded, images_of(10))], [*map(encoded, maps_of(10))], columns=("image", "mask"))
    pq.write_table(table.append_column("label", pa.array([0, 1] * 5)), tmp_path / "one.parquet")
    assert read(tmp_path / "one.parquet").train.labels.ndim == 1


LAYOUTS = {
    "splits inside, annotations": ("images/{split}", "annotations/{split}", ""),
    "splits inside, labels": ("Images/{split}", "labels/{split}", ""),
    "splits outside": ("{split}/images", "{split}/masks", ""),
    "in a folder": ("set/images/{split}", "set/masks/{split}", "set/"),
    "below cities": ("images/{split}/ulm", "annotations/{split}/ulm", ""),
    "camvid": ("{split}", "{split}annot", ""),
    "camvid in a folder": ("CamVid/{split}", "CamVid/{split}annot", "CamVid/"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("names", [(), NAMES])
def test_images_and_masks_in_folders_are_matched_by_their_stems(
    tmp_path: Path, layout: str, names: tuple[str, ...]
) -> None:
    images, maps = images_of(10), maps_of(10)
    *folders, home = LAYOUTS[layout]
    for split, rows in SPLITS.items():
        write_maps(tmp_path, images[rows], maps[rows], [folder.format(split=split) for folder in folders])
    if names:
        write(tmp_path / home / "classes.txt", "\n".join(names).encode() + b"\n\n")
    (tmp_path / "notes.md").write_text("who drew what")
    found = read(tmp_path)
    assert same(found, images, maps)
    assert found.train.class_names == (names or ("class 0", "class 1", "class 2"))
    parts = found.reading.parts
    assert {role: (part.images, part.files) for role, part in parts.items()} == {
        "train": (5, 10 + bool(names)),
        "validation": (2, 4),
        "test": (3, 6),
    }
    assert found.reading.passed_over == {"files that are no images, Parquet or Arrow": (1, "notes.md")}


def test_without_splits_images_are_held_out(tmp_path: Path) -> None:
    """A share of all images, each with its own map."""
    images, maps = images_of(20), maps_of(20)
    write_maps(tmp_path, images, maps)
    splits = split_up(tmp_path, test_fraction=0.2, val_fraction=0.25)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [12, 4, 4]
    pairs = zip(channels_first(images).numpy(), maps, strict=True)
    map_of = {image.tobytes(): classes.tobytes() for image, classes in pairs}
    seen = []
    for part in (splits.train, splits.val, splits.test):
        for row in part.rows:
            seen.append(part.images[row].numpy().tobytes())
            assert map_of[seen[-1]] == part.labels[row].numpy().tobytes()
    assert len(set(seen)) == 20


def test_of_one_image_none_is_held_out(tmp_path: Path) -> None:
    write_maps(tmp_path, images_of(1), maps_of(1))
    assert "has 1 image(s), and the test set takes all: there is no test split" in refusal(tmp_path)


def test_a_split_map_names_folders_of_images(tmp_path: Path) -> None:
    images, maps = images_of(12), maps_of(12)
    for number, fold in enumerate(("one", "two", "three")):
        rows = slice(4 * number, 4 * number + 4)
        write_maps(tmp_path, images[rows], maps[rows], (f"images/{fold}", f"masks/{fold}"))
    found = read(tmp_path, split_map="train=two,test=one")
    assert np.array_equal(found.train.labels.numpy(), maps[4:8])
    assert np.array_equal(found.test.labels.numpy(), maps[:4])
    assert found.reading.passed_over == {"files outside the splits": (4, "images/three/000.png")} | {
        "masks of no image that is read": (4, "masks/three/000.png")
    }
    joined = read(tmp_path, split_map="train=two+three,test=one")
    assert np.array_equal(joined.train.labels.numpy(), maps[4:])
    write_maps(tmp_path / "of splits", images, maps, ("one", "oneannot"))
    write_maps(tmp_path / "of splits", images_of(12, seed=1), maps, ("two", "twoannot"))
    camvid = read(tmp_path / "of splits", split_map="train=one,test=two")
    assert torch.equal(camvid.train.images, channels_first(images))


@pytest.mark.parametrize("form", ["tables", "folders"])
def test_a_test_split_without_masks_is_left_aside(tmp_path: Path, form: str) -> None:
    images, maps = images_of(10), maps_of(10)
    for split, rows in SPLITS.items():
        if form == "tables":
            masks = [None] * 3 if split == "test" else [*map(encoded, maps[rows])]
            pq.write_table(map_table([*map(encoded, images[rows])], masks), tmp_path / f"{split}.parquet")
        else:
            write_maps(tmp_path, images[rows], maps[rows], (f"images/{split}", f"masks/{split}"))
    for path in (tmp_path / "masks" / "test").glob("*"):
        path.unlink()
    found = read(tmp_path)
    assert torch.equal(found.train.images[found.validation_from :], channels_first(images[SPLITS["val"]]))
    assert (found.validation_from, len(found.test.labels), found.reading.is_test_held_out) == (3, 2, True)
    assert "split 'test' has no labels and is left aside" in found.reading.notes
    assert "--data.split-map test=test: its images have no labels" in refusal(tmp_path, split_map="test=test")


def test_several_data_sets_side_by_side_are_not_joined(tmp_path: Path) -> None:
    images, maps = images_of(10), maps_of(10)
    write_maps(tmp_path / "near", images[:5], maps[:5])
    write_maps(tmp_path / "far", images[5:], maps[5:])
    assert "choose one with --data.config far" in refusal(tmp_path)
    found = read(tmp_path, config="far")
    assert {one.tobytes() for part in (found.train, found.test) for one in part.labels.numpy()} == {
        one.tobytes() for one in maps[5:]
    }
    assert sum(count for count, _ in found.reading.passed_over.values()) == 10


def test_folders_of_classes_are_read_as_ever_whatever_they_are_called(tmp_path: Path) -> None:
    """Masks below the folder of each class, and classes named as folders of masks are."""
    for name in ("covid", "normal"):
        write_maps(tmp_path / "lungs" / name, images_of(4, seed=len(name)), maps_of(4))
    assert read(tmp_path / "lungs", config=".").train.class_names == ("covid", "normal")
    for name in ("masks", "gloves"):
        write_maps(tmp_path / "wear", images_of(4, seed=len(name)), maps_of(4), (name, name))
    assert read(tmp_path / "wear").train.class_names == ("gloves", "masks")


@pytest.mark.parametrize("form", [palette, encoded])
def test_a_resized_map_takes_the_nearest_pixel(tmp_path: Path, form: Callable[[Images], bytes]) -> None:
    images, maps = images_of(10, size=12), maps_of(10, size=12, classes=9)
    for size in (5, 6, 17):
        path = tmp_path / f"{size}.parquet"
        pq.write_table(map_table([*map(encoded, images)], [*map(form, maps)]), path)
        found = read(path, image_size=size, image_height=size + 2)
        columns, rows = (np.floor((np.arange(n) + 0.5) * 12 / n).astype(int) for n in (size, size + 2))
        expected = {one[np.ix_(rows, columns)].tobytes() for one in maps}
        assert {one.tobytes() for part in (found.train, found.test) for one in part.labels.numpy()} == expected


TURNS: dict[int, Callable[[Images], Images]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_a_map_is_turned_as_its_image_is(tmp_path: Path, orientation: int) -> None:
    """Unless it has the size of the upright image already."""
    turn = TURNS[orientation]
    image, classes = images_of(1, size=8)[0, :5], maps_of(1, size=8)[0, :5]
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(buffer.getvalue()))))
    assert np.array_equal(upright, turn(image))
    masks = [palette(classes), encoded(classes)] + [encoded(turn(classes).copy())] * (orientation > 4)
    table = map_table([buffer.getvalue()] * len(masks), masks, NAMES)
    pq.write_table(table, tmp_path / "train.parquet")
    pq.write_table(table, tmp_path / "test.parquet")
    found = read(tmp_path)
    for one, labels in zip(found.train.images.numpy(), found.train.labels.numpy(), strict=True):
        assert np.array_equal(one, turn(image).transpose(2, 0, 1))
        assert np.array_equal(labels, turn(classes))


GOOD = maps_of(1)[0]
WRONG: dict[str, tuple[bytes | None, str]] = {
    "another size": (encoded(np.zeros((6, 5), np.uint8)), "a mask of 5x6 pixels, and its image has 6x6"),
    "an index too large": (encoded(np.full((6, 6), 7, np.uint8)), "has the class index 7, outside of the 3 classes"),
    "colours": (PNG, "a mask in colours (mode RGB); write class indices; of a palette image save mode P"),
    "more classes than 8 bits": (encoded(np.full((6, 6), 300, np.uint16)), "a mask with more than 8 bits a pixel"),
    "lossy": (encoded(GOOD, "jpeg"), "a mask as JPEG, which changes class indices; write it as PNG"),
    "broken": (encoded(GOOD)[:50], "a broken mask ("),
    "no mask": (None, "mask"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("form", ["table", "folder"])
def test_a_wrong_mask_is_refused_by_its_place(tmp_path: Path, name: str, form: str) -> None:
    mask, said = WRONG[name]
    images, masks = [*map(encoded, images_of(4))], [*map(encoded, maps_of(4))]
    if form == "table":
        path = tmp_path / "one.parquet"
        pq.write_table(map_table(images, [*masks[:2], mask, masks[3]], NAMES), path)
        message, place = refusal(path), f"{path} row 2"
        assert ", column annotation: " in message or mask is None
    else:
        write_maps(tmp_path, images_of(4), maps_of(4))
        write(tmp_path / "classes.txt", "\n".join(NAMES).encode())
        changed = tmp_path / "masks" / "002.png"
        changed.unlink() if mask is None else changed.write_bytes(mask)
        message, place = refusal(tmp_path), str(tmp_path / ("images" if mask is None else "masks") / "002.png")
    assert message.startswith(place)
    assert said in message
    assert "\n" not in message


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(st.data())
def test_no_mask_however_damaged_gives_anything_but_a_map_or_a_refusal(data: st.DataObject) -> None:
    content = bytearray(encoded(maps_of(1, size=12)[0], data.draw(st.sampled_from(["png", "tiff", "bmp", "gif"]))))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]
    try:
        found = decode_mask(Mask("the place", bytes(content)), (12, 12), data.draw(st.integers(1, 8)), None, 3)
        is_map, said = found.shape == (12, 12) and bool(((found < 3) | (found == 255)).all()), ""
    except UserError as error:
        is_map, said = False, str(error)
    assert is_map or said.startswith("the place: ")


def test_a_mask_without_an_image_is_named(tmp_path: Path) -> None:
    write_maps(tmp_path, images_of(10), maps_of(10))
    (tmp_path / "images" / "004.png").unlink()
    assert f"{tmp_path}/masks/004.png: a mask without an image; bring an image with the stem '004'" in refusal(tmp_path)
    write(tmp_path / "images" / "004.png", PNG)
    write(tmp_path / "annotations" / "004.png", encoded(GOOD))
    assert "is a second mask of one image, beside annotations/004.png" in refusal(tmp_path)


def test_maps_that_tell_of_no_classes_are_refused(tmp_path: Path) -> None:
    images, path = [*map(encoded, images_of(4))], tmp_path / "one.parquet"
    for value, names, said in [
        (255, NAMES, "row 0: its mask, and every other one of its part, is 255, void, throughout; write class indices"),
        (255, (), "row 0: its mask, and every other one of its part, is 255, void, throughout; write class indices"),
        (0, (), "all pixels of its masks are of class 0 or 255, void; of an object and its ground write 1 and 0"),
        (0, [*map(str, range(256))], "has 256 classes; label maps have at most 255, 0 to 254, since 255 is void"),
    ]:
        pq.write_table(map_table(images, [encoded(np.full((6, 6), value, np.uint8))] * 4, names), path)
        assert said in refusal(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("ground\ncat\nground\n", "classes.txt line 3: 'ground' is not the name of one more class"),
        ("ground\n\ncat\n", "classes.txt line 2: '' is not the name of one more class"),
        ("\n".join(map(str, range(256))), "has 256 classes; label maps have at most 255"),
        ("ground\ncat\n", "has the class index 2, outside of the 2 classes, which are 0 to 1; mend it, or write 255"),
    ],
)
def test_a_wrong_list_of_classes_is_refused(tmp_path: Path, content: str, said: str) -> None:
    write_maps(tmp_path, images_of(4), maps_of(4))
    write(tmp_path / "classes.txt", content.encode())
    assert said in refusal(tmp_path)


def test_splits_with_classes_beside_splits_with_maps_are_refused(tmp_path: Path) -> None:
    images = [*map(encoded, images_of(10))]
    pq.write_table(map_table(images, [*map(encoded, maps_of(10))]), tmp_path / "train.parquet")
    table = map_table(images, [None] * 10).drop_columns("annotation").append_column("label", pa.array([0] * 10))
    pq.write_table(table, tmp_path / "test.parquet")
    assert "test.parquet: its column label holds classes, and that of the training images label maps" in refusal(
        tmp_path
    )


def test_a_mask_that_changes_is_read_again(tmp_path: Path) -> None:
    write_maps(tmp_path, images_of(10), maps_of(10))
    before = read(tmp_path)
    path = tmp_path / "masks" / "000.png"
    path.write_bytes(encoded(maps_of(1, seed=5)[0]))
    assert before.fingerprint != read(tmp_path).fingerprint


@pytest.mark.skipif(not CAMVID.exists(), reason=f"{CAMVID} is not on this machine")
def test_camvid_has_the_pixels_that_pillow_counts() -> None:
    splits = split_up(CAMVID)
    names = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
    assert splits.class_names == names
    for split, part in {"train": splits.train, "validation": splits.val, "test": splits.test}.items():
        counts = np.zeros(256, dtype=np.int64)
        for row in pq.read_table(CAMVID / f"{split}.parquet", columns=["annotation"])["annotation"].to_pylist():
            counts += Image.open(io.BytesIO(row["bytes"])).histogram()
        assert part.class_counts() == counts[:11].tolist()
        assert counts[:11].sum() + counts[255] == counts.sum() == len(part) * 240 * 180
    assert splits.imbalance_ratio == pytest.approx(109.1, abs=0.05)


def test_the_defaults_of_label_maps_are_theirs_alone() -> None:
    maps = Config.preset("some/folder", "segmentation")
    assert (maps.task, maps.model.name, maps.model.channels, maps.data.source) == (
        "segmentation",
        "small-unet",
        16,
        "some/folder",
    )
    assert (maps.attack.eps, maps.attack.steps, maps.balance.teacher_gamma) == (4 / 255, 3, 1.0)
    assert Config.preset("some/folder") == Config.preset("some/folder", "classification")
    assert Config.preset("digits-scenes", "segmentation") == Config.preset("digits-scenes")


def test_the_command_line_trains_on_label_maps_without_being_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "source", tmp_path / "one.pt"
    write_maps(source, images_of(16, size=24), maps_of(16, size=24))
    assert main(["data", str(source), "--picture", str(tmp_path / "data.png")]) == 0
    flags = ["--data", str(source), "--epochs", "1", "--teacher.epochs", "1", "--attack.steps", "1"]
    flags += ["--evaluate.steps", "1", "--model.width", "8", "--out", str(out)]
    assert main(["train", *flags]) == 0
    assert "ltsd epoch 1/1 " in capsys.readouterr().out
    content = load_checkpoint(out)
    trained = Config().override(content["config"])
    preset = Config.preset(str(source), "segmentation")
    assert {name for name, value in trained.flatten().items() if value != preset.flatten()[name]} == {
        "epochs",
        "teacher.epochs",
        "attack.steps",
        "evaluate.steps",
        "model.width",
    }
    assert content["class_counts"] == split_up(source).train.class_counts()
    out.unlink()
    (tmp_path / "one.teacher.pt").unlink()
    with pytest.raises(UserError, match=r"--task classification: wants a label for an image, .* give --task segment"):
        main(["train", *flags, "--task", "classification"])
