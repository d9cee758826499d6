"""A network as attacks see it: fixed weights, BatchNorm folded into the convolutions, its own precision.

An attack runs a fixed network forwards and backwards many times and needs one gradient, that of the inputs. BatchNorm
with running statistics is an affine map and, after a convolution, part of its weights. For tiny images, a convolution
is a matrix product (`ltsd.models.conv_as_matmul`).
"""

from copy import deepcopy
from typing import Self

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ltsd.models.conv_as_matmul import ConvAsMatmul, is_cheaper_as_matmul
from ltsd.models.network import Network, Opaque


class Affine(nn.Module):
    """BatchNorm in eval mode without a convolution before it: a factor and a shift for each channel."""

    def __init__(self, norm: nn.BatchNorm2d, dtype: torch.dtype) -> None:
        super().__init__()
        shape = (1, norm.num_features, 1, 1)
        self.norm = norm
        self.factor = torch.empty(shape, dtype=dtype, device=norm.weight.device)
        self.shift = torch.empty_like(self.factor)

    def refresh(self) -> None:
        """Copy the current BatchNorm."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        self.factor.copy_(factor.view_as(self.factor))
        self.shift.copy_((norm.bias - norm.running_mean * factor).view_as(self.shift))

    def forward(self, inputs: Tensor) -> Tensor:
        """Scale and shift each channel of inputs [B, C, H, W]."""
        return torch.addcmul(self.shift, inputs, self.factor)


class Folded(nn.Module):
    """A convolution with the BatchNorm in eval mode that follows it, if one does.

    How it computes is decided once for each image size, at the first images of that size.
    """

    def __init__(self, source: nn.Conv2d, norm: nn.BatchNorm2d | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.source = source
        self.norm = norm
        self.weight = torch.empty_like(source.weight, dtype=dtype, requires_grad=False)
        self.bias = None
        if norm is not None or source.bias is not None:
            self.bias = source.weight.new_empty(source.out_channels, dtype=dtype)
        self._dense: dict[torch.Size, ConvAsMatmul | None] = {}

    def refresh(self) -> None:
        """Copy the current convolution and BatchNorm."""
        self._fold()
        for dense in self._dense.values():
            if dense is not None:
                dense.refresh(self.weight, self.bias)

    def _fold(self) -> None:
        weight, bias, norm = self.source.weight, self.source.bias, self.norm
        if norm is not None:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            weight, bias = fuse_conv_bn_weights(
                weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
        self.weight.copy_(weight)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolve inputs [B, C, H, W]; the first of a size decide how."""
        conv, size = self.source, inputs.shape[2:]
        if size not in self._dense:
            self._dense[size] = self._dense_for(inputs)
        dense = self._dense[size]
        if dense is not None:
            return dense.forward(inputs)
        return torch.conv2d(inputs, self.weight, self.bias, conv.stride, conv.padding, conv.dilation, conv.groups)

    @torch.inference_mode(False)  # what inference mode makes could not be part of a gradient later
    def _dense_for(self, inputs: Tensor) -> ConvAsMatmul | None:
        if not is_cheaper_as_matmul(self.source, inputs):
            return None
        dense = ConvAsMatmul(self.source, inputs.shape[2:], self.weight.dtype)
        dense.refresh(self.weight, self.bias)
        return dense


class Copied(nn.Module):
    """A layer in eval mode that is computed as it is written, BatchNorm and all."""

    def __init__(self, source: Opaque) -> None:
        super().__init__()
        self.source = source
        self.copy = deepcopy(source).eval().requires_grad_(False)

    def refresh(self) -> None:
        """Copy the current weights and running statistics."""
        for place, tensor in zip(self.copy.state_dict().values(), self.source.state_dict().values(), strict=True):
            place.copy_(tensor)

    def forward(self, inputs: Tensor) -> Tensor:
        """Answer as the layer does."""
        outputs: Tensor = self.copy(inputs)
        return outputs


class Pooled(nn.Module):
    """The mean of every channel over the image, with the bits of `AdaptiveAvgPool2d(1)`.

    Its gradient has the memory layout of the images, channels last: otherwise ReLU's backward pass is many times as
    slow.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, 1, 1]."""
        return inputs.permute(0, 2, 3, 1).flatten(1, 2).mean(1)[:, :, None, None]


class Frozen(nn.Module):
    """A network in eval mode with the weights of the last `refresh`; only the inputs take a gradient.

    Answers differ from the network's by rounding, in bfloat16 by its 8 bits. The head computes in float32, and is the
    network's own.
    """

    def __init__(self, network: Network, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.head = network.head
        self.layers, self._copies = folded(nn.Sequential(*network.features), dtype)
        self._dtype = dtype
        self.refresh()

    def train(self, mode: bool = True) -> Self:
        """Do nothing: there is one mode, and the network's own modules keep theirs."""
        return self

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the network's current weights and running statistics."""
        for copy in self._copies:
            copy.refresh()

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> logits [B, num_classes], both float32."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            features: Tensor = self.layers(inputs)
        logits: Tensor = self.head(features.to(inputs.dtype))
        return logits


def frozen(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Freeze a network as it is; return any other model unchanged."""
    return Frozen(model, dtype) if isinstance(model, Network) else model


def folded(layers: nn.Module, dtype: torch.dtype) -> tuple[fx.GraphModule, list[Folded | Affine | Copied]]:
    """Return the same computation in eval mode with BatchNorm folded, and the modules that hold its weights."""
    traced = fx.GraphModule(layers, _Tracer().trace(layers))
    modules = dict(traced.named_modules())
    copies: list[Folded | Affine | Copied] = []
    for node in traced.graph.nodes:
        module = modules.get(node.target) if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d):
            after = next(iter(node.users))
            norm = modules.get(after.target) if after.op == "call_module" and len(node.users) == 1 else None
            norm = norm if isinstance(norm, nn.BatchNorm2d) else None
            copies.append(Folded(module, norm, dtype))
            if norm is not None:
                after.replace_all_uses_with(node)
                traced.graph.erase_node(after)
        elif isinstance(module, nn.BatchNorm2d):
            copies.append(Affine(module, dtype))
        elif isinstance(module, Opaque):
            copies.append(Copied(module))
        elif isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size == 1:
            traced.set_submodule(node.target, Pooled())
            continue
        else:
            continue
        traced.set_submodule(node.target, copies[-1])
    traced.recompile()
    return traced, copies


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Opaque) or super().is_leaf_module(m, module_qualified_name)
