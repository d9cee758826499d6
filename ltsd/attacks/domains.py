"""Where a perturbation lives: the ball around an input, and how an attack starts and steps in it."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ltsd.padding import before_padding

Radius = float | Tensor

GAUSSIAN_SPREAD = 0.001


class Ball(Protocol):
    """What is within a radius of some inputs [B, ...]."""

    def project(self, point: Tensor) -> Tensor:
        """Return the nearest point of the ball, [B, ...]."""

    def step(self, here: Tensor, gradient: Tensor, step_size: Radius) -> Tensor:
        """Return the point of the ball that is a step along the gradient away; a gradient of 0 stays."""


class Domain(Protocol):
    """What inputs are, and which of them lie near each other."""

    def ball(self, inputs: Tensor, eps: Radius) -> Ball:
        """Return the ball around inputs [B, ...]; eps is a number, or broadcasts to the inputs."""

    def uniform(self, inputs: Tensor, *, eps: Radius, generator: torch.Generator) -> Tensor:
        """Return a uniform draw from the ball around inputs [B, ...]."""

    def gaussian(self, inputs: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return inputs [B, ...] with a little normal noise: a divergence from the inputs has no gradient at the
        inputs.
        """


@dataclass(frozen=True)
class Bounded:
    """An L-infinity ball that ends where the range of the inputs does, between `low` and `high` [B, ...]."""

    low: Tensor
    high: Tensor

    def project(self, point: Tensor) -> Tensor:
        """Return the nearest point of the ball, [B, ...]."""
        return point.clamp(self.low, self.high)

    def step(self, here: Tensor, gradient: Tensor, step_size: Radius) -> Tensor:
        """Return the point of the ball that is a step along the sign of the gradient away."""
        return (here + step_size * gradient.sign()).clamp_(self.low, self.high)


@dataclass(frozen=True)
class Range:
    """Inputs whose every value is in a range from `low` to `high`, such as pixels, near in the L-infinity norm."""

    low: float
    high: float

    def ball(self, inputs: Tensor, eps: Radius) -> Ball:
        """Return the part of the ball of radius eps that is in the range."""
        return Bounded((inputs - eps).clamp_(self.low, self.high), (inputs + eps).clamp_(self.low, self.high))

    def uniform(self, inputs: Tensor, *, eps: Radius, generator: torch.Generator) -> Tensor:
        """Return the inputs with every value moved by a uniform draw from [-eps, eps]."""
        noise = torch.rand(inputs.shape, generator=generator, device=inputs.device, dtype=inputs.dtype)
        return (inputs + eps * (2 * noise - 1)).clamp_(self.low, self.high)

    def gaussian(self, inputs: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return the inputs with normal noise of a standard deviation of GAUSSIAN_SPREAD."""
        noise = torch.randn(inputs.shape, generator=generator, device=inputs.device, dtype=inputs.dtype)
        return (inputs + GAUSSIAN_SPREAD * noise).clamp_(self.low, self.high)


@dataclass(frozen=True)
class Waveforms(Range):
    """Sound [B, C, T]: the zeros after its last sound, which pad a clip to its length, stay zeros."""

    def ball(self, inputs: Tensor, eps: Radius) -> Ball:
        """Return the part of the ball of radius eps that is in the range, and in the padding the padding alone."""
        return super().ball(inputs, eps * before_padding(inputs))

    def uniform(self, inputs: Tensor, *, eps: Radius, generator: torch.Generator) -> Tensor:
        """Return the inputs with every value before the padding moved by a uniform draw from [-eps, eps]."""
        return super().uniform(inputs, eps=eps * before_padding(inputs), generator=generator)


@dataclass(frozen=True)
class Scaled:
    """An L2 ball around every position of `centre` [B, D, L], of a radius [B, 1, L]; a step is relative to `norm`, the
    length of the vector at each position.
    """

    centre: Tensor
    norm: Tensor
    radius: Tensor

    def project(self, point: Tensor) -> Tensor:
        """Return the nearest point of the ball, [B, D, L]."""
        moved = point - self.centre
        return self.centre + moved * (self.radius / _length(moved)).clamp_max(1)

    def step(self, here: Tensor, gradient: Tensor, step_size: Radius) -> Tensor:
        """Return the point of the ball that is a step along the gradient of each position away."""
        return self.project(here + step_size * self.norm * gradient / _length(gradient))


@dataclass(frozen=True)
class Vectors:
    """Sequences of vectors [B, D, L], such as the embeddings of words. A vector is near another one in the L2 norm, and
    eps is relative to its length, so that the zeros that pad a sequence stay zeros (Miyato et al. 2017; Zhu et al.
    2020).
    """

    def ball(self, inputs: Tensor, eps: Radius) -> Ball:
        """Return the balls around the vectors, of radius eps times their length."""
        norm = _norm(inputs)
        return Scaled(inputs, norm, eps * norm)

    def uniform(self, inputs: Tensor, *, eps: Radius, generator: torch.Generator) -> Tensor:
        """Return a uniform draw from the balls: a normal direction, and a length of radius times u^(1/D)."""
        batch, size, length = inputs.shape
        kind, device = inputs.dtype, inputs.device
        direction = torch.randn(inputs.shape, generator=generator, device=device, dtype=kind)
        uniform = torch.rand((batch, 1, length), generator=generator, device=device, dtype=kind)
        reach = eps * _norm(inputs) * uniform ** (1 / size)
        return inputs + reach * direction / _length(direction)

    def gaussian(self, inputs: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return the vectors with normal noise of a standard deviation of GAUSSIAN_SPREAD times their length."""
        noise = torch.randn(inputs.shape, generator=generator, device=inputs.device, dtype=inputs.dtype)
        return inputs + GAUSSIAN_SPREAD * _norm(inputs) * noise


def _norm(vectors: Tensor) -> Tensor:
    """Return the L2 norms [B, 1, L] of vectors [B, D, L]."""
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return norms


def _length(vectors: Tensor) -> Tensor:
    """Return the L2 norms [B, 1, L] of vectors [B, D, L], no less than the smallest number that divides."""
    return _norm(vectors).clamp_min(torch.finfo(vectors.dtype).tiny)


PIXELS = Range(0.0, 1.0)
SOUND = Waveforms(-1.0, 1.0)
WORDS = Vectors()
