"""How the finalist of a replay is found, by the race of a sweep, and what it is worth."""

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState, create_trial

from replays.searches import Ended, Search
from replays.table import CLEAN, TEST
from replays.world import Replay
from sweeps.results.confirm import DEFAULTS, SEEDS, chosen, contenders, mean
from sweeps.settings.objectives import Scores


@dataclass(frozen=True)
class Outcome:
    """Of a replay: the finalist against the defaults, in truth and on the test set; by how much the best trial's score
    of all classes is above its truth, and the finalist's confirmed mean.
    """

    gain: float
    tail_gain: float
    clean_gain: float
    excess: float
    confirmed: float
    defaults: bool
    seconds: float


def outcome(search: Search, confirm: int, ended: Sequence[Ended], replay: Replay) -> Outcome:
    """Confirm so many of the best, choose and judge."""
    found, more = raced(search, confirm, ended, replay)
    final = chosen(found, search.preference)
    assert final is not None
    complete = [one for one in ended if one.complete]
    usual = ended[DEFAULTS].values
    best = max(complete, key=lambda one: search.preference.key(one.values, usual))
    truth, defaults = ended[final].run.truth, ended[DEFAULTS].run.truth
    gains = [float(truth[part][i] - defaults[part][i]) for part, i in ((TEST, 0), (TEST, 1), (CLEAN, 0))]
    excesses = (best.values[0] - best.run.truth[TEST][0], mean(found[final])[0] - truth[TEST][0])
    seconds = sum(one.seconds for one in ended) + more
    return Outcome(*gains, *map(float, excesses), final == DEFAULTS, seconds)


def raced(
    search: Search, confirm: int, ended: Sequence[Ended], replay: Replay
) -> tuple[dict[int, list[Scores]], float]:
    """The scores on the reserve, a seed after the other, by trial; and the seconds that their runs take."""
    complete = [_trial(number, one) for number, one in enumerate(ended) if one.complete]
    found, seconds = dict[int, list[Scores]](), 0.0
    for turn in range(SEEDS):
        for trial in contenders(complete, found, confirm, turn, search.preference):
            run = ended[trial.number].run
            score = replay.again(run, turn) if turn else run.reserve
            seconds += run.seconds if turn else 0.0
            found.setdefault(trial.number, []).append(tuple(map(float, score)))
    return found, seconds


def _trial(number: int, one: Ended) -> FrozenTrial:
    trial = create_trial(state=TrialState.COMPLETE, values=one.values)
    trial.number = number
    return trial
