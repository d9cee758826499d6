"""The maps of a segmentation checkpoint for images of one's own, and the checkpoint in other formats."""

import csv
import io
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ltsd.__main__ import main
from ltsd.answers import VOID
from ltsd.checkpoint import load_checkpoint, save_checkpoint
from ltsd.config import AttackConfig, Config
from ltsd.data import Splits, load_splits
from ltsd.errors import UserError
from ltsd.flags import exit_code_of
from ltsd.map_pictures import class_colours, palette
from ltsd.predict_maps import check_folder, name_of, predict_maps, write_maps
from ltsd.runs import load_model, open_run

CPU = torch.device("cpu")
SHAPE = (1, 8, 8)


class Bright(nn.Module):
    """Of three classes: a pixel is of class 2 if it is brighter than 0.5, of class 0 if darker, and never of class 1.

    There is no answer at the brightest ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sharp = nn.Parameter(torch.tensor(10.0))

    def forward(self, inputs: Tensor) -> Tensor:
        bright = self.sharp * (inputs[:, 0] - 0.5)
        logits = torch.stack([-bright, torch.full_like(bright, -99), bright], -1)
        return torch.where(inputs[:, 0, :, :, None] > 0.98, torch.nan, logits)


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos: one of the model's size in four parts, one of another size; one that is a row of a table."""
    parts = np.zeros((8, 8), dtype=np.uint8)
    parts[:4, 4:], parts[4:, :4], parts[4:, 4:] = 120, 200, 255
    random = np.random.RandomState(0)
    (tmp_path / "photos" / "new").mkdir(parents=True)
    (tmp_path / "photos" / "parts.png").write_bytes(encoded(parts))
    (tmp_path / "photos" / "new" / "large.png").write_bytes(encoded(random.randint(0, 250, (24, 40)).astype(np.uint8)))
    row = pa.array([{"bytes": encoded(parts), "path": None}])
    pq.write_table(pa.table({"image": row}), tmp_path / "photos" / "rows.parquet")
    return tmp_path


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_map_holds_indices_and_looks_as_the_pictures_do(folder: Path) -> None:
    predictions = predict_maps(Bright(), SHAPE, [str(folder / "photos")], attack=AttackConfig(eps=0.05))
    assert write_maps(predictions, ["dark", "never", "bright"], folder / "maps") == 3
    written = sorted(str(path.relative_to(folder / "maps")) for path in (folder / "maps").rglob("*.*"))
    names = ["new/large", "parts", "rows.parquet-row-0"]
    assert written == sorted([*(f"{name}{end}.png" for name in names for end in ("", ".falls")), "classes.csv"])
    expected = np.zeros((8, 8), dtype=np.uint8)
    expected[4:, :4], expected[4:, 4:] = 2, VOID
    falls = np.zeros((8, 8), dtype=np.uint8)
    falls[:4, 4:], falls[4:, 4:] = 255, 255  # 120 / 255 is within 0.05 of 0.5; where there is no answer, none stands
    for name in names[1:]:
        with Image.open(folder / "maps" / f"{name}.png") as image:
            assert image.mode == "P"
            assert np.array_equal(np.asarray(image.convert("RGB")), palette(3)[expected])
        assert np.array_equal(read(folder / "maps" / f"{name}.png"), expected)
        assert np.array_equal(read(folder / "maps" / f"{name}.falls.png"), falls)


def test_a_map_has_the_size_of_its_image_and_of_each_pixel_the_class_of_the_nearest(folder: Path) -> None:
    path = folder / "photos" / "new" / "large.png"
    (found,) = predict_maps(Bright(), SHAPE, [str(path)], attack=None)
    assert (found.name, found.falls) == ("large", None)
    with Image.open(path) as image:
        small = np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BILINEAR))[..., 0]
    rows, columns = (((np.arange(length) + 0.5) * 8 / length).astype(int) for length in (24, 40))
    expected = 2 * (small / 255 > 0.5)[np.ix_(rows, columns)]
    assert found.classes.shape == (24, 40)
    assert 0 < expected.mean() < 2
    assert np.array_equal(found.classes, expected)


def test_the_table_has_the_share_of_each_class_of_all_pixels(folder: Path) -> None:
    sources = [str(folder / "photos" / name) for name in ("parts.png", "rows.parquet")]
    (folder / "photos" / "new" / "dark.png").write_bytes(encoded(np.zeros((16, 16), dtype=np.uint8)))
    sources.append(str(folder / "photos" / "new" / "dark.png"))
    write_maps(predict_maps(Bright(), SHAPE, sources, attack=None), ["dark", "never", "b,right"], folder / "maps")
    rows = list(csv.DictReader((folder / "maps" / "classes.csv").open(encoding="utf-8")))
    pixels = 64 + 64 + 256
    shares = [(32 + 32 + 256) / pixels, 0, (16 + 16) / pixels]
    assert [float(row["share"]) for row in rows] == pytest.approx(shares, abs=1e-6)
    assert [(row["index"], row["name"]) for row in rows] == [("0", "dark"), ("1", "never"), ("2", "b,right")]
    assert [bytes.fromhex(row["colour"][1:]) for row in rows] == [colour.tobytes() for colour in class_colours(3)]


