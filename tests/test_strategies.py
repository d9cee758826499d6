"""Sweeps replayed on a table: what the replays say where the best configuration is known."""

import sys
from pathlib import Path

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from effects import slopes
from replays.choices import Outcome, outcome, raced
from replays.lineup import TODAY
from replays.searches import Ended, Search, trials
from replays.table import Array, Table, decoded, encoded, weights
from replays.wide import SPACE as WIDE
from replays.world import Replay, World

from ltsd.config import Config
from sweeps.study.space import search_space

SPACE = {
    "distill.temperature": FloatDistribution(0.5, 8.0, log=True),
    "balance.softmax_tau": FloatDistribution(0.0, 2.0),
    "teacher.epochs": CategoricalDistribution([4, 7, 14]),
    "optim.lr": FloatDistribution(0.02, 0.3, log=True),
}
BEST = np.array([0.7, 0.3, 1.0, 0.6])
SEARCHED = ("distill", "balance", "optim")
LABELS = np.repeat(np.arange(4), 30)
EPOCHS = tuple(range(4, 41, 4))


def true_score(points: Array) -> Array:
    """The accuracy of configurations: 0.8 at the best, and nothing depends on the choice."""
    return 0.8 - 0.6 * ((points - BEST) ** 2)[..., [0, 1, 3]].sum(-1)


def table(noise: float, count: int = 60) -> Table:
    """A table of random points, of which the first is far from the best, whose seeds differ by so much."""
    random = np.random.default_rng(0)
    points = random.random((count, 4))
    points[:, 2] = random.integers(3, size=count) / 2
    points[0] = [0.3, 0.6, 0.5, 0.3]
    found = np.clip(true_score(points) + noise * random.standard_normal(count), 0, 1)
    right = (random.random(len(LABELS)) < found[:, None]).astype(float)
    curves = np.linspace(-0.3, 0, len(EPOCHS)) + found[:, None]
    sampled = np.stack([found, found - 0.2, found, found - 0.2, found, found], 1)
    return Table(
        SPACE, np.arange(count), points, (np.arange(count), points, sampled), np.stack([curves] * 2, 2), EPOCHS,
        right, LABELS, (3,), np.full(count, 10.0), np.full(count, 2.0),
    )  # fmt: skip


def sweeps(world: World, search: Search, count: int) -> list[Outcome]:
    """Replays of twelve trials each."""
    found = []
    for number in range(count):
        replay = Replay(world, number)
        ended = [one for one, _ in zip(trials(search, replay), range(12), strict=False)]
        found.append(outcome(search, 4, ended, replay))
    return found


def test_a_point_is_its_configuration_and_weights_are_a_mean_over_classes() -> None:
    params = {"distill.temperature": 2.0, "balance.softmax_tau": 0.5, "teacher.epochs": 14, "optim.lr": 0.1}
    assert decoded(np.array(encoded(params, SPACE)), SPACE) == pytest.approx(params)
    labels = np.array([0, 1, 1, 1, 2])
    assert weights(labels, [0, 1]) @ np.array([1, 1, 0, 0, 1]) == pytest.approx((1 + 1 / 3) / 2)


def test_the_landscape_foretells_what_was_not_measured_and_says_how_much_noise_there_is() -> None:
    noise = 0.02
    of = table(noise)
    world = World.made(of, 10, 0)
    elsewhere = np.random.default_rng(1).random((50, 4)) * 0.8 + 0.1
    foretold = np.mean([world.landscape.at(elsewhere, draw)[:, 2] for draw in range(10)], 0)
    assert np.abs(foretold - true_score(elsewhere)).mean() < noise
    assert world.landscape.quality(of)["test"][0] > 0.8
    assert world.landscape.noise()[0] == pytest.approx(noise, rel=0.5)
    assert world.costs.at(of.points) == pytest.approx(np.tile([10.0, 2.0], (len(of.points), 1)), rel=1e-3)


def test_a_sweep_finds_better_than_the_defaults_and_worse_and_falsely_where_there_is_more_noise() -> None:
    possible = true_score(BEST) - true_score(table(0.0).points[0])
    quiet, loud = World.made(table(0.01), 40, 0), World.made(table(0.15), 40, 0)
    of_quiet, of_loud = (sweeps(world, Search("random", groups=SEARCHED), 40) for world in (quiet, loud))
    gains = [float(np.mean([one.gain for one in found])) for found in (of_quiet, of_loud)]
    assert 0.5 * possible < gains[0] < possible + 0.03
    assert gains[1] < gains[0] - 0.01
    assert np.mean([one.excess for one in of_loud]) > np.mean([one.excess for one in of_quiet]) + 0.03
    assert np.mean([one.gain for one in sweeps(quiet, Search(startup=6, groups=SEARCHED), 5)]) > 0.5 * possible


def test_rungs_make_trials_cheaper_and_stop_the_poor_ones() -> None:
    world = World.made(table(0.01), 1, 0)

    def made(*rungs: int) -> list[Ended]:
        search = Search("random", groups=SEARCHED, rungs=rungs)
        return [one for one, _ in zip(trials(search, Replay(world, 0)), range(30), strict=False)]

    whole, cut = made(), made(24, 32)
    assert all(one.complete and one.seconds == pytest.approx(10, rel=1e-2) for one in whole)
    stopped = [one for one in cut if not one.complete]
    assert [one.seconds for one in stopped] == pytest.approx(
        [2 + 8 * EPOCHS[one.last] / 40 for one in stopped], rel=1e-2
    )
    assert {EPOCHS[one.last] for one in stopped} <= {24, 32}
    assert np.mean([one.run.truth[2] for one in stopped]) < np.mean([one.run.truth[2] for one in cut if one.complete])


def test_the_race_is_that_of_a_sweep_and_costs_what_is_trained_again() -> None:
    replay = Replay(World.made(table(0.01), 1, 0), 0)
    search = Search("random", groups=SEARCHED)
    ended = [one for one, _ in zip(trials(search, replay), range(12), strict=False)]
    found, seconds = raced(search, 4, ended, replay)
    assert len(found[0]) == 3
    assert sorted(len(scores) for number, scores in found.items() if number) == [1, 1, 2, 3]
    assert seconds == pytest.approx(10 * sum(len(scores) - 1 for scores in found.values()), rel=1e-2)
    assert all(scores[0] == pytest.approx(ended[number].run.reserve) for number, scores in found.items())


def test_today_searches_the_weight_decay_as_sweeps_do() -> None:
    base = Config.preset("digits")
    space = search_space(base, 20.0, (), TODAY.groups)
    assert {name: {**WIDE, **dict(TODAY.ranges)}[name] for name in space} == space


def test_slopes_are_those_of_a_plane_and_their_error_that_of_its_noise() -> None:
    random = np.random.default_rng(0)
    points, noise = random.random((400, 2)), 0.5
    plane = points @ np.array([[3.0, 0.0], [-2.0, 1.0]]) + 7
    found, errors = slopes(points, plane)
    assert found == pytest.approx(np.array([[3.0, 0.0], [-2.0, 1.0]]))
    assert errors == pytest.approx(0, abs=1e-6)
    _, errors = slopes(points, plane + noise * random.standard_normal(plane.shape))
    assert errors == pytest.approx(noise * np.sqrt(12 / 400), rel=0.15)
