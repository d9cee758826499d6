"""A trained network in a format that needs no ltsd: ONNX, or PyTorch's own `torch.export`.

The file is opened again and its logits are compared with the network's before it gets its name.
"""

import argparse
import io
import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ltsd import __version__
from ltsd.config import Config
from ltsd.data import load_splits
from ltsd.data.batches import Split
from ltsd.errors import UserError
from ltsd.files import check_writable, publishing
from ltsd.packages import require
from ltsd.runs import check_same_images, load_model, vocabulary_of
from ltsd.tasks import TASKS

ABOUT = "about.json"
"""The name of the metadata among a `.pt2` file's extra files."""
OPSET = 20
TOLERANCE = 1e-4
"""Largest difference of a logit, as a share of the largest logit, or of 1 if all are smaller."""
COMPARED = 48
"""How many images are compared."""
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""What the extra `export` installs beside the packages of `ltsd`."""

Metadata = Mapping[str, Any]
Logits = Callable[[Tensor], Tensor]


class ExportError(UserError):
    """The file would not answer as the network does."""


@dataclass(frozen=True)
class Agreement:
    """The answers of a file beside those of its network.

    `images` were compared, `same_class` of them have the same class, in every pixel if pixels have one; `difference` is
    the largest of a logit, and `limit` the largest that is allowed.
    """

    images: int
    same_class: int
    difference: float
    limit: float

    def __str__(self) -> str:
        return (
            f"{self.same_class} of {self.images} have the same class, logits differ by {self.difference:.1e} at most "
            f"(allowed: {self.limit:.1e})"
        )


@dataclass(frozen=True)
class Format:
    """How a format is written and opened.

    `suffix` ends its files' names. `encode` takes an exported program and the metadata; `open` takes a file and returns
    a function, images float32 [N, C, H, W] -> logits float32 [N, K], or [N, H, W, K] of pixels.
    """

    suffix: str
    encode: Callable[[ExportedProgram, Metadata], bytes]
    open: Callable[[Path], Logits]


class _Numbered(nn.Module):
    """A network of texts that takes the numbers of their word pieces, int32 [N, L], instead of their vectors."""

    vectors: Tensor

    def __init__(self, network: nn.Module, vectors: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("vectors", vectors)

    def forward(self, numbers: Tensor) -> Tensor:
        logits: Tensor = self.network(F.embedding(numbers.long(), self.vectors).transpose(1, 2))
        return logits


class _Exported(nn.Module):
    """A network whose input is called `images` in the file."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


def export_model(model: nn.Module, about: Mapping[str, Any], to: str, out: Path, images: Tensor) -> Agreement:
    """Write a model for any number of images, with metadata: class_names, shape, method, ltsd_version,
    of sound its sampling_rate, and of texts the tokenizer, as `tokenizers` reads it.

    Args:
        model: images float32 [N, C, H, W] in [0, 1], or other inputs, -> logits [N, K], or [N, H, W, K]; in eval mode,
            on the CPU.
        about: the content of its checkpoint.
        to: a name in FORMATS.
        out: the file.
        images: at least two, as `exported_inputs` returns them, to compare the answers on.

    Raises:
        CheckpointError: as `vocabulary_of`.
        ExportError: the logits of the file differ from the model's by more than TOLERANCE; no file is left.
    """
    metadata: dict[str, Any] = {
        "ltsd_version": __version__,
        "method": about["config"]["method"],
        "class_names": list(about["class_names"]),
        "shape": list(images.shape[1:]),
    }
    if about["config"].get("task") == "speech":
        metadata["sampling_rate"] = about["config"]["data.sampling_rate"]
    if (vocabulary := vocabulary_of(about)) is not None:
        metadata["tokenizer"] = vocabulary.tokenizer
        model = _Numbered(model, vocabulary.vectors)
    # Weights that are channels-last are no whole block of memory to torch.export, which warns of each of them.
    network = _Exported(deepcopy(model).to(memory_format=torch.contiguous_format)).eval()
    with torch.no_grad():
        # Two images, because torch.export takes a size of one as fixed.
        program = torch.export.export(network, (images[:2],), dynamic_shapes={"images": {0: Dim("N", min=1)}})
    with publishing(out) as temporary:
        temporary.write_bytes(FORMATS[to].encode(program, metadata))
        found = compare(model, FORMATS[to].open(temporary), images)
        if not found.difference <= found.limit:
            raise ExportError(f"{out}: is not written, since it would not answer as the network does: {found}")
    return found


