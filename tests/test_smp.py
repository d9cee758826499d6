"""Networks of segmentation-models-pytorch: they answer as the package's, train, and come back from a checkpoint."""

import re
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

from ltsd.__main__ import main
from ltsd.config import Config, ModelConfig
from ltsd.data import Splits, load_splits
from ltsd.errors import UserError
from ltsd.knobs import Value
from ltsd.methods import METHODS
from ltsd.models import build_model, check_model
from ltsd.models.frozen import Frozen
from ltsd.models.network import Network
from ltsd.models.smp import DECODERS, PACKAGE
from ltsd.runs import Run, load_model, open_run
from ltsd.state import TrainState
from ltsd.step import batch_of, budget_of, context_of, train_step
from ltsd.tasks import TASKS

smp = pytest.importorskip("segmentation_models_pytorch", reason="the extra smp is not installed")

CPU = torch.device("cpu")
ALL = pytest.mark.parametrize("name", DECODERS)
OTHERS = (("smp-segformer", "mit_b0"), ("smp-unet", "efficientnet-b0"))
UNREAD = re.compile(r"encoder\.(_conv_head|_bn1)\.")  # what efficientnet-b0 has before its classifier
SMALL: Mapping[str, Value] = {
    "method": "at",
    "epochs": 1,
    "model.name": "smp-unet",
    "optim.batch_size": 8,
    "optim.ema_decay": 0.9,
    "attack.steps": 1,
    "evaluate.every": 1,
    "evaluate.steps": 1,
}


def network_of(name: str, **more: str | int) -> Network:
    torch.manual_seed(0)
    return build_model(ModelConfig(name=name, **more), 3, 5)  # type: ignore[arg-type]


def images_of(height: int = 64, width: int = 64, count: int = 2) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def scenes() -> tuple[Config, Splits]:
    """A small configuration and a few scenes."""
    config = Config.preset("digits-scenes").override(SMALL)
    splits = load_splits(config.data)
    few = splits.train.select(splits.train.rows[:16])
    return config, replace(splits, train=few, val=few)


@ALL
def test_it_answers_as_the_package_s_network_with_the_same_weights(name: str) -> None:
    network = network_of(name).eval()
    architecture, arguments = DECODERS[name]
    width = ModelConfig(name=name).channels
    reference = smp.create_model(architecture, "resnet18", None, 3, classes=5, **arguments(width)).eval()
    layers = network.features[1]
    reference.encoder.load_state_dict(layers.encoder.state_dict())
    reference.decoder.load_state_dict(layers.decoder.state_dict())
    last = reference.segmentation_head[0]
    with torch.no_grad():
        last.weight.zero_()
        last.weight[:, :, last.kernel_size[0] // 2, last.kernel_size[1] // 2] = network.head.weight
        last.bias.copy_(network.head.bias)
        expected = reference((images_of() - 0.5) / 0.25).permute(0, 2, 3, 1)
        torch.testing.assert_close(network(images_of()), expected, rtol=1e-4, atol=1e-5)


@ALL
def test_an_image_of_any_size_is_padded_below_and_to_the_right_with_grey(name: str) -> None:
    network, images = network_of(name).eval(), images_of(37, 51)
    with torch.no_grad():
        answer = network(images)
        stride = network.features[1].stride
        whole = network(F.pad(images, (0, -51 % stride, 0, -37 % stride), value=0.5))
    assert answer.shape == (2, 37, 51, 5)
    torch.testing.assert_close(answer, whole[:, :37, :51])


@pytest.mark.parametrize(
    ("name", "encoder"),
    [*((name, "resnet18") for name in DECODERS), *OTHERS],
)
def test_in_training_it_draws_no_random_number_and_every_weight_gets_a_gradient(name: str, encoder: str) -> None:
    network, images = network_of(name, encoder=encoder), images_of().requires_grad_()
    before = torch.get_rng_state()
    network(images).square().sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(weight.grad is not None or UNREAD.search(key) for key, weight in network.named_parameters())
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


@ALL
def test_a_frozen_copy_is_the_network_in_eval_mode_until_it_is_refreshed(name: str) -> None:
    def answer(model: nn.Module) -> tuple[Tensor, Tensor]:
        images = images_of(33, 40).requires_grad_()
        logits = model(images)
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits.flatten(0, 2), torch.arange(2640) % 5), images)
        return logits.detach(), gradient

    network = network_of(name).train()
    network(images_of(count=4))  # running statistics of its own
    copy, before = Frozen(network), answer(deepcopy(network).eval())
    assert all(torch.equal(mine, its) for mine, its in zip(answer(copy), before, strict=True))
    with torch.no_grad():
        for parameter in network.features.parameters():
            parameter.mul_(1.1)
    network(images_of(count=4))
    assert all(torch.equal(mine, its) for mine, its in zip(answer(copy), before, strict=True))
    copy.refresh()
    after = answer(deepcopy(network).eval())
    assert all(torch.equal(mine, its) for mine, its in zip(answer(copy), after, strict=True))
    assert not torch.equal(after[0], before[0])
    assert network.training


