"""The model that a sweep registers answers encoded images as `ltsd predict` does."""

import ast
import io
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from PIL import ExifTags, Image
from soundsets import RATE, tone
from soundsets import encoded as encode_sound
from textsets import texts_of
from torch import nn

from ltsd.config import Config, ModelConfig
from ltsd.data.vocabulary import Vocabulary
from ltsd.errors import UserError
from ltsd.evaluation.detections import Detections
from ltsd.export import export_model
from ltsd.models import build_model
from ltsd.models.unet import ChannelsLast
from ltsd.predict import predict
from ltsd.predict_maps import predict_maps
from sweeps.tracking.model import SERVINGS, SIGNATURES
from sweeps.tracking.model import __file__ as model_file
from sweeps.tracking.served import LEAST_SCORE, pixels_of

NAMES = ("cat", "dog", "eel")
SHAPES = ((1, 8, 8), (3, 8, 8), (3, 6, 10))
Model = tuple[nn.Module, Any, tuple[int, int, int]]


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def colours(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def turned(width: int, height: int) -> bytes:
    """A JPEG with an orientation tag, as a camera that is held upright writes it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return encoded(colours(width, height), "JPEG", exif=exif)


KINDS: dict[str, Callable[[int, int], bytes]] = {
    "colour.png": lambda *size: encoded(colours(*size)),
    "grey.png": lambda *size: encoded(colours(*size).convert("L")),
    "palette.png": lambda *size: encoded(colours(*size).convert("P")),
    "transparent.png": lambda *size: encoded(colours(*size).convert("RGBA")),
    "two.png": lambda *size: encoded(colours(*size).convert("1")),
    "colour.jpg": lambda *size: encoded(colours(*size), "JPEG"),
    "cmyk.jpg": lambda *size: encoded(colours(*size).convert("CMYK"), "JPEG"),
    "turned.jpg": lambda *size: turned(*reversed(size)),
}


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A network whose probabilities tell one grey level of one pixel, its model as MLflow loads it, and its shape."""
    shape = request.param
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), len(NAMES)))
    nn.init.normal_(network[1].weight, std=0.2)
    network.eval().requires_grad_(False)
    return network, served_from(tmp_path_factory.mktemp("model"), network, shape, "classification"), shape


def served_file(task: str) -> Path:
    """What MLflow runs."""
    (column,) = SIGNATURES[task].inputs.input_names()
    return Path(model_file).with_name(SERVINGS[column].file)


def served_from(
    folder: Path, network: nn.Module, shape: tuple[int, ...], task: str, vocabulary: Vocabulary | None = None
) -> Any:
    """A network as MLflow loads it from a folder."""
    config, words = {"method": "at", "task": task, "data.sampling_rate": RATE}, vocabulary and asdict(vocabulary)
    about = {"config": config, "class_names": NAMES, "shape": shape, "vocabulary": words}
    inputs = torch.rand(3, *shape) if vocabulary is None else torch.ones(3, shape[-1], dtype=torch.int32)
    export_model(network, about, "torch-export", folder / "network.pt2", inputs)
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=str(served_file(task)),
        artifacts={"network": str(folder / "network.pt2")},
        signature=SIGNATURES[task],
        pip_requirements=["mlflow"],
    )
    return mlflow.pyfunc.load_model(str(folder / "model"))


def table(*images: bytes | None) -> pd.DataFrame:
    return pd.DataFrame({"image": list(images)})


