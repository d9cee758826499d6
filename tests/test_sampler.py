"""What a proposal is made from: all trials of a short sweep, so many of a long one, the good ones always."""

import random
from collections.abc import Mapping, Sequence

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.study.sampler import BEST, RANDOM_TRIALS, SEEN, BoundedTPE, seen

SPACE: dict[str, BaseDistribution] = {
    "optim.lr": FloatDistribution(0.01, 1.0, log=True),
    "balance.softmax_tau": FloatDistribution(0.0, 2.0),
    "balance.teacher_gamma": CategoricalDistribution([1.0, 5.0, 10.0]),
}
RUNNING = 2


def history(trials: int, complete: float = 0.6) -> list[FrozenTrial]:
    """Random trials, some stopped at one of two rungs, many with the same score; the last ones still run."""
    draws = random.Random(trials)
    states = [TrialState.COMPLETE if draws.random() < complete else TrialState.PRUNED for _ in range(trials)]
    made = []
    for state in [*states, *[TrialState.RUNNING] * RUNNING]:
        params = {
            "optim.lr": 10 ** draws.uniform(-2, 0),
            "balance.softmax_tau": draws.uniform(0, 2),
            "balance.teacher_gamma": draws.choice([1.0, 5.0, 10.0]),
        }
        score, rung = round(draws.random(), 2), draws.choice([3, 4])
        value = None if state == TrialState.RUNNING else score
        scores = {rung: score}
        made.append(
            create_trial(state=state, value=value, params=params, distributions=SPACE, intermediate_values=scores)
        )
    return made


def study_of(trials: Sequence[FrozenTrial]) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return study


def proposed(sampler: TPESampler, trials: Sequence[FrozenTrial]) -> Mapping[str, object]:
    study = study_of(trials)
    study.sampler = sampler
    return study.ask(SPACE).params


@pytest.mark.parametrize("trials", [0, RANDOM_TRIALS, 40, SEEN])
def test_a_sweep_that_is_not_long_is_proposed_to_the_bit_what_tpe_proposes(trials: int) -> None:
    past = history(trials)
    own = TPESampler(seed=5, n_startup_trials=RANDOM_TRIALS)
    assert proposed(BoundedTPE(SPACE, seed=5), past) == proposed(own, past)


def test_a_proposal_is_made_from_as_many_trials_after_five_thousand_as_after_one() -> None:
    looked_at = []

    class Counting(_ParzenEstimator):
        def __init__(self, observations: dict[str, Sequence[float]], *rest: object) -> None:
            looked_at.append(len(observations["optim.lr"]))
            super().__init__(observations, *rest)

    for trials in (1000, 5000):
        sampler = BoundedTPE(SPACE, seed=0)
        sampler._parzen_estimator_cls = Counting
        proposed(sampler, history(trials))
    assert looked_at == 2 * [BEST, SEEN - BEST + RUNNING]


@pytest.mark.parametrize("complete", [0.6, 0.01, 0.0])
def test_what_tpe_takes_for_the_good_ones_is_seen_however_old_it_is(complete: float) -> None:
    study = study_of(history(1200, complete))
    whole = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING))
    good, _ = _split_trials(study, whole, BEST)
    part = seen(whole)
    assert _split_trials(study, part, BEST)[0] == good
    others = [trial for trial in whole[:-RUNNING] if trial not in good]
    assert part == sorted(good + others[BEST - SEEN :] + whole[-RUNNING:], key=lambda trial: trial.number)