@pytest.mark.parametrize(("encoder", "gamma"), [("resnet18", 0.0), ("efficientnet-b0", 5e-3)])
def test_a_step_lowers_the_loss_on_its_batch(encoder: str, gamma: float, scenes: tuple[Config, Splits]) -> None:
    config, splits = scenes
    own: dict[str, Value] = {"model.encoder": encoder, "awp.gamma": gamma}
    config = config.override({"optim.lr": 0.01, "optim.momentum": 0.0} | own)
    state = TrainState.fresh(config, 1, 11, CPU)
    inputs, labels = splits.train.take(torch.arange(8))
    counts, task, method = splits.train.class_counts(), TASKS["segmentation"], METHODS["at"]
    context, budget = context_of(config, counts, 1, None, None, CPU), budget_of(config, counts, 1, CPU)
    losses = []
    for _ in range(2):
        batch = batch_of(task, method, inputs, labels, budget, torch.Generator().manual_seed(0))
        losses.append(train_step(task, method, state, batch, context, budget).losses["loss"].item())
    assert losses[1] < losses[0]


def test_a_checkpoint_brings_back_the_bits_and_a_resumed_run_comes_to_the_same(
    scenes: tuple[Config, Splits], tmp_path: Path
) -> None:
    config, splits = scenes
    config, path = config.override({"epochs": 2, "data.augmentation": "crop-flip-scale"}), tmp_path / "one.pt"

    def opened(resume: Path | None) -> Run:
        return open_run(config, splits, splits.train, splits.val, CPU, teacher=None, resume=resume)

    run = opened(None)
    epochs = run.epochs()
    next(epochs)
    run.save(path)
    inputs, _ = splits.train.take(torch.arange(3))
    assert torch.equal(load_model(path, CPU)[0](inputs), run.state.model.eval()(inputs))
    again = opened(path)
    assert len(list(again.epochs())) == len(list(epochs)) == 1
    assert same_bits(again.state.content(), run.state.content())


def test_a_checkpoint_names_the_extra_where_its_package_is_missing(
    scenes: tuple[Config, Splits], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, splits = scenes
    open_run(config, splits, splits.train, None, CPU, teacher=None, resume=None).save(tmp_path / "one.pt")
    monkeypatch.setitem(sys.modules, PACKAGE, None)  # as if it was not installed
    with pytest.raises(UserError, match=rf"^--model.name smp-unet needs {PACKAGE}, not installed here; "):
        load_model(tmp_path / "one.pt", CPU)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "to"), [("smp-unet", "onnx"), ("smp-fpn", "torch-export"), ("smp-segformer", "onnx")])
def test_an_exported_file_answers_as_the_checkpoint_does(
    name: str, to: str, scenes: tuple[Config, Splits], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, splits = scenes
    config = config.override({"model.name": name, "model.width": 64})
    path = tmp_path / "one.pt"
    open_run(config, splits, splits.train, None, CPU, teacher=None, resume=None).save(path)
    with warnings.catch_warnings(action="error", category=UserWarning):
        assert main(["export", str(path), "--to", to]) == 0
    assert "compared on test images: 48 of 48 have the same class" in capsys.readouterr().out


def test_the_encoder_begins_with_the_weights_of_a_local_file(scenes: tuple[Config, Splits], tmp_path: Path) -> None:
    config, _ = scenes
    encoder = smp.encoders.get_encoder("resnet18", in_channels=1)
    classifier = {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}  # of an image classifier
    torch.save(encoder.state_dict() | classifier, tmp_path / "encoder.pt")
    drawn = TrainState.fresh(config, 1, 11, CPU).student.state_dict()
    config = config.override({"model.weights": str(tmp_path / "encoder.pt")})
    told = check_model(config.model, (1, 32, 32))
    count = len(encoder.state_dict())
    fits = f"weights: {count} of {count + 2} tensors of {tmp_path / 'encoder.pt'} fit; not: "
    assert told == f"{fits}fc.weight (1000, 512), fc.bias (1000,)"
    given = TrainState.fresh(config, 1, 11, CPU).student.state_dict()
    inside = "features.1.encoder."
    assert all(torch.equal(given[inside + key], value) for key, value in encoder.state_dict().items())
    assert not torch.equal(given[f"{inside}conv1.weight"], drawn[f"{inside}conv1.weight"])
    assert all(torch.equal(given[key], value) for key, value in drawn.items() if not key.startswith(inside))


def test_an_encoder_for_images_of_other_channels_keeps_its_first_layer(tmp_path: Path) -> None:
    weights = smp.encoders.get_encoder("resnet18").state_dict()
    torch.save(weights, tmp_path / "colour.pt")
    told = check_model(ModelConfig(name="smp-unet", weights=str(tmp_path / "colour.pt")), (1, 32, 32))
    assert told.endswith("fit; not: conv1.weight (64, 3, 7, 7); drawn from the seed: conv1.weight (64, 1, 7, 7)")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ModelConfig(name="smp-unet", encoder="resnet19"), "--model.encoder resnet19: .* did you mean 'resnet18'"),
        (ModelConfig(name="smp-unet", encoder="tu-none"), r"with --model.encoder tu-none, .* \(Unknown model"),
        (ModelConfig(name="smp-fpn", width=8), "smp-fpn: cannot be built .* --model.width 8 .* a multiple of 64"),
        (ModelConfig(name="small-unet", encoder="resnet18"), "--model.name small-unet: has no encoder to choose"),
    ],
)
def test_a_network_that_cannot_be_is_told(model: ModelConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_model(model, (3, 32, 32))


def test_its_size_is_known_without_memory() -> None:
    with torch.device("meta"):
        network = build_model(ModelConfig(name="smp-segformer", encoder="mit_b0"), 3, 5)
    assert sum(weight.numel() for weight in network.parameters()) > 10**6