def test_answers_are_those_of_predict(model: Model, tmp_path: Path) -> None:
    network, served, shape = model
    _, height, width = shape
    sizes = [(width, height)] + ([(31, 20), (3, 5)] if height == width else [(2 * width, 2 * height), (35, 21)])
    files = [tmp_path / f"{number}-{kind}" for number in range(len(sizes)) for kind in KINDS]
    for file in files:
        number, kind = file.name.split("-")
        file.write_bytes(KINDS[kind](*sizes[int(number)]))
    expected = list(predict(network, shape, NAMES, map(str, files), config=Config(), attack=None))
    found = served.predict(table(*(file.read_bytes() for file in files)))
    assert list(found.columns) == ["class", "probability", "probabilities"]
    assert list(found["class"]) == [one.label for one in expected]
    for row, one in zip(found.itertuples(), expected, strict=True):
        assert tuple(row.probabilities) == NAMES
        assert tuple(row.probabilities.values()) == pytest.approx(one.probabilities, abs=1e-6)
        assert row.probability == max(row.probabilities.values())
    assert len({one.probabilities for one in expected}) > len(files) / 2, "the network tells the images apart"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_masks_are_those_of_predict(shape: tuple[int, int, int], tmp_path: Path) -> None:
    channels, height, width = shape
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(channels, len(NAMES), 3, padding=1), ChannelsLast()).eval().requires_grad_(False)
    served = served_from(tmp_path, network, shape, "segmentation")
    sizes = [(width, height)] + ([(31, 20), (3, 5)] if height == width else [(2 * width, 2 * height), (35, 21)])
    files = [tmp_path / f"{number}-{kind}" for number in range(len(sizes)) for kind in KINDS]
    for file in files:
        number, kind = file.name.split("-")
        file.write_bytes(KINDS[kind](*sizes[int(number)]))
    expected = list(predict_maps(network, shape, map(str, files), attack=None))
    found = served.predict(table(*(file.read_bytes() for file in files)))
    assert list(found.columns) == ["mask", "shares"]
    for row, one in zip(found.itertuples(), expected, strict=True):
        mask = np.asarray(Image.open(io.BytesIO(row.mask)))
        assert np.array_equal(mask, one.classes)
        assert sum(row.shares.values()) == pytest.approx(1)
        if mask.shape == (height, width):
            assert [row.shares[name] for name in NAMES] == pytest.approx(
                [(mask == c).mean() for c in range(len(NAMES))]
            )
    assert len({one.classes.tobytes() for one in expected}) > len(sizes), "the network tells the images apart"


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 24, 40)], ids=str)
def test_boxes_are_those_of_an_exam_in_pixels_of_the_image(shape: tuple[int, int, int], tmp_path: Path) -> None:
    channels, height, width = shape
    torch.manual_seed(0)
    network = build_model(ModelConfig(name="small-fcos", width=8), channels, len(NAMES)).eval().requires_grad_(False)
    network.head.box.bias[-1] = 3.0  # so that scores are those of classes, large enough to be told
    network.head.classes.weight.mul_(40)
    served = served_from(tmp_path, network, shape, "detection")
    images = [encoded(colours(scale * width, scale * height, seed)) for scale in (1, 2) for seed in range(4)]
    found = served.predict(table(*images))
    assert list(found.columns) == ["boxes"]
    for scale, image, boxes in zip([1] * 4 + [2] * 4, images, found["boxes"], strict=True):
        pixels, _ = pixels_of(image, 0, shape)
        answers = network(torch.from_numpy(pixels)[None].float() / 255)
        expected = Detections.of(answers, height, width)
        is_told = expected.scores >= LEAST_SCORE
        order = expected.scores[is_told].argsort(descending=True)
        corners = scale * expected.boxes[is_told][order]
        assert [one["class"] for one in boxes] == [NAMES[c] for c in expected.classes[is_told][order].tolist()]
        assert [one["score"] for one in boxes] == pytest.approx(expected.scores[is_told][order].tolist(), abs=1e-5)
        told = [[one[name] for name in ("x0", "y0", "x1", "y1")] for one in boxes]
        assert np.allclose(np.array(told).reshape(-1, 4), corners.numpy(), atol=1e-3)
    assert sum(map(len, found["boxes"])) > len(images)


@pytest.mark.parametrize("model", SHAPES[:1], indirect=True, ids=str)
def test_there_may_be_more_images_than_are_decoded_at_once_or_none(model: Model) -> None:
    _, served, _ = model
    images = [encoded(colours(8, 8, seed)) for seed in range(150)]
    together = served.predict(table(*images))
    alone = [served.predict(table(image)) for image in images]
    pd.testing.assert_frame_equal(together, pd.concat(alone, ignore_index=True), check_exact=False, atol=1e-6)
    assert served.predict(table(*images[:1]).iloc[:0]).shape == (0, 3)


