"""Layers with the weights of other layers in eval mode, BatchNorm folded into convolutions.

BatchNorm with running statistics is an affine map and, after a convolution, part of its weights. For tiny images, a
convolution is a matrix product (`ltsd.models.conv_as_matmul`).
"""

from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ltsd.models.conv_as_matmul import ConvAsMatmul, is_cheaper_as_matmul
from ltsd.models.network import Opaque

ROUNDING = 0.05
"""Share of the answers' length by which folding may move them, in bfloat16 too."""


class Copy(nn.Module):
    """A module that computes with a copy of another one's weights."""

    def refresh(self) -> None:
        """Copy the current weights."""
        raise NotImplementedError


class Affine(Copy):
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


class Folded(Copy):
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
        weight, bias = self.source.weight, self.source.bias
        if self.norm is not None:
            weight, bias = _fused(self.source, self.norm)
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


class FoldedInPlace(Copy):
    """A convolution with a forward pass of its own, such as one that pads first, and the BatchNorm that follows it."""

    def __init__(self, source: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.source = source
        self.norm = norm
        self.conv = deepcopy(source)
        self.conv.bias = nn.Parameter(source.weight.new_empty(source.out_channels), requires_grad=False)

    def refresh(self) -> None:
        """Copy the current convolution and BatchNorm."""
        weight, bias = _fused(self.source, self.norm)
        self.conv.weight.copy_(weight)
        assert self.conv.bias is not None
        self.conv.bias.copy_(bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolve inputs [B, C, H, W]."""
        outputs: Tensor = self.conv(inputs)
        return outputs


class Copied(Copy):
    """A copy in eval mode of a layer that somebody else wrote, with BatchNorm folded where that gives its answers.

    Whether it does is decided at the first inputs: torch.fx cannot trace every network, and can trace one wrongly.
    """

    def __init__(self, source: Opaque, dtype: torch.dtype) -> None:
        super().__init__()
        self.source = source
        self.copy = deepcopy(source)
        _separate_activations(self.copy)
        self.copy.eval().requires_grad_(False)
        self._folds: Sequence[Copy] = ()
        self._traced: nn.Module = self.copy
        self._chosen: nn.Module | None = None
        if any(isinstance(module, nn.BatchNorm2d) for module in self.copy.modules()):
            try:
                self._traced, self._folds = folded(self.copy, dtype)
            except Exception:  # a trace raises what the network's own code raises at something that is no tensor
                self._traced = self.copy

    def refresh(self) -> None:
        """Copy the current weights and running statistics."""
        for place, tensor in zip(self.copy.state_dict().values(), self.source.state_dict().values(), strict=True):
            place.copy_(tensor)
        for fold in self._folds:
            fold.refresh()

    def forward(self, inputs: Tensor) -> Tensor:
        """Answer as the layer does; the first inputs decide how."""
        if self._chosen is None:
            self._chosen = self._first_right(inputs)
        outputs: Tensor = self._chosen(inputs)
        return outputs

    @torch.no_grad()
    def _first_right(self, inputs: Tensor) -> nn.Module:
        if self._traced is self.copy:
            return self.copy
        expected = self.copy(inputs)
        try:
            error = (self._traced(inputs) - expected).norm()
        except Exception:  # as above
            return self.copy
        return self._traced if error <= ROUNDING * expected.norm() else self.copy


class Pooled(nn.Module):
    """The mean of every channel over the image, with the bits of `AdaptiveAvgPool2d(1)`.

    Its gradient has the memory layout of the images, channels last: otherwise ReLU's backward pass is many times as
    slow.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, 1, 1]."""
        return inputs.permute(0, 2, 3, 1).flatten(1, 2).mean(1)[:, :, None, None]


def folded(layers: nn.Module, dtype: torch.dtype) -> tuple[fx.GraphModule, list[Copy]]:
    """Return the same computation in eval mode with BatchNorm folded, and the modules that hold its weights."""
    traced = fx.GraphModule(layers, _Tracer().trace(layers))
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    copies: list[Copy] = []
    for node in traced.graph.nodes:
        module = modules.get(node.target) if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d):
            after = next(iter(node.users), node)
            alone = len(node.users) == calls[node.target] == calls[after.target] == 1
            norm = modules.get(after.target) if alone else None
            norm = norm if isinstance(norm, nn.BatchNorm2d) and _is_affine(norm) else None
            if type(module).forward is nn.Conv2d.forward:
                copies.append(Folded(module, norm, dtype))
            elif norm is not None:
                copies.append(FoldedInPlace(module, norm))
            else:
                continue
            if norm is not None:
                after.replace_all_uses_with(node)
                traced.graph.erase_node(after)
        elif isinstance(module, nn.BatchNorm2d) and _is_affine(module):
            copies.append(Affine(module, dtype))
        elif isinstance(module, Opaque):
            copies.append(Copied(module, dtype))
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
        return isinstance(m, Opaque | nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


def _separate_activations(layers: nn.Module) -> None:
    """Replace each of timm's BatchNorms that have an activation by a BatchNorm and the activation."""
    for name, module in list(layers.named_modules()):
        if not isinstance(module, nn.BatchNorm2d) or type(module) is nn.BatchNorm2d or not hasattr(module, "act"):
            continue
        norm = nn.BatchNorm2d(module.num_features, module.eps, affine=module.affine)
        norm.weight, norm.bias = module.weight, module.bias
        for name_of, buffer in module.named_buffers(recurse=False):
            norm.register_buffer(name_of, buffer)
        activation: Any = module
        layers.set_submodule(name, nn.Sequential(norm, activation.drop, activation.act))


def _is_affine(norm: nn.BatchNorm2d) -> bool:
    return norm.affine and norm.track_running_stats


def _fused(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the weight and the bias of a convolution and the BatchNorm after it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
