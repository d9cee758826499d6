"""First weights of a network: read from a file, given to the layers that they fit, and told."""

import argparse
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ltsd.checkpoint import MAGIC, load_checkpoint
from ltsd.errors import UserError
from ltsd.models.blocks import Standardise
from ltsd.packages import require

PRETRAINED = "pretrained"
"""Stands for the weights that the library of a network downloads."""
WRAPPERS = ("state_dict", "model_state_dict", "model", "average", "student")
"""Under which names files hold the tensors of a network beside other things; ltsd's own under the last two."""
MEANS, STDS = ("mean", "new_mean", "mu"), ("std", "new_std", "sigma")
"""The last parts of names that the tensors of a normalising layer have."""
COUNTER = "num_batches_tracked"
"""Of a BatchNorm with momentum it changes nothing, and old files do not have it."""
TOLD = 4
"""How many tensors are named."""


@dataclass(frozen=True)
class Fit:
    """Which tensors of a source fitted: `fitted` of `given`.

    `misfits` are the others, and `missing` those of the network that kept their first values, with their shapes. `how`
    says what else was done, in words.
    """

    source: str
    given: int
    fitted: int
    misfits: Sequence[str]
    missing: Sequence[str]
    how: str

    def __str__(self) -> str:
        told = f"weights: {self.fitted} of {self.given} tensors of {self.source} fit{self.how}"
        told += f"; not: {_listed(self.misfits)}" if self.misfits else ""
        return told + (f"; drawn from the seed: {_listed(self.missing)}" if self.missing else "")


def read_weights(path: str) -> dict[str, Tensor]:
    """Return the tensors of a local file by name, without running code in it.

    Args:
        path: `.safetensors`, or what `torch.save` writes: a state dict, alone or in a dict under a name in WRAPPERS; or
            a checkpoint of ltsd.

    Raises:
        UserError: it cannot be read, or holds no tensors by name.
    """
    try:
        found = _unwrapped(_content(Path(path)))
    except OSError as error:
        raise UserError(f"--model.weights {path}: cannot be read ({error.strerror or error})") from error
    except UserError:
        raise
    except Exception:  # a damaged file can raise anything; none of it is executed
        found = {}
    if not found:
        raise UserError(
            f"--model.weights {path}: holds no tensors by name that can be read without running code in it; give a "
            f".safetensors file, or one that torch.save wrote of a network's state_dict()"
        )
    return found


def fit_weights(network: nn.Module, standardise: nn.Module, tensors: Mapping[str, Tensor], source: str) -> Fit:
    """Copy tensors into a network wherever name and shape fit, but for what all names of the source begin with.

    If no name fits, and the source begins with as many tensors of the same kinds and shapes in the same order, they are
    copied in that order.

    Args:
        network: its tensors are changed in place.
        standardise: the normalisation before it; it takes the mean and the std of the source if both can be set.
        tensors: those of the source by name.
        source: what messages call it.

    Raises:
        UserError: none fits.
    """
    own = network.state_dict()
    places, how = _by_name(own, tensors), ""
    if not places:
        places, how = _by_order(own, tensors), " by their order, their names differ"
    if not places:
        raise UserError(
            f"--model.weights {source}: 0 of {len(tensors)} tensors fit the network, which begins with "
            f"{_named(own, 1)}, the source with {_named(tensors, 1)}; give weights of the same architecture"
        )
    with torch.no_grad():
        for name, key in places.items():
            own[name].copy_(tensors[key])
    taken = set(places.values()) | _normalised(standardise, tensors)
    how += f", {len(taken) - len(places)} of them the normalisation" if len(taken) > len(places) else ""
    return Fit(
        source,
        given=len(tensors),
        fitted=len(taken),
        misfits=[_shaped(key, tensor) for key, tensor in tensors.items() if key not in taken],
        missing=[_shaped(name, own[name]) for name in own if name not in places and not name.endswith(COUNTER)],
        how=how,
    )


def not_brought(library: str, name: str, error: Exception) -> str:
    """Return why the weights that a library has for a network could not be had."""
    told = (str(error).strip().splitlines() or [type(error).__name__])[0].partition(". ")[0]
    return (
        f"--model.weights {PRETRAINED}: {library} could not bring those of {name} ({told[:200]}); connect this machine "
        f"to the internet, or give the path of a file"
    )


def content_of(weights: str | None) -> str | None:
    """Return what identifies first weights: the SHA-256 of a file, whatever its path; else the word or None itself."""
    if weights is None or not Path(weights).is_file():
        return weights
    stat = Path(weights).stat()
    return _sha256(weights, stat.st_mtime_ns, stat.st_size)


@functools.cache
def _sha256(path: str, modified: int, size: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _content(path: Path) -> Any:
    with path.open("rb") as file:
        is_own = file.read(len(MAGIC)) == MAGIC
    if is_own:
        return load_checkpoint(path)
    if path.suffix == ".safetensors":
        require(["safetensors"], "timm", f"--model.weights {path}")
        from safetensors.torch import load_file

        return load_file(path)
    with torch.serialization.safe_globals([argparse.Namespace]):  # many files have the arguments of their training too
        return torch.load(path, map_location="cpu", weights_only=True)


def _unwrapped(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    for name in WRAPPERS:
        if isinstance(content.get(name), Mapping):
            return _unwrapped(content[name])
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _by_name(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return {name in the network: name in the source} with the beginning of names under which most fit."""
    fitting: dict[str, dict[str, str]] = {}
    for key, tensor in tensors.items():
        for start in _starts(key):
            name = key.removeprefix(start)
            if name in own and own[name].shape == tensor.shape:
                fitting.setdefault(start, {})[name] = key
    return max(fitting.values(), key=len, default={})


def _starts(key: str) -> Iterator[str]:
    """Yield what a name may begin with: `""`, `module.` and `module.model.` of `module.model.weight`."""
    parts = key.split(".")
    yield from ("".join(f"{part}." for part in parts[:count]) for count in range(len(parts)))


def _by_order(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    kinds, others = ([(key.rpartition(".")[2], one.shape) for key, one in of.items()] for of in (own, tensors))
    return dict(zip(own, tensors, strict=False)) if others[: len(kinds)] == kinds else {}


def _normalised(standardise: nn.Module, tensors: Mapping[str, Tensor]) -> set[str]:
    """Set mean and std to the first of the source if it has both; return their names there."""
    if not isinstance(standardise, Standardise):
        return set()
    channels = standardise.mean.numel()
    found = {
        words: [key for key, one in tensors.items() if key.rpartition(".")[2] in words and one.numel() == channels]
        for words in (MEANS, STDS)
    }
    if not all(found.values()):
        return set()
    for place, keys in zip((standardise.mean, standardise.std), found.values(), strict=True):
        place.copy_(tensors[keys[0]].view_as(place))
    return {keys[0] for keys in found.values()}


def _listed(named: Sequence[str]) -> str:
    more = f" and {len(named) - TOLD} more" if len(named) > TOLD else ""
    return f"{', '.join(named[:TOLD])}{more}"


def _named(tensors: Mapping[str, Tensor], count: int) -> str:
    return ", ".join(_shaped(name, tensor) for name, tensor in list(tensors.items())[:count])


def _shaped(name: str, tensor: Tensor) -> str:
    return f"{name} {tuple(tensor.shape)}"
