"""The answers of a checkpoint to images of one's own."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

from ltsd.__main__ import main as command_line
from ltsd.attacks.domains import PIXELS
from ltsd.config import AttackConfig, Config
from ltsd.data import Splits
from ltsd.data.items import READERS
from ltsd.errors import UserError
from ltsd.evaluation.evaluate import clean_correctness, standing_correctness
from ltsd.flags import exit_code_of
from ltsd.predict import predict
from ltsd.runs import open_run
from ltsd.tasks.classification import VALIDATION_LOSSES

CPU = torch.device("cpu")
CLASSES = tuple(str(digit) for digit in range(10))


def png(image: torch.Tensor) -> bytes:
    """A grey image [1, H, W] uint8, encoded."""
    buffer = io.BytesIO()
    Image.fromarray(image[0].numpy()).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, splits: Splits) -> Path:
    """The first twenty test images as files, with a note beside them; and as rows of a Parquet file without labels."""
    path = tmp_path_factory.mktemp("images")
    encoded = [png(splits.test.images[row]) for row in splits.test.rows[:20].tolist()]
    (path / "photos" / "new").mkdir(parents=True)
    (path / "photos" / "notes.txt").write_text("not an image")
    for number, content in enumerate(encoded):
        (path / "photos" / "new" / f"{number:02d}.png").write_bytes(content)
    pq.write_table(
        pa.table({"image": [{"bytes": content, "path": None} for content in encoded]}), path / "rows.parquet"
    )
    return path


def test_files_and_rows_have_the_answers_that_the_test_set_has(
    folder: Path, splits: Splits, trained: nn.Module
) -> None:
    sources = [str(folder / "photos"), str(folder / "rows.parquet")]
    attack = AttackConfig(eps=0.05)
    found = list(predict(trained.eval(), (1, 8, 8), CLASSES, sources, config=Config(), attack=attack))
    part = splits.test.select(splits.test.rows[:20])
    labels = part.labels[part.rows]
    right = clean_correctness(trained, part).right
    *_, worst = standing_correctness(
        trained, part, VALIDATION_LOSSES, domain=PIXELS, eps=0.05, step_size=attack.resolved_step_size, steps=20, seed=0
    ).values()
    for answers in (found[:20], found[20:]):
        assert [one.label == str(label) for one, label in zip(answers, labels.tolist(), strict=True)] == right.tolist()
        assert all(sum(one.probabilities) == pytest.approx(1) for one in answers)
        # Where the answer is right, the attack on it is that on the label.
        stood = [one.stands for one in answers]
        assert [stands for stands, is_right in zip(stood, right, strict=True) if is_right] == worst.right[
            right
        ].tolist()
    assert [Path(one.item).name for one in found[:2]] == ["00.png", "01.png"]
    assert found[21].item.endswith("rows.parquet row 1")


def test_the_command_writes_csv_and_json_of_the_same(
    folder: Path, small: Config, splits: Splits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = open_run(small.override({"method": "at"}), splits, splits.train, None, CPU, teacher=None, resume=None)
    run.save(tmp_path / "one.pt")
    photos = str(folder / "photos")
    assert command_line(["predict", str(tmp_path / "one.pt"), photos, "--attack", "--eps", "8/255"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert command_line(["predict", str(tmp_path / "one.pt"), photos, "--out", str(tmp_path / "all.json")]) == 0
    told = json.loads((tmp_path / "all.json").read_text())
    assert [row["image"] for row in rows] == [one["image"] for one in told]
    assert [row["label"] for row in rows] == [one["label"] for one in told]
    assert {row["stands"] for row in rows} <= {"true", "false"}
    assert {one["stands"] for one in told} == {None}
    for row, one in zip(rows, told, strict=True):
        assert [float(row[name]) for name in CLASSES] == pytest.approx([*one["probabilities"].values()], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("broken.png", b"\x89PNG\r\n", "broken.png: a broken image"),
        ("notes.txt", b"words", "holds no image, and no Parquet or Arrow file"),
        ("rows.parquet", b"PAR1", "rows.parquet is not a Parquet or Arrow file, or was cut short"),
    ],
)
def test_what_is_no_image_is_told_and_nothing_is_written(
    tmp_path: Path,
    small: Config,
    splits: Splits,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes,
    told: str,
) -> None:
    run = open_run(small.override({"method": "at"}), splits, splits.train, None, CPU, teacher=None, resume=None)
    run.save(tmp_path / "one.pt")
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "new" / "answers.csv"
    arguments = ["predict", str(tmp_path / "one.pt"), str(tmp_path / name), "--out", str(out)]
    assert exit_code_of(lambda: command_line(arguments)) == 2
    assert told in capsys.readouterr().err
    assert not out.parent.exists()


def test_answers_never_overwrite_what_is_read(
    folder: Path, tmp_path: Path, small: Config, splits: Splits, capsys: pytest.CaptureFixture[str]
) -> None:
    run = open_run(small.override({"method": "at"}), splits, splits.train, None, CPU, teacher=None, resume=None)
    checkpoint = tmp_path / "one.pt"
    run.save(checkpoint)
    before = checkpoint.read_bytes()
    for flags in (
        ["predict", str(checkpoint), str(folder), "--out", str(checkpoint)],
        ["predict", str(checkpoint), str(folder), "--out", str(folder / "rows.parquet")],
        ["evaluate", str(checkpoint), "--json", str(checkpoint)],
    ):
        assert exit_code_of(lambda flags=flags: command_line(flags)) == 2
        assert "is among what is read, and would be overwritten" in capsys.readouterr().err
    same = str(tmp_path / "same")
    assert exit_code_of(lambda: command_line(["evaluate", str(checkpoint), "--json", same, "--card", same])) == 2
    assert "would be written twice" in capsys.readouterr().err
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize("eps", ["1/0", "wide"])
def test_a_radius_that_is_no_number_is_told(eps: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(lambda: command_line(["predict", "one.pt", "photos", "--attack", "--eps", eps])) == 2
    told = f"error: --eps {eps}: expected a number or a fraction such as 8/255\n"
    assert capsys.readouterr().err == told


def test_a_path_that_is_not_there_is_told_without_the_names_of_data_sets() -> None:
    with pytest.raises(UserError) as refused:
        list(READERS["image"].encoded("digits"))
    assert str(refused.value) == "digits: no such file or folder; give files or folders that hold images"


def test_a_column_without_images_is_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "words.parquet")
    with pytest.raises(UserError, match="has no column image or img; it has text"):
        list(READERS["image"].encoded(str(tmp_path / "words.parquet")))