@pytest.mark.parametrize(
    ("image", "source", "name"),
    [
        ("/a/b/c.d/e.JPG", "/a/b", "c.d/e"),
        ("/a/b/e.f.png", "/a/b/", "e.f"),
        ("/a/b.png", "/a/b.png", "b"),
        ("/a/b/c.parquet row 12", "/a", "b/c.parquet-row-12"),
        ("/a row 1/c.arrow row 0", "/a row 1/c.arrow", "c.arrow-row-0"),
        ("s3://bucket/a/b/c.png", "s3://bucket/a?scheme=http", "b/c"),
    ],
)
def test_a_map_is_named_after_its_image_below_the_source(image: str, source: str, name: str) -> None:
    assert name_of(image, source) == name


def test_no_two_maps_or_masks_have_a_name(folder: Path) -> None:
    content = (folder / "photos" / "parts.png").read_bytes()
    for name in ("parts.bmp", "parts.falls.png", "parts-2.png"):
        (folder / "photos" / name).write_bytes(content)
    sources = [str(folder / "photos" / "parts.png"), str(folder / "photos")]
    names = [one.name for one in predict_maps(Bright(), SHAPE, sources, attack=None)]
    files = [name + end for name in names for end in ("", ".falls")]
    assert len(set(files)) == len(files) == 2 * 7
    assert names[0] == "parts"


@pytest.mark.parametrize(
    ("out", "told"),
    [
        (None, "--out: a segmentation model answers with a PNG for each image; give a folder for them"),
        ("a.csv", "a.csv: a segmentation model answers with a PNG for each image; give a folder for them"),
        ("a.json", "a.json: a segmentation model answers with a PNG for each image; give a folder for them"),
        ("photos", "photos: is not empty; give another folder"),
        ("photos/maps", "photos/maps: would be among the images that are read; give a folder elsewhere"),
        ("photos/parts.png", "cannot be made"),
    ],
)
def test_what_is_no_folder_for_maps_is_refused(folder: Path, out: str | None, told: str) -> None:
    sources = [str(folder / "photos" / ("new" if out == "photos/parts.png" else ""))]
    with pytest.raises(UserError, match=told):
        check_folder(None if out is None else folder / out, sources)
    assert len(list(folder.rglob("*.*"))) == 3


@pytest.fixture(scope="module")
def scenes() -> Splits:
    return load_splits(Config.preset("digits-scenes").data)


@pytest.fixture(scope="module")
def checkpoint(scenes: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network on the scenes after an epoch."""
    changed = {"method": "at-bsl", "epochs": 1, "attack.steps": 1, "model.width": 8, "optim.ema_decay": 0.9}
    config = Config.preset("digits-scenes").override(changed)
    train = scenes.train.select(scenes.train.rows[:64])
    run = open_run(config, scenes, train, None, CPU, teacher=None, resume=None)
    next(run.epochs())
    path = tmp_path_factory.mktemp("scenes") / "one.pt"
    run.save(path)
    return path


def test_the_command_writes_what_the_checkpoint_answers(
    checkpoint: Path, scenes: Splits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_checkpoint(checkpoint)["config"]["task"] == "segmentation"
    inputs, _ = scenes.test.take(torch.arange(3))
    for number, image in enumerate((255 * inputs).byte()):
        (tmp_path / f"{number}.png").write_bytes(encoded(image[0].numpy()))
    sources = [str(tmp_path / f"{number}.png") for number in range(3)]
    arguments = ["predict", str(checkpoint), *sources, "--attack", "--eps", "4/255", "--out", str(tmp_path / "maps")]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"saved maps of 3 image(s) and classes.csv in {tmp_path / 'maps'}\n"
    logits = load_model(checkpoint, CPU)[0](inputs)
    best = logits.topk(2).values
    is_clear = best[..., 0] - best[..., 1] > 1e-4  # rounding decides between the others
    assert is_clear.float().mean() > 0.99
    maps = torch.stack([torch.from_numpy(read(tmp_path / "maps" / f"{number}.png").copy()) for number in range(3)])
    assert torch.equal(maps[is_clear], logits.argmax(-1)[is_clear].byte())
    falls = np.stack([read(tmp_path / "maps" / f"{number}.falls.png") for number in range(3)])
    assert set(np.unique(falls)) == {0, 255}
    assert exit_code_of(lambda: main([*arguments[:-1], str(tmp_path / "maps.csv")])) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_checkpoint_from_before_there_were_tasks_classifies(
    splits: Splits, small: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = open_run(small.override({"method": "at"}), splits, splits.train, None, CPU, teacher=None, resume=None)
    run.save(tmp_path / "one.pt")
    content = load_checkpoint(tmp_path / "one.pt")
    del content["config"]["task"]
    save_checkpoint(tmp_path / "one.pt", content)
    (tmp_path / "a.png").write_bytes(encoded(np.zeros((8, 8), dtype=np.uint8)))
    assert main(["predict", str(tmp_path / "one.pt"), str(tmp_path / "a.png")]) == 0
    assert capsys.readouterr().out.startswith("image,label,stands,0,1,")


@pytest.mark.parametrize("to", ["onnx", "torch-export"])
def test_an_exported_file_answers_every_pixel_of_any_number_of_images(
    checkpoint: Path, scenes: Splits, tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out"
    assert main(["export", str(checkpoint), "--to", to, "--out", str(path)]) == 0
    assert capsys.readouterr().out.startswith("compared on test images: 48 of 48 have the same class")
    for count in (1, 3):
        images, _ = scenes.test.take(torch.arange(count))
        if to == "onnx":
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            found = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
        else:
            with path.open("rb") as file:
                found = torch.export.load(file).module()(images)
        assert found.shape == (count, 32, 32, 11)
        torch.testing.assert_close(found, load_model(checkpoint, CPU)[0](images), rtol=1e-4, atol=1e-3)
