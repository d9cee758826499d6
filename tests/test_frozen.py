"""A frozen network answers as the network does in eval mode, and gives the same gradient of the inputs."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.config import ModelConfig
from ltsd.methods import METHODS
from ltsd.models import FEATURES, build_model
from ltsd.models.folding import Pooled, folded
from ltsd.models.frozen import Frozen, frozen
from ltsd.models.network import Features, Head, Network, Opaque
from ltsd.models.smp import DECODERS
from ltsd.precision import compute_dtype
from ltsd.tasks import TASKS

OWN = [name for name in FEATURES if name not in (*DECODERS, *TASKS["speech"].networks, *TASKS["text"].networks)]
ALL = pytest.mark.parametrize("name", OWN)


def trained(name: str, head: Head = nn.Linear) -> Network:
    """A network whose BatchNorms have seen something, and are not the identity."""
    torch.manual_seed(0)
    network = build_model(ModelConfig(name=name, width=16), 3, 10, head)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    with torch.no_grad():
        for _ in range(30):
            network(torch.rand(32, 3, 16, 16))
    return network


def answer(model: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The logits, and the gradient of a loss."""
    inputs = inputs.clone().requires_grad_()
    logits = model(inputs)
    rows = logits.flatten(0, -2)
    (gradient,) = torch.autograd.grad(F.cross_entropy(rows, torch.arange(len(rows)) % rows.shape[1]), inputs)
    return logits.detach(), gradient


@ALL
@pytest.mark.parametrize("method", ["at", "robal"])
def test_a_frozen_network_is_the_network_in_eval_mode(name: str, method: str) -> None:
    network = trained(name, METHODS[method].head)
    inputs = torch.rand(8, 3, 16, 16)
    for mine, reference in zip(answer(Frozen(network), inputs), answer(deepcopy(network).eval(), inputs), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)


def test_the_bias_of_a_convolution_is_kept_with_a_batchnorm_after_it_and_without() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU())
    inputs = torch.rand(4, 3, 8, 8)
    for _ in range(5):
        layers(torch.rand(16, 3, 8, 8))
    copy, held = folded(layers, torch.float32)
    with torch.no_grad():
        for one in held:
            one.refresh()
        torch.testing.assert_close(copy(inputs), layers.eval()(inputs), rtol=1e-4, atol=1e-5)


@ALL
def test_in_bfloat16_it_strays_no_further_than_the_network_does(name: str) -> None:
    network, inputs = trained(name).eval(), torch.rand(8, 3, 16, 16)
    exact = answer(network, inputs)
    rested = answer(Frozen(network, torch.bfloat16), inputs)
    network.features.dtype = torch.bfloat16
    lowered = answer(network, inputs)
    for mine, its, true in zip(rested, lowered, exact, strict=True):
        assert mine.dtype == torch.float32
        assert 0 < (mine - true).norm() < 1.5 * (its - true).norm() < 0.6 * true.norm()


@ALL
def test_it_keeps_its_weights_until_it_is_refreshed(name: str) -> None:
    network = trained(name)
    inputs, rested = torch.rand(4, 3, 16, 16), Frozen(network)
    before = rested(inputs)
    with torch.no_grad():
        for module in network.features.modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                module.weight.mul_(1.1)
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.add_(0.1)
    torch.testing.assert_close(rested(inputs), before, rtol=0, atol=0)
    rested.refresh()
    torch.testing.assert_close(rested(inputs), deepcopy(network).eval()(inputs), rtol=1e-4, atol=1e-4)


def test_it_leaves_the_mode_and_the_statistics_of_the_network_alone() -> None:
    network = trained("small-resnet").train()
    before = deepcopy(network.state_dict())
    Frozen(network).eval()(torch.rand(4, 3, 16, 16))
    assert all(module.training for module in network.modules())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_pooling_is_the_mean_of_torch_to_the_bit_with_a_gradient_that_lies_as_the_images_do(
    size: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    images = torch.randn(5, 48, size, size, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weights = torch.randn(5, 48, 1, 1, dtype=dtype)
    found = list[tuple[Tensor, Tensor]]()
    for pool in (Pooled(), nn.AdaptiveAvgPool2d(1)):
        inputs = images.detach().requires_grad_()
        means = pool(inputs)
        found.append((means.detach(), *torch.autograd.grad(means, inputs, weights)))
    for mine, reference in zip(*found, strict=True):
        assert torch.equal(mine, reference)
    assert found[0][1].is_contiguous(memory_format=torch.channels_last)


class Branching(Opaque):
    """A layer that a trace cannot follow, or, with `wrongly`, follows down the wrong branch."""

    def __init__(self, wrongly: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.wrongly = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), wrongly

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.norm(self.conv(inputs))
        right = isinstance(inputs, Tensor) if self.wrongly else bool(inputs.max() > 0)
        return outputs.flatten(1) if right else -outputs.flatten(1)


@pytest.mark.parametrize("wrongly", [False, True])
def test_a_layer_whose_trace_fails_or_errs_is_computed_as_it_is_written(wrongly: bool) -> None:
    network = Network(Features(Branching(wrongly)), nn.Linear(8 * 36, 10))
    network(torch.rand(16, 3, 8, 8))
    inputs = torch.rand(4, 3, 8, 8)
    expected = answer(deepcopy(network).eval(), inputs)
    for mine, reference in zip(answer(Frozen(network), inputs), expected, strict=True):
        assert torch.equal(mine, reference)


def test_no_normalisation_is_left_to_compute() -> None:
    for name in OWN:
        kinds = {node.target for node in Frozen(trained(name)).layers.graph.nodes if node.op == "call_module"}
        modules = dict(Frozen(trained(name)).layers.named_modules())
        assert not any(isinstance(modules[str(target)], nn.BatchNorm2d) for target in kinds)


def test_a_model_of_another_kind_is_frozen_already() -> None:
    model = nn.Linear(2, 2)
    assert frozen(model) is model


def test_auto_is_bf16_where_the_processor_has_instructions_for_it() -> None:
    device, flags = torch.device("cpu"), set(Path("/proc/cpuinfo").read_text().split())
    has_it = bool(flags & {"avx512_bf16", "amx_bf16"})
    assert compute_dtype("auto", device) == (torch.bfloat16 if has_it else torch.float32)
    assert compute_dtype("fp32", device) == torch.float32
    assert compute_dtype("bf16", device) == torch.bfloat16


def test_in_bf16_features_are_near_and_weights_and_gradients_are_float32() -> None:
    network, inputs = trained("small-resnet"), torch.rand(8, 3, 16, 16)
    expected = network(inputs)
    network.features.dtype = torch.bfloat16
    logits = network(inputs)
    assert logits.dtype == torch.float32
    assert 0 < (logits - expected).abs().max() < 0.05 * expected.abs().max()
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())
