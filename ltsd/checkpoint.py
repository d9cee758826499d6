"""Checkpoints: tensors and JSON in one file, written whole or not at all, read without running code."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from ltsd.errors import UserError
from ltsd.files import publishing

MAGIC = b"ltsd-checkpoint-1\n"


class CheckpointError(UserError):
    """The file is no whole checkpoint."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write nested dicts of tensors and plain values: magic, SHA-256 of the payload, payload."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getvalue()
    with publishing(path) as temporary:
        temporary.write_bytes(MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a file of `save_checkpoint`.

    Raises:
        CheckpointError: it is missing, truncated, changed, no checkpoint, or holds anything but tensors and plain
        values (nothing in it is executed).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if not content.startswith(MAGIC):
        raise CheckpointError(f"{path}: is not an ltsd checkpoint")
    digest, _, payload = content[len(MAGIC) :].partition(b"\n")
    if hashlib.sha256(payload).hexdigest().encode() != digest:
        raise CheckpointError(f"{path}: is truncated or damaged (its checksum does not match)")
    try:
        return torch.load(io.BytesIO(payload), map_location=device, weights_only=True)  # type: ignore[no-any-return]
    except Exception as error:  # a damaged pickle can raise anything; none of it is executed
        raise CheckpointError(f"{path}: holds more than tensors and plain values; it was not loaded") from error
