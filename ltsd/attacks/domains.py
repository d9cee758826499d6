"""Threat models: the ball of allowed perturbations around an input, and how an attack starts and steps in it."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ltsd.padding import before_padding

Radius = float | Tensor

GAUSSIAN_SPREAD = 0.001


class Ball(Protocol):
    """The points within a radius of inputs [B, ...]."""

    def project(self, point: Tensor) -> Tensor:
        """Return the nearest point of the ball, [B, ...]."""

    def step(self, here: Tensor, gradient: Tensor, step_size: Radius) -> Tensor:
        """Move from `here` along the gradient and project into the ball; a gradient of 0 does not move."""


class Domain(Protocol):
    """The kind of inputs and the norm that measures their distance."""

    def ball(self, inputs: Tensor, eps: Radius) -> Ball:
        """Return the ball around inputs [B, ...]; eps is a number, or broadcasts to the inputs."""

    def uniform(self, inputs: Tensor, *, eps: Radius, generator: torch.Generator) -> Tensor:
        """Return a uniform draw from the ball around inputs [B, ...]."""

    def gaussian(self, inputs: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return inputs [B, ...] with small normal noise: a start for attacks on a KL divergence from the answers to
        the inputs, whose gradient is 0 at the inputs.
        """


@dataclass(frozen=True)
class Bounded:
    """An L-infinity ball clipped to the range of the inputs: all points between `low` and `high` [B, ...]."""

    low: Tensor
    high: Tensor

    def project(self, point: Tensor) -> Tensor:
        """Return the nearest point of the ball, [B, ...]."""
        return point.clamp(self.low, self.high)

    def step(self, here: Tensor, gradient: Tensor, step_size: Radius) -> Tensor:
        """Move from `here` along the sign of the gradient and project into the ball."""
        return (here + step_size * gradient.sign()).clamp_(self.low, self.high)


@dataclass(frozen=True)
class Range:
    """Inputs with all values in [low, high], such as pixels, with the L-infinity norm."""

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
    """Waveforms [B, C, T] with values in [low, high]; the zero padding at the end of a clip is not perturbed."""

    def ball(self, inputs: Tensor, eps: Radius) -> Ball:
        """Return the part of the ball of radius eps that is in the range; the radius is 0 in the padding."""
        return super().ball(inputs, eps * before_padding(inputs))

    def uniform(self, inputs: Tensor, *, eps: Radius, generator: torch.Generator) -> Tensor:
        """Return the inputs with every value before the padding moved by a uniform draw from [-eps, eps]."""
        return super().uniform(inputs, eps=eps * before_padding(inputs), generator=generator)


@dataclass(frozen=True)
class Scaled:
    """L2 balls around the vectors of `centre` [B, D, L], one for each position, with radii `radius` [B, 1, L].

    Steps are relative to `norm` [B, 1, L], the length of each vector.
    """

    centre: Tensor
    norm: Tensor
    radius: Tensor

    def project(self, point: Tensor) -> Tensor:
        """Return the nearest point of the ball, [B, D, L]."""
        moved = point - self.centre
        return self.centre + moved * (self.radius / _length(moved)).clamp_max(1)

    def step(self, here: Tensor, gradient: Tensor, step_size: Radius) -> Tensor:
        """Move each vector of `here` along its normalised gradient and project into the ball."""
        return self.project(here + step_size * self.norm * gradient / _length(gradient))


@dataclass(frozen=True)
class Vectors:
    """Sequences of vectors [B, D, L], such as word embeddings, with the L2 norm of each vector.

    A radius eps is relative to the length of the vector, so zero padding stays zero (Miyato et al. 2017; Zhu et al.
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
    """Return the L2 norms [B, 1, L] of vectors [B, D, L], at least the smallest normal number, for safe division."""
    return _norm(vectors).clamp_min(torch.finfo(vectors.dtype).tiny)


PIXELS = Range(0.0, 1.0)
SOUND = Waveforms(-1.0, 1.0)
WORDS = Vectors()
