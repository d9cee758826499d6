"""What is searched: {dotted config name: Optuna distribution}. Nothing here knows of Ray."""

from collections.abc import Collection, Mapping

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from ltsd.config import Config
from ltsd.knobs import Range, Value, walk
from ltsd.methods import METHODS

TEACHER_GAMMA = "balance.teacher_gamma"
LEARNING_RATE = "optim.lr"


def searched_knobs(method: str) -> tuple[str, ...]:
    """The knobs that a sweep of a method searches: its own that have a range, those it shares, the learning rate."""
    own = METHODS[method].knobs
    names = [f"{own[0]}.{name}" for name, _, _, item in walk(own[1]()) if item.metadata["search"]] if own else []
    return (*names, *METHODS[method].shared, LEARNING_RATE)


def search_space(config: Config, imbalance_ratio: float, fixed: Collection[str]) -> dict[str, BaseDistribution]:
    """The distributions of the method's knobs, without those that the user fixed.

    What shapes a teacher lies on a grid (`balance.teacher_gamma`: 1, IR/4, IR/2, IR), so that trials meet
    teachers that are trained already.
    """
    knobs = {name: (value, item.metadata["search"]) for name, value, _, item in walk(config)}
    defaults = Config.preset(config.data.source).flatten()
    space: dict[str, BaseDistribution] = {}
    for name in searched_knobs(config.method):
        if name in fixed:
            continue
        if name == TEACHER_GAMMA:
            gammas = {max(1.0, imbalance_ratio / part) for part in (imbalance_ratio, 4, 2, 1)}
            space[name] = CategoricalDistribution(sorted(gammas))
        else:
            space[name] = _distribution(knobs[name][1], defaults[name])
    return space


def published_defaults(
    config: Config, imbalance_ratio: float, space: Mapping[str, BaseDistribution]
) -> dict[str, Value]:
    """The point of the space that is the method's published default; the first trial."""
    known = config.flatten() | {TEACHER_GAMMA: max(1.0, imbalance_ratio / 2)}
    return {name: known[name] for name in space}


def _distribution(tried: Range, default: Value) -> FloatDistribution:
    unit = default if tried.relative and isinstance(default, float) else 1.0
    return FloatDistribution(tried.low * unit, tried.high * unit, log=tried.log)
