"""How the finalist of a replay is found, and what it is worth."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replays.searches import Ended, Search
from replays.table import CLEAN, TEST
from replays.world import Replay, Run
from sweeps.findings.confirm import DEFAULTS, SEEDS


@dataclass(frozen=True)
class Choice:
    """How the finalist is found: so many of the best are confirmed beside the defaults, which give way to a lead over
    its `error`: of the scores of the two, of those of all that are confirmed, or none. `racing`: there are as many
    confirmations as for so many, one by one; who is clearly behind after two seeds has no third.
    """

    confirm: int = 1
    error: str = "own"
    racing: bool = False


@dataclass(frozen=True)
class Outcome:
    """Of a replay: the finalist against the defaults, in truth and on the test set; by how much the best trial's score
    is above its truth; the same of the finalist's confirmed mean, and of that shrunken.
    """

    gain: float
    tail_gain: float
    clean_gain: float
    excess: float
    confirmed: float
    shrunken: float
    trials: int
    defaults: bool
    seconds: float


def outcome(search: Search, choice: Choice, ended: Sequence[Ended], replay: Replay) -> Outcome:
    """Confirm, choose and judge."""
    complete = [i for i, one in enumerate(ended) if one.complete]
    ranked = sorted(complete, key=lambda i: -search.value(ended[i].scores[-1]))
    confirm = _raced if choice.racing else _confirmed
    found = confirm(search, choice, ranked, ended, replay)
    final = finalist(found, choice.error)
    truth, defaults, best = ended[final].run.truth, ended[DEFAULTS].run.truth, ended[ranked[0]]
    estimate = statistics.fmean(found[final])
    prior = [float(search.value(ended[i].scores[-1])) for i in complete]
    true = float(search.value(truth[TEST]))
    gains = [float(truth[part][i] - defaults[part][i]) for part, i in ((TEST, 0), (TEST, 1), (CLEAN, 0))]
    excess = float(search.value(best.scores[-1]) - search.value(best.run.truth[TEST]))
    more = sum((len(values) - 1) * ended[i].run.seconds for i, values in found.items())
    seconds = sum(one.seconds for one in ended) + more
    shrunken = shrunk(estimate, len(found[final]), prior, _variance(found))
    return Outcome(*gains, excess, estimate - true, shrunken - true, len(ended), final == DEFAULTS, seconds)


def finalist(found: Mapping[int, Sequence[float]], error: str) -> int:
    """The number of the trial with the highest mean, unless the defaults hold it off."""
    means = {number: statistics.fmean(values) for number, values in found.items() if len(values) == SEEDS}
    best = max(means, key=lambda number: means[number])
    of_two = sum(statistics.variance(found[number]) for number in (best, DEFAULTS))
    variances = {"own": of_two, "all": 2 * _variance(found), "none": 0.0}
    noise = math.sqrt(variances[error] / SEEDS)
    return best if means[best] - means[DEFAULTS] > noise else DEFAULTS


def _variance(found: Mapping[int, Sequence[float]]) -> float:
    """Of a seed's score, from all that are confirmed."""
    return statistics.fmean(statistics.variance(values) for values in found.values() if len(values) > 1)


def shrunk(mean: float, seeds: int, prior: Sequence[float], variance: float) -> float:
    """Empirical Bayes: a mean over seeds, drawn towards that of the complete trials' scores, which spread by what
    configurations and seeds do.
    """
    between = max(0.0, statistics.variance(prior) - variance) if len(prior) > 1 else 0.0
    among = statistics.fmean(prior)
    return among + (mean - among) * between / (between + variance / seeds) if between else among


Confirmed = dict[int, list[float]]


def _confirmed(
    search: Search, choice: Choice, ranked: Sequence[int], ended: Sequence[Ended], replay: Replay
) -> Confirmed:
    numbers = dict.fromkeys([*ranked[: choice.confirm], DEFAULTS])
    return {i: [_score(search, ended[i].run, seed, replay) for seed in range(SEEDS)] for i in numbers}


def _score(search: Search, run: Run, seed: int, replay: Replay) -> float:
    return float(search.value(replay.again(run, seed) if seed else run.reserve))


def _raced(search: Search, choice: Choice, ranked: Sequence[int], ended: Sequence[Ended], replay: Replay) -> Confirmed:
    found = {DEFAULTS: [_score(search, ended[DEFAULTS].run, seed, replay) for seed in range(SEEDS)]}
    left = (SEEDS - 1) * choice.confirm
    for number in (number for number in ranked if number != DEFAULTS):
        if left < SEEDS - 1:
            break
        values = [_score(search, ended[number].run, seed, replay) for seed in range(SEEDS - 1)]
        full = [statistics.fmean(of) for of in found.values() if len(of) == SEEDS]
        behind = max(full) - math.sqrt(_variance(found) * (1 / SEEDS + 1 / (SEEDS - 1)))
        if statistics.fmean(values) >= behind:
            values.append(_score(search, ended[number].run, SEEDS - 1, replay))
        left -= len(values) - 1
        found[number] = values
    return found
