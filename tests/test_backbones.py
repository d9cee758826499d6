"""Classifiers of timm and torchvision: they answer as the library's, train, freeze, resume and are exported."""

import sys
import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from bits import same_bits
from torch import Tensor, nn
from torchvision import models

from ltsd.config import Config, ModelConfig
from ltsd.data import Splits
from ltsd.data.batches import Split
from ltsd.errors import UserError
from ltsd.export import export_model
from ltsd.knobs import Value
from ltsd.methods import METHODS
from ltsd.methods.robal import CosineHead
from ltsd.models import build_model, check_model
from ltsd.models.frozen import Frozen
from ltsd.models.network import Head, Network
from ltsd.runs import Run, load_model, open_run
from ltsd.tasks import check_task

timm = pytest.importorskip("timm", reason="the extra timm is not installed")

CPU = torch.device("cpu")
BATCH_NORM, LAYER_NORM, TRANSFORMER = "timm/test_resnet", "timm/test_convnext", "timm/test_vit"
ALL = pytest.mark.parametrize("name", [BATCH_NORM, LAYER_NORM, TRANSFORMER, "torchvision/shufflenet_v2_x0_5"])
SMALL: Mapping[str, Value] = {
    "epochs": 2,
    "attack.steps": 2,
    "optim.lr": 0.01,
    "optim.batch_size": 16,
    "optim.ema_decay": 0.9,
    "evaluate.every": 1,
    "evaluate.steps": 1,
}


def network_of(name: str, head: Head = nn.Linear) -> Network:
    torch.manual_seed(0)
    return build_model(ModelConfig(name=name), 3, 10, head)


def images_of(count: int = 2, channels: int = 3, pixels: int = 32) -> Tensor:
    return torch.rand(count, channels, pixels, pixels, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def enlarged(splits: Splits) -> Splits:
    """The digits at 32 pixels a side, few of them."""

    def at_32(split: Split, count: int) -> Split:
        rows = split.rows[torch.linspace(0, len(split) - 1, count).long()]
        images = F.interpolate(split.images[rows].float(), size=(32, 32)).byte()
        return replace(split, images=images, labels=split.labels[rows], rows=torch.arange(count))

    return replace(splits, train=at_32(splits.train, 40), val=at_32(splits.val, 20))


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/tf_efficientnet_lite0", "torchvision/mobilenet_v3_small"])
def test_it_answers_as_the_library_s_network_behind_the_normalisation_of_its_weights(name: str) -> None:
    network, (library, own) = network_of(name).eval(), name.split("/")
    if library == "timm":
        reference = timm.create_model(own, num_classes=10).eval()
        about = reference.pretrained_cfg
        mean, std, last = about["mean"], about["std"], reference.get_classifier()
    else:
        reference = models.get_model(own, num_classes=10).eval()
        transforms = models.get_model_weights(own).DEFAULT.transforms()
        mean, std, last = transforms.mean, transforms.std, reference.classifier[-1]
    reference.load_state_dict(network.features[1].network.state_dict(), strict=False)
    last.load_state_dict(network.head.state_dict())
    mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
    grey = images_of(channels=1)
    with torch.no_grad():
        torch.testing.assert_close(network(images_of()), reference((images_of() - mean) / std))
        torch.testing.assert_close(network(grey), reference((grey.repeat(1, 3, 1, 1) - mean) / std))


@pytest.mark.parametrize("name", [TRANSFORMER, "torchvision/efficientnet_b0", "timm/ghostnet_050"])
def test_in_training_it_draws_no_random_number_and_every_weight_gets_a_gradient(name: str) -> None:
    network, images = network_of(name), images_of(4).requires_grad_()
    before = torch.get_rng_state()
    network(images).square().sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(weight.grad is not None for weight in network.parameters())
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


@ALL
def test_a_frozen_copy_is_the_network_in_eval_mode_until_it_is_refreshed(name: str) -> None:
    network = network_of(name, METHODS["robal"].head)
    assert isinstance(network.head, CosineHead)
    network.train()(images_of(8))  # running statistics of its own
    copy, before = Frozen(network), deepcopy(network).eval()(images_of())
    torch.testing.assert_close(copy(images_of()), before)
    first = copy(images_of())
    with torch.no_grad():
        for parameter in network.features.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    network(images_of(8))
    assert torch.equal(copy(images_of()), first)
    copy.refresh()
    after = deepcopy(network).eval()(images_of())
    torch.testing.assert_close(copy(images_of()), after)
    assert (after - before).norm() > 0.01 * before.norm()


@pytest.mark.parametrize("name", [BATCH_NORM, "timm/tf_efficientnet_lite0", "torchvision/shufflenet_v2_x0_5"])
def test_a_frozen_copy_computes_no_batchnorm_and_has_the_network_s_gradient(name: str) -> None:
    network, images = network_of(name), images_of(8)
    for _ in range(3):
        network.train()(images_of(8) * torch.rand(8, 1, 1, 1))
    copy, computed = Frozen(network), []
    copy(images)
    for module in copy.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda *_: computed.append(1))
    mine, reference = images.clone().requires_grad_(), images.clone().requires_grad_()
    copy(mine).square().sum().backward()
    assert not computed
    network.eval()(reference).square().sum().backward()
    assert mine.grad is not None
    assert reference.grad is not None
    assert (mine.grad - reference.grad).norm() < 1e-3 * reference.grad.norm()


