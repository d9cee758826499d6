"""Image classifiers of timm, which the extra `timm` installs, and of torchvision, without their last layer.

Beside them their first weights, as the library downloads them.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ltsd.errors import UserError
from ltsd.knobs import nearest
from ltsd.models.blocks import Standardise, without_dropout
from ltsd.models.network import Features, Network, Opaque
from ltsd.models.weights import not_brought
from ltsd.packages import require

SEVERAL_ANSWERS = ("googlenet", "inception_v3")
"""Networks of torchvision that answer more than once in training."""
NO_LINEAR = ("squeezenet1_0", "squeezenet1_1")
"""Those whose last layer is a convolution."""
UNFIT = (RuntimeError, AssertionError, ValueError, TypeError, IndexError, NotImplementedError)
"""What networks raise at images whose size they do not take."""


@dataclass(frozen=True)
class Described:
    """A classifier without its last layer: images [B, 3, H, W], normalised by `mean` and `std`, -> [B, size].

    `pixels` is the height of the images that its weights were trained on.
    """

    network: nn.Module
    size: int
    mean: Sequence[float]
    std: Sequence[float]
    pixels: int


class Backbone(Opaque):
    """A classifier without its last layer, [B, 3, H, W] -> [B, size]; `pixels` as in `Described`."""

    def __init__(self, network: nn.Module, pixels: int) -> None:
        super().__init__()
        self.network, self.pixels = network, pixels

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what the last layer would be given."""
        features: Tensor = self.network(inputs)
        return features


def backbone(name: str) -> tuple[Features, int]:
    """Return a classifier without its last layer, with new weights.

    Dropout and stochastic depth are off: a training step draws no random number.

    Args:
        name: `timm/` or `torchvision/`, and the library's name of the network; timm's may have the tag of its weights.

    Raises:
        UserError: the library is not installed; it has no such network, or does not build it.
    """
    library, _, own = name.partition("/")
    try:
        with torch.device("cpu"):  # some networks read numbers out of tensors, which those of no memory do not have
            found = LIBRARIES[library].describe(own)
    except (RuntimeError, ValueError, TypeError, ImportError) as error:
        told = str(error).splitlines()[0]
        raise UserError(f"--model.name {name}: {library} does not build it ({told}); choose another") from error
    without_dropout(found.network)
    return Features(Standardise(found.mean, found.std), Backbone(found.network, found.pixels)), found.size


def check_size(name: str, network: Network, shape: Sequence[int]) -> None:
    """Check that a network with the features of `backbone` takes images of a shape (C, H, W).

    Raises:
        UserError: it does not.
    """
    layers = network.features[1]
    assert isinstance(layers, Backbone)
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(2, *shape))
    except UNFIT as error:
        told = " ".join(str(error).split())[:150] or type(error).__name__
        raise UserError(
            f"--model.name {name}: does not take images of {' x '.join(map(str, shape))} ({told}); resize them, such "
            f"as with --data.image-size {layers.pixels}, or choose another network"
        ) from error


def downloaded(name: str) -> Mapping[str, Tensor]:
    """Return the weights that the library has for a network, from its cache or the network.

    Raises:
        UserError: it has none, or they cannot be had.
    """
    library, _, own = name.partition("/")
    try:
        found: Mapping[str, Tensor] = LIBRARIES[library].download(own).state_dict()
    except UserError:
        raise
    except Exception as error:  # of whatever fetches them
        raise UserError(not_brought(library, own, error)) from error
    return found


def _of_timm(name: str) -> Described:
    require(["timm"], "timm", f"--model.name timm/{name}")
    import timm

    base, _, tag = name.partition(".")
    known = timm.list_models()
    if base in known and tag:
        known = timm.list_models(f"{base}.*", pretrained=True)
    if name not in known:
        raise UserError(f"--model.name timm/{name}: timm has no such network{_nearest('timm', name, known)}")
    network: Any
    try:  # a transformer whose position embedding is resampled to the images
        network = timm.create_model(name, num_classes=0, dynamic_img_size=True)
    except TypeError:
        network = timm.create_model(name, num_classes=0)
    about = network.pretrained_cfg
    return Described(network, network.head_hidden_size, about["mean"], about["std"], about["input_size"][-1])


def _of_torchvision(name: str) -> Described:
    from torchvision import models

    known = [one for one in models.list_models(module=models) if one not in (*SEVERAL_ANSWERS, *NO_LINEAR)]
    if name not in known:
        near = _nearest("torchvision", name, known)
        raise UserError(f"--model.name torchvision/{name}: torchvision has no such network{near}")
    network = models.get_model(name, weights=None)
    where, last = [(where, one) for where, one in network.named_modules() if isinstance(one, nn.Linear)][-1]
    network.set_submodule(where, nn.Identity())
    about = models.get_model_weights(name).DEFAULT.transforms()
    return Described(network, last.in_features, about.mean, about.std, about.crop_size[-1])


def _nearest(library: str, name: str, known: Sequence[str]) -> str:
    return nearest(f"{library}/{name}", [f"{library}/{one}" for one in known])


def _pretrained_of_timm(name: str) -> nn.Module:
    import timm

    if not timm.is_model_pretrained(name):
        raise UserError(
            f"--model.weights pretrained: timm has none of {name}; leave it out, or give the path of a file"
        )
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of each of its attempts
    network: nn.Module = timm.create_model(name, pretrained=True)
    return network


def _pretrained_of_torchvision(name: str) -> nn.Module:
    from torchvision import models

    network: nn.Module = models.get_model(name, weights="DEFAULT")
    return network


@dataclass(frozen=True)
class Library:
    """How a library's network is made with new weights, and with those that it downloads, by its name there."""

    describe: Callable[[str], Described]
    download: Callable[[str], Any]


LIBRARIES: Mapping[str, Library] = {
    "timm": Library(_of_timm, _pretrained_of_timm),
    "torchvision": Library(_of_torchvision, _pretrained_of_torchvision),
}
