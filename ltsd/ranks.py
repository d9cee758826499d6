"""Ranks: processes that train one model together. Each answers a share of every batch.

A rank has the whole batch, and computes the loss of all of it: only what networks compute is shared out. So a method
needs to know nothing of ranks, whatever its loss is a function of. With one rank every function here does nothing.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ltsd.errors import UserError


@contextmanager
def joined(*, gpu: int | None, **group: Any) -> Iterator[None]:
    """Be one of several ranks in the body.

    Args:
        gpu: the index of this rank's GPU; None for the processor.
        group: as `torch.distributed.init_process_group` takes it, such as `init_method`, `rank` and
            `world_size`.
    """
    if gpu is not None:
        torch.cuda.set_device(gpu)
    dist.init_process_group("gloo" if gpu is None else "nccl", **group)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def joined_by_torchrun() -> Iterator[None]:
    """Be one of the ranks that torchrun started in the body; do nothing if it started none."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    with joined(gpu=int(os.environ["LOCAL_RANK"]) if torch.cuda.is_available() else None):
        yield


def wait() -> None:
    """Wait until all ranks are here."""
    if count() > 1:
        dist.barrier()


def count() -> int:
    """Return how many ranks there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Return whether this rank is the one that tells and writes what the ranks do."""
    return not dist.is_initialized() or dist.get_rank() == 0


def check_batch(size: int) -> None:
    """Check that a training batch can be shared out.

    Raises:
        UserError: it is smaller than the number of ranks.
    """
    if size < count():
        raise UserError(
            f"a training batch of {size} is too small for {count()} GPUs to share; give fewer GPUs, or larger batches "
            f"by --optim.batch-size and --teacher.batch-size"
        )


class Shared(nn.Module):
    """A network each rank of which answers its share of a batch, in training with the batch statistics of all."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        for name, part in network.named_children():
            if name in ("features", "head"):
                self.add_module(name, Shared(part))

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs [B, ...] -> what the network answers to all of them [B, ...], the same on all ranks."""
        with _GlobalStatistics():
            own = self.network(_OwnShare.apply(inputs))
        answers: Tensor = _All.apply(own, len(inputs))
        return answers


def shared(network: nn.Module) -> nn.Module:
    """Return a network that all ranks answer together; with one rank, the network itself."""
    return network if count() == 1 else Shared(network)


@torch.no_grad()
def sum_over_ranks(tensors: Iterable[Tensor | None]) -> None:
    """Replace tensors by their sums over all ranks, in place."""
    if count() > 1:
        own = [tensor for tensor in tensors if tensor is not None]
        summed = torch.cat([tensor.flatten() for tensor in own])
        dist.all_reduce(summed)
        for tensor, part in zip(own, summed.split([tensor.numel() for tensor in own]), strict=True):  # type: ignore[no-untyped-call]
            tensor.copy_(part.view_as(tensor))


@torch.no_grad()
def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by those of the first rank, in place, so that rounding never leads ranks apart."""
    if count() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


class _OwnShare(torch.autograd.Function):
    """The share of a rank in a batch; backward, the gradient of the whole batch."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        """Return the rank's part of inputs [B, ...]; parts differ by one example at most."""
        ctx.size = len(inputs)
        return _share(inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Join the gradients of the parts."""
        return _gathered(gradients[0], ctx.size)


class _All(torch.autograd.Function):
    """The answers of all ranks; backward, the gradient of a rank's own answers: all ranks compute the same loss."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, size: int) -> Tensor:
        """Join the parts to [size, ...]."""
        return _gathered(own, size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the part of the rank."""
        return _share(gradients[0]), None


class _Sum(torch.autograd.Function):
    """The sum over all ranks; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        """Return the sum."""
        return _summed(own)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the sum of the gradients."""
        return _summed(gradients[0])


def _share(whole: Tensor) -> Tensor:
    """Return the rank's part of [B, ...]."""
    return whole.tensor_split(count())[dist.get_rank()]


def _gathered(own: Tensor, size: int) -> Tensor:
    """Join the parts of all ranks to [size, ...]."""
    longest = -(-size // count())
    filled = torch.cat([own, own.new_zeros(longest - len(own), *own.shape[1:])])
    parts = [torch.empty_like(filled) for _ in range(count())]
    dist.all_gather(parts, filled)
    lengths = [len(positions) for positions in torch.arange(size).tensor_split(count())]
    return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])


def _summed(own: Tensor) -> Tensor:
    total = own.clone()
    dist.all_reduce(total)
    return total


class _GlobalStatistics(TorchFunctionMode):
    """Normalise batches by the statistics of all ranks. `nn.SyncBatchNorm` does so on GPUs alone."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See `TorchFunctionMode`."""
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    inputs: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm` of the batch of all ranks."""
    if not training:
        return F.batch_norm(inputs, running_mean, running_var, weight, bias, False, momentum, eps)
    values = inputs.float()
    others = [d for d in range(inputs.ndim) if d != 1]
    form = [1, -1, *[1] * (inputs.ndim - 2)]
    total = _summed(values.new_tensor(inputs.numel() // inputs.shape[1]))
    mean = _Sum.apply(values.sum(others)) / total
    centred = values - mean.view(form)
    variance = _Sum.apply(centred.square().sum(others)) / total
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.detach(), momentum)
            running_var.lerp_(variance.detach() * (total / (total - 1)), momentum)
    scale = torch.rsqrt(variance + eps) if weight is None else weight * torch.rsqrt(variance + eps)
    normalised: Tensor = centred * scale.view(form)
    return (normalised if bias is None else normalised + bias.view(form)).to(inputs.dtype)
