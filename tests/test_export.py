"""Networks in other formats: they answer as the checkpoint does, and a file that would not is not written."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from ltsd import __version__
from ltsd.__main__ import main
from ltsd.checkpoint import load_checkpoint, save_checkpoint
from ltsd.config import Config
from ltsd.data import Splits
from ltsd.export import ExportError, export_model
from ltsd.flags import exit_code_of
from ltsd.runs import load_model, open_run

CPU = torch.device("cpu")
DIGITS = [str(digit) for digit in range(10)]
NETWORKS = [
    ("at", "small-cnn"),
    ("robal", "small-cnn"),  # a head of its own: cosines
    pytest.param(("at", "preact-resnet18"), marks=pytest.mark.slow),  # the other kind of block
]


@pytest.fixture
def checkpoint(tmp_path: Path, small: Config, splits: Splits, request: pytest.FixtureRequest) -> Path:
    """The checkpoint of a network with the running statistics of an epoch: by default a small one of AT."""
    method, name = getattr(request, "param", ("at", "small-cnn"))
    changed = {"method": method, "model.name": name, "attack.steps": 1, "optim.batch_size": 64}
    run = open_run(small.override(changed), splits, splits.train, None, CPU, teacher=None, resume=None)
    next(run.epochs())
    path = tmp_path / "one.pt"
    run.save(path)
    return path


def run_onnx(path: Path, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def run_torch(path: Path, images: Tensor) -> Tensor:
    logits: Tensor = torch.export.load(path).module()(images)
    return logits.detach()


def about_torch(path: Path) -> dict[str, Any]:
    files = {"about.json": ""}
    torch.export.load(path, extra_files=files)
    return dict(json.loads(files["about.json"]))


def about_onnx(path: Path) -> dict[str, Any]:
    onnx.checker.check_model(path, full_check=True)
    written = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return written | {name: json.loads(written[name]) for name in ("class_names", "shape")}


RUN = {"onnx": run_onnx, "torch-export": run_torch}
ABOUT = {"onnx": about_onnx, "torch-export": about_torch}
SUFFIX = {"onnx": ".onnx", "torch-export": ".pt2"}


@pytest.mark.parametrize("checkpoint", NETWORKS, indirect=True, ids=lambda network: "-".join(network))
def test_a_file_answers_any_number_of_images_as_its_checkpoint_does(
    checkpoint: Path, splits: Splits, capsys: pytest.CaptureFixture[str]
) -> None:
    model, about = load_model(checkpoint, CPU)
    for to, run in RUN.items():
        with warnings.catch_warnings(action="error", category=UserWarning):
            assert main(["export", str(checkpoint), "--to", to]) == 0
        path = checkpoint.with_suffix(SUFFIX[to])
        compared, saved = capsys.readouterr().out.splitlines()
        assert compared.startswith("compared on test images: 40 of 40 have the same class, logits differ by ")
        assert saved == f"saved {path}"
        for count in (1, 2, 7):
            images, _ = splits.test.take(torch.arange(count))
            torch.testing.assert_close(run(path, images), model(images), rtol=1e-4, atol=1e-4)
        assert ABOUT[to](path) == {
            "ltsd_version": __version__,
            "method": about["config"]["method"],
            "class_names": DIGITS,
            "shape": [1, 8, 8],
        }


def test_the_checkpoint_of_data_that_are_gone_is_compared_on_random_images(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = load_checkpoint(checkpoint)
    content["config"] |= {"data.source": "no/such/place"}
    save_checkpoint(checkpoint, content)
    assert main(["export", str(checkpoint), "--to", "torch-export"]) == 0
    told = capsys.readouterr().out.splitlines()[0]
    assert told.startswith("compared on images at random, because --data.source no/such/place: no such file or folder")
    assert "48 of 48 have the same class" in told


class Unfaithful(nn.Module):
    """Linear on the pixels; while it is exported, its logits are off by a number."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        self.error = error

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits + self.error if torch.compiler.is_exporting() else logits


@pytest.mark.parametrize(
    ("to", "error"), [("onnx", 1e-3), ("torch-export", 1e-3), ("torch-export", float("nan"))], ids=str
)
def test_a_file_that_would_answer_otherwise_is_not_written(tmp_path: Path, to: str, error: float) -> None:
    about = {"config": {"method": "at"}, "class_names": ["a", "b", "c"], "shape": [1, 8, 8]}
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ExportError, match="is not written, since it would not answer as the network does"):
        export_model(Unfaithful(error).eval(), about, to, tmp_path / "out", images)
    assert not list(tmp_path.iterdir())
    found = export_model(Unfaithful(0.0).eval(), about, to, tmp_path / "out", images)
    assert (found.images, found.same_class) == (5, 5)
    assert found.difference == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("no.pt", "--to", "onnx"), "no.pt: cannot be read (No such file or directory)"),
        (("notes.txt", "--to", "onnx"), "notes.txt: is not an ltsd checkpoint"),
        ((".", "--to", "onnx"), ".: cannot be read (Is a directory)"),
        (("one.pt", "--to", "torch-export", "--out", "notes.txt"), "--out notes.txt: exists already; give another"),
        (("one.pt", "--to", "torch-export", "--out", "notes.txt/one.pt2"), "its folder cannot be made"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_told_and_nothing_is_written(
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    Path("notes.txt").write_text("precious")
    assert exit_code_of(lambda: main(["export", *arguments])) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["notes.txt", "one.pt"]
    assert Path("notes.txt").read_text() == "precious"


def test_without_the_packages_of_onnx_it_names_what_to_install(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it was not installed
    assert exit_code_of(lambda: main(["export", str(checkpoint), "--to", "onnx"])) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --to onnx needs onnxscript, onnxruntime, not installed here; pip install -c")
    assert main(["export", str(checkpoint), "--to", "torch-export"]) == 0
