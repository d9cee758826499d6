"""What a run anywhere in the space would score, and cost, from those that were made."""

import warnings
from dataclasses import dataclass

import numpy as np
from optuna.distributions import CategoricalDistribution
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold

from replays.table import SCORES, Array, Table

FITTED = 400
"""Rows that hyperparameters are fitted on, at most; the posterior sees all."""
FEATURES = 512
CEILING = 1.02


@dataclass(frozen=True)
class Process:
    """A Gaussian process (Matérn 5/2, a length for each coordinate) given data; draws of functions from its posterior.

    A draw is one of the prior, of random Fourier features, corrected by what the data say (Wilson et al. 2020).
    """

    inputs: Array
    lengths: Array
    scale: float
    noise: float
    frequencies: Array
    prior: Array
    correction: Array

    @classmethod
    def fitted(cls, inputs: Array, values: Array, draws: int, random: np.random.Generator) -> "Process":
        """Hyperparameters by maximum likelihood, on `FITTED` random rows at most."""
        kernel = ConstantKernel(1.0, (1e-3, 1e3)) * Matern(np.ones(inputs.shape[1]), (0.1, 30.0), 2.5)
        model = GaussianProcessRegressor(kernel + WhiteKernel(0.1, (1e-4, 10.0)), random_state=0)
        rows = random.permutation(len(inputs))[:FITTED]
        with warnings.catch_warnings():
            # A length at its upper bound is a knob that does nothing.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = model.fit(inputs[rows], values[rows]).kernel_
        lengths, scale = found.k1.k2.length_scale, float(found.k1.k1.constant_value)
        chi = random.chisquare(5, (FEATURES, 1)) / 5
        frequencies = random.standard_normal((FEATURES, inputs.shape[1])) / np.sqrt(chi) / lengths
        prior = random.standard_normal((2 * FEATURES, draws)) * np.sqrt(scale / FEATURES)
        one = cls(inputs, lengths, scale, float(found.k2.noise_level), frequencies, prior, np.zeros((0, draws)))
        noise = random.standard_normal((len(inputs), draws)) * np.sqrt(one.noise)
        missing = values[:, None] - one.features(inputs) @ prior - noise
        correction = cho_solve(cho_factor(one.covariance(inputs) + one.noise * np.eye(len(inputs))), missing)
        return cls(inputs, lengths, scale, one.noise, frequencies, prior, correction)

    def features(self, points: Array) -> Array:
        """Of a draw from the prior, [M, 2 x FEATURES]."""
        angles = points @ self.frequencies.T
        return np.concatenate([np.cos(angles), np.sin(angles)], 1)

    def covariance(self, points: Array) -> Array:
        """With the inputs, [M, N]."""
        far = np.sqrt(5) * cdist(points / self.lengths, self.inputs / self.lengths)
        return self.scale * (1 + far + far**2 / 3) * np.exp(-far)

    def at(self, points: Array, draw: int | slice) -> Array:
        """One draw, or several, at points."""
        return self.features(points) @ self.prior[:, draw] + self.covariance(points) @ self.correction[:, draw]

    def mean_without(self, values: Array, left_out: Array) -> Array:
        """The posterior's mean at some inputs, from the others."""
        kept = np.setdiff1d(np.arange(len(self.inputs)), left_out)
        whole = self.covariance(self.inputs)
        known = whole[np.ix_(kept, kept)] + self.noise * np.eye(len(kept))
        return whole[np.ix_(left_out, kept)] @ np.linalg.solve(known, values[kept])


def _warped(scores: Array) -> Array:
    """Scores so that the few configurations that fail outright do not outweigh all others."""
    return -np.log(CEILING - scores)


@dataclass(frozen=True)
class Landscape:
    """Draws of all scores together: on a logarithm of what is wrong, and turned to their principal components."""

    mean: Array
    basis: Array
    processes: tuple[Process, ...]

    @classmethod
    def fitted(cls, table: Table, draws: int, random: np.random.Generator) -> "Landscape":
        """To all that is known of the scores."""
        _, points, scores = table.sampled
        mean, spread = _warped(scores).mean(0), _warped(scores).std(0)
        _, _, directions = np.linalg.svd((_warped(scores) - mean) / spread, full_matrices=False)
        one = cls(mean, directions * spread, ())
        processes = [Process.fitted(points, of, draws, random) for of in one.components(scores).T]
        return cls(mean, one.basis, tuple(processes))

    def components(self, scores: Array) -> Array:
        """The principal components of scores."""
        return (_warped(scores) - self.mean) @ np.linalg.inv(self.basis)

    def scores(self, components: Array) -> Array:
        """What components stand for."""
        return np.clip(CEILING - np.exp(-self.mean - components @ self.basis), 0, 1)

    def at(self, points: Array, draw: int | slice) -> Array:
        """The scores [M, SCORES], or [M, draws, SCORES], free of noise."""
        return self.scores(np.stack([process.at(points, draw) for process in self.processes], -1))

    def quality(self, table: Table) -> dict[str, tuple[float, float]]:
        """R2 and Spearman's correlation of each score out of sample: ten folds, no configuration in two."""
        configurations, points, scores = table.sampled
        components = self.components(scores)
        found = np.zeros_like(components)
        for _, rows in GroupKFold(10).split(points, groups=configurations):
            for i, process in enumerate(self.processes):
                found[rows, i] = process.mean_without(components[:, i], rows)
        pairs = zip(SCORES, scores.T, self.scores(found).T, strict=True)
        return {name: (float(r2_score(*pair)), float(spearmanr(*pair).statistic)) for name, *pair in pairs}

    def noise(self) -> Array:
        """The standard deviation of the scores of a run around its configuration's, near the middle of all."""
        middle = np.zeros((1000, len(SCORES)))
        spread = np.random.default_rng(0).standard_normal(middle.shape) * [
            process.noise**0.5 for process in self.processes
        ]
        return self.scores(middle + spread).std(0)


class Costs:
    """Seconds of a run, and of its teacher: the logarithm is linear in the ranges and of its own for each choice."""

    def __init__(self, table: Table) -> None:
        self._space = table.space
        known = self._features(table.points)
        logs = np.log(np.stack([table.seconds, table.teacher_seconds], 1))
        gram = known.T @ known + 0.1 * np.eye(known.shape[1])
        self._mean = logs.mean(0)
        self._slopes = np.linalg.solve(gram, known.T @ (logs - self._mean))

    def at(self, points: Array) -> Array:
        """Seconds of the run with its teacher, and of the teacher, [M, 2]."""
        return np.exp(self._mean + self._features(points) @ self._slopes)

    def _features(self, points: Array) -> Array:
        columns = [np.ones(len(points))]
        for i, among in enumerate(self._space.values()):
            if isinstance(among, CategoricalDistribution):
                place = np.round(points[:, i] * max(1, len(among.choices) - 1))
                columns += [place == n for n in range(len(among.choices))]
            else:
                columns.append(points[:, i])
        return np.stack(columns, 1).astype(float)