@torch.no_grad()
def compare(model: nn.Module, exported: Logits, images: Tensor) -> Agreement:
    """Compare two functions, images [N, C, H, W] -> logits [N, K] or [N, H, W, K], on N > 1 images, one of them alone
    in its batch.
    """
    expected = model(images)
    logits = torch.cat([exported(images[:1]), exported(images[1:])])
    same = (logits.argmax(-1) == expected.argmax(-1)).reshape(len(images), -1).all(1).sum().item()
    limit = TOLERANCE * max(1.0, expected.abs().max().item())
    return Agreement(len(images), int(same), (logits - expected).abs().max().item(), limit)


def export_command(parsed: argparse.Namespace) -> int:
    """`python -m ltsd export`."""
    to: str = parsed.to
    if to == "onnx":
        require(ONNX_PACKAGES, "export", "--to onnx")
    model, about = load_model(parsed.checkpoint, torch.device("cpu"))
    out: Path = parsed.out or parsed.checkpoint.with_suffix(FORMATS[to].suffix)
    if out.exists():
        raise UserError(f"--out {out}: exists already; give another path")
    check_writable(out)
    images, whose = images_of(parsed.checkpoint, about)
    found = export_model(model, about, to, out, images)
    print(f"compared on {whose}: {found}")
    print(f"saved {out}")
    return 0


def images_of(checkpoint: Path, about: dict[str, Any]) -> tuple[Tensor, str]:
    """Return inputs that a checkpoint's exported model may be asked about, and what they are: test images of its data,
    or images at random if its data cannot be read any more.
    """
    try:
        splits = load_splits(Config.recorded(about["config"]).data)
        check_same_images(checkpoint, about, splits)
    except UserError as error:
        return _at_random(about, torch.Generator().manual_seed(0)), f"{_items(about)} at random, because {error}"
    order = torch.randperm(len(splits.test), generator=torch.Generator().manual_seed(0))
    return exported_inputs(splits.test, order[:COMPARED]), f"test {splits.test.items}"


def exported_inputs(split: Split, positions: Tensor) -> Tensor:
    """Return inputs at positions of a split as an exported network takes them: images and sound as `Split.take`, of
    texts the numbers of their word pieces, int32 [B, L].
    """
    return split.take(positions)[0] if split.vocabulary is None else split.images[split.rows[positions]]


def _items(about: Mapping[str, Any]) -> str:
    return TASKS[Config.recorded(about["config"]).task].items


def _at_random(about: Mapping[str, Any], generator: torch.Generator) -> Tensor:
    vocabulary, shape = vocabulary_of(about), about["shape"]
    if vocabulary is None:
        return torch.rand(COMPARED, *shape, generator=generator)
    return torch.randint(len(vocabulary.vectors), (COMPARED, shape[-1]), generator=generator, dtype=torch.int32)


def _encode_torch(program: ExportedProgram, metadata: Metadata) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={ABOUT: json.dumps(metadata)})
    return buffer.getvalue()


def _open_torch(path: Path) -> Logits:
    with path.open("rb") as file:
        return torch.export.load(file).module()


def _encode_onnx(program: ExportedProgram, metadata: Metadata) -> bytes:
    written = torch.onnx.export(
        program,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes={"images": {0: "N"}},
        verbose=False,
    )
    assert written is not None
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    written.model.metadata_props.update(texts)
    encoded: bytes = written.model_proto.SerializeToString()
    return encoded


def _open_onnx(path: Path) -> Logits:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


FORMATS: Mapping[str, Format] = {
    "onnx": Format(".onnx", _encode_onnx, _open_onnx),
    "torch-export": Format(".pt2", _encode_torch, _open_torch),
}