@pytest.mark.parametrize("name", [BATCH_NORM, LAYER_NORM, TRANSFORMER])
def test_ltsd_trains_it_and_resumes_to_the_same_bits(
    name: str, small: Config, enlarged: Splits, tmp_path: Path
) -> None:
    config, path = small.override(SMALL | {"model.name": name, "model.width": None}), tmp_path / "one.pt"
    teacher = network_of(name).eval().requires_grad_(False)

    def opened(resume: Path | None) -> Run:
        return open_run(config, enlarged, enlarged.train, enlarged.val, CPU, teacher=teacher, resume=resume)

    run = opened(None)
    epochs = run.epochs()
    assert next(epochs).values["train/igdm_loss"] > 0
    run.save(path)
    inputs, _ = enlarged.train.take(torch.arange(3))
    assert torch.equal(load_model(path, CPU)[0](inputs), run.state.model.eval()(inputs))
    again = opened(path)
    assert len(list(again.epochs())) == len(list(epochs)) == 1
    assert same_bits(again.state.content(), run.state.content())


@pytest.mark.parametrize(
    ("name", "to"),
    [
        (BATCH_NORM, "torch-export"),
        (LAYER_NORM, "torch-export"),
        pytest.param(LAYER_NORM, "onnx", marks=pytest.mark.slow),
        pytest.param(TRANSFORMER, "onnx", marks=pytest.mark.slow),
        pytest.param("torchvision/resnet18", "onnx", marks=pytest.mark.slow),
        pytest.param("timm/convnext_atto", "torch-export", marks=pytest.mark.slow),
    ],
)
def test_an_exported_file_answers_as_the_network_does(name: str, to: str, tmp_path: Path) -> None:
    about = {"config": {"method": "at"}, "class_names": list("abcdefghij"), "shape": [3, 32, 32]}
    network = network_of(name).train()
    network(images_of(8))
    with warnings.catch_warnings(action="error", category=UserWarning):
        found = export_model(network.eval(), about, to, tmp_path / "one", images_of(48))
    assert found.same_class == 48


@pytest.mark.parametrize(
    ("model", "pixels", "message"),
    [
        (ModelConfig(name="timm/resnet81"), 32, "--model.name timm/resnet81: timm has no such .* 'timm/resnet18'"),
        (ModelConfig(name="timm/resnet18.a1"), 32, r"timm/resnet18.a1: timm has no such .* 'timm/resnet18.a\d_in1k'"),
        (ModelConfig(name="torchvision/resnet81"), 32, "torchvision has no such .* mean 'torchvision/resnet18'"),
        (ModelConfig(name="torchvision/googlenet"), 224, "torchvision/googlenet: torchvision has no such network"),
        (ModelConfig(name="timm/mixer_s32_224"), 32, r"not take images of 3 x 32 x 32 \(Input .*image-size 224, or"),
        (ModelConfig(name=TRANSFORMER), 40, r"does not take images of 3 x 40 x 40 \(Input height \(40\) should be"),
        (ModelConfig(name=BATCH_NORM, width=8), 32, "--model.width 8: timm/test_resnet has a width of its own"),
        (ModelConfig(name=BATCH_NORM, encoder="resnet18"), 32, "--model.name timm/test_resnet: has no encoder"),
    ],
)
def test_a_network_that_cannot_be_is_told(model: ModelConfig, pixels: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_model(model, (3, pixels, pixels))


def test_it_is_for_classification_and_a_name_of_no_library_is_refused(small: Config, enlarged: Splits) -> None:
    assert check_task(small.override({"model.name": BATCH_NORM, "model.width": None}), enlarged.train) == ""
    with pytest.raises(
        UserError, match=r"'tim/resnet18' is not one of .*, timm/NAME, torchvision/NAME, transformers/NAME; did you"
    ):
        small.override({"model.name": "tim/resnet18"})
    config = small.override({"task": "segmentation", "model.name": BATCH_NORM})
    maps = replace(enlarged.train, labels=enlarged.train.images[:, 0])
    with pytest.raises(UserError, match=r"^--model.name timm/test_resnet: does not answer for a pixel; for segmen"):
        check_task(config, maps)


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it was not installed
    with pytest.raises(UserError, match=r"--model.name timm/test_resnet needs timm, not installed here; .*'.\[timm\]'"):
        network_of(BATCH_NORM)