@pytest.mark.parametrize("model", SHAPES[2:], indirect=True, ids=str)
@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"words",
        encoded(colours(10, 6))[:80],
        encoded(Image.fromarray(np.zeros((6, 10), dtype=np.uint16))),
        encoded(Image.new("1", (4097, 4096))),
        encoded(Image.new("1", (20_000, 20_000))),
        encoded(colours(10, 7)),
    ],
    ids=["empty", "words", "cut", "16 bits", "large", "enormous", "another size"],
)
def test_what_predict_refuses_is_refused_for_the_same_reason_with_its_row(
    model: Model, tmp_path: Path, broken: bytes
) -> None:
    network, served, shape = model
    file = tmp_path / "one.png"
    file.write_bytes(broken)
    with pytest.raises(UserError) as expected:
        list(predict(network, shape, NAMES, [str(file)], config=Config(), attack=None))
    with pytest.raises(MlflowException) as found:
        served.predict(table(*[encoded(colours(10, 6))] * 70, broken))
    assert found.value.message == f"row 70: {str(expected.value).removeprefix(f'{file}: ')}"
    assert found.value.error_code == "INVALID_PARAMETER_VALUE"  # status 400 of a server


def test_clips_of_sound_have_the_answers_of_predict_and_what_is_none_is_refused(tmp_path: Path) -> None:
    """Also resampled, of two channels, cut and padded."""
    torch.manual_seed(0)
    network, shape = nn.Sequential(nn.Flatten(), nn.Linear(800, len(NAMES))).eval().requires_grad_(False), (1, 800)
    clips = [tone(600, samples=samples, seed=samples) for samples in (300, 800, 900)]
    contents = [encode_sound(clip) for clip in clips] + [encode_sound(clips[0], kind="FLAC")]
    contents += [encode_sound(np.stack([clips[0], clips[0]], 1)), encode_sound(clips[1], rate=16000)]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.wav").write_bytes(content)
    config = Config.preset(str(tmp_path), "speech")
    expected = list(predict(network, shape, NAMES, [str(tmp_path)], config=config, attack=None))
    served = served_from(tmp_path, network, shape, "speech")
    found = served.predict(pd.DataFrame({"audio": contents}))
    assert list(found["class"]) == [one.label for one in expected]
    for row, one in zip(found["probabilities"], expected, strict=True):
        assert list(row.values()) == pytest.approx(one.probabilities, abs=1e-6)
    for content in (b"no sound", encode_sound(np.zeros(500))):
        with pytest.raises(MlflowException, match="row 1: "):
            served.predict(pd.DataFrame({"audio": [contents[0], content]}))


def test_texts_have_the_answers_of_predict_and_one_without_a_known_word_is_refused(tmp_path: Path) -> None:
    """Also cut and padded, and more than are in memory at a time."""
    vocabulary = Vocabulary.of(texts_of(0, 50) + texts_of(1, 50), 200, 8)
    torch.manual_seed(0)
    size, shape = vocabulary.vectors.shape[1], (vocabulary.vectors.shape[1], 8)
    network = nn.Sequential(nn.Flatten(), nn.Linear(8 * size, len(NAMES))).eval().requires_grad_(False)
    texts = [*texts_of(1, 4), "PIN", " ".join(texts_of(0, 5)), *["lost card"] * 1000]
    (tmp_path / "lines.txt").write_text("\n".join(texts))
    config = Config.preset(str(tmp_path), "text")
    lines = [str(tmp_path / "lines.txt")]
    expected = list(predict(network, shape, NAMES, lines, config=config, attack=None, vocabulary=vocabulary))
    served = served_from(tmp_path, network, shape, "text", vocabulary)
    found = served.predict(pd.DataFrame({"text": texts}))
    assert list(found["class"]) == [one.label for one in expected]
    for row, one in zip(found["probabilities"], expected, strict=True):
        assert list(row.values()) == pytest.approx(one.probabilities, abs=1e-6)
    with pytest.raises(MlflowException):
        served.predict(pd.DataFrame({"text": ["lost card", None]}))
    for text in ("", "12 34"):
        with pytest.raises(MlflowException, match="row 1: a text without a word that is known"):
            served.predict(pd.DataFrame({"text": ["lost card", text]}))


@pytest.mark.parametrize("column", SERVINGS)
def test_the_file_that_mlflow_runs_needs_nothing_of_this_project(column: str) -> None:
    serving = SERVINGS[column]
    nodes = list(ast.walk(ast.parse(Path(model_file).with_name(serving.file).read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    needed = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    assert needed == {"PIL" if package == "pillow" else package for package in serving.packages}
