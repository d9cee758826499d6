"""Architectures: sizes, shapes and the normalisation inside."""

import sys

import pytest
import torch
from torch import Tensor, nn

from ltsd.config import ModelConfig
from ltsd.errors import UserError
from ltsd.locations import BOX, locations
from ltsd.models import DETECTORS, FEATURES, build_model
from ltsd.models.smp import DECODERS, PACKAGE
from ltsd.tasks import TASKS

OWN = [name for name in FEATURES if name not in (*DECODERS, *TASKS["speech"].networks, *TASKS["text"].networks)]
ALL = pytest.mark.parametrize("name", OWN)


def model_of(name: str, channels: int = 3, classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return build_model(ModelConfig(name=name, width=8), channels, classes)


def answered(name: str, pixels: int, classes: int) -> tuple[int, ...]:
    """The shape of an answer: of an encoder-decoder one a pixel, of a detector one a location, with a box."""
    if name in TASKS["detection"].networks:
        return len(locations(pixels, pixels, torch.device("cpu"))), classes + BOX
    return (pixels, pixels, classes) if name in TASKS["segmentation"].networks else (classes,)


def kinds(name: str, classes: int) -> int:
    """How many classes an answer tells apart: of a detector the background too."""
    return classes + (name in DETECTORS)


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("resnet18", 10, 11_173_962),
        ("resnet18", 100, 11_220_132),
        ("preact-resnet18", 10, 11_172_170),
        ("wrn-34-10", 10, 46_160_474),
        ("wrn-34-10", 100, 46_218_164),
    ],
)
def test_an_architecture_has_its_published_size(name: str, classes: int, parameters: int) -> None:
    with torch.device("meta"):
        model = build_model(ModelConfig(name=name), 3, classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_the_small_ones_stay_small() -> None:
    """By hand: every convolution has in * out * 9 (or 1) weights, every BatchNorm 2 a channel, the head a bias."""
    cnn = 3 * 32 * 9 + 64 + (32 * 64 * 9 + 64 * 64 * 9 + 32 * 64 + 3 * 128) + 65 * 10
    stem, first = 3 * 16 * 9 + 32, 2 * 16 * 16 * 9 + 2 * 32
    second, third = 16 * 32 * 9 + 32 * 32 * 9 + 16 * 32 + 3 * 64, 32 * 64 * 9 + 64 * 64 * 9 + 32 * 64 + 3 * 128
    inner = 16 * 32 * 9 + 32 * 32 * 9 + 16 * 32 + 3 * 64 + 32 * 64 * 9 + 64 * 64 * 9 + 32 * 64 + 3 * 128
    unet = stem + inner + (3 * 32 * 32 * 9 + 64) + (3 * 16 * 16 * 9 + 32) + 17 * 10
    sizes = {"small-cnn": cnn, "small-resnet": stem + first + second + third + 65 * 10, "small-unet": unet}
    for name, size in sizes.items():
        model = build_model(ModelConfig(name=name), 3, 10)
        assert sum(parameter.numel() for parameter in model.parameters()) == size


@ALL
def test_a_head_of_ones_own_sees_the_features(name: str) -> None:
    model = build_model(ModelConfig(name=name, width=8), 3, 5, head=lambda size, classes: nn.Linear(size, 2 * classes))
    inputs = torch.rand(2, 3, 16, 16)
    model.eval()
    assert model(inputs).shape == (2, *answered(name, 16, 2 * kinds(name, 5)))
    torch.testing.assert_close(model(inputs), model.head(model.features(inputs)))


@ALL
@pytest.mark.parametrize(("channels", "classes", "pixels"), [(1, 10, 8), (3, 7, 32), (3, 2, 9), (2, 100, 17)])
def test_maps_images_of_any_size_to_a_logit_per_class(name: str, channels: int, classes: int, pixels: int) -> None:
    answers = model_of(name, channels, classes)(torch.rand(3, channels, pixels, pixels))
    assert answers.shape == (3, *answered(name, pixels, kinds(name, classes)))


@ALL
def test_normalises_images_in_the_unit_range_before_the_first_convolution(name: str) -> None:
    model, seen = model_of(name), list[Tensor]()
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    inputs = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(3, 3, 8, 8)
    model(inputs)
    expected = torch.tensor([-2.0, 0.0, 2.0])[:, None, None, None].expand(3, 3, 8, 8)
    torch.testing.assert_close(seen[0], expected)


@ALL
def test_in_eval_mode_an_image_is_judged_on_its_own(name: str) -> None:
    model = model_of(name).eval()
    inputs = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alone = torch.cat([model(inputs[i : i + 1]) for i in range(4)])
        torch.testing.assert_close(alone, model(inputs), rtol=1e-4, atol=1e-5)


@ALL
def test_the_gradient_reaches_every_parameter_and_the_image(name: str) -> None:
    model = model_of(name)
    inputs = torch.rand(4, 3, 16, 16, requires_grad=True)
    model(inputs).square().sum().backward()
    tensors = [inputs, *model.parameters()]
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in tensors)


def test_a_network_of_a_package_that_is_not_installed_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)  # as if it was not installed
    with pytest.raises(UserError, match=rf"--model.name smp-unet needs {PACKAGE}, not installed here; .*'.\[smp\]'"):
        model_of("smp-unet")
