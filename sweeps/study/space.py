"""The search space: {dotted config name: Optuna distribution}. Nothing here knows Ray."""

from collections.abc import Collection, Mapping

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from ltsd.config import Config
from ltsd.errors import UserError
from ltsd.knobs import Choices, Range, Value, walk
from ltsd.teacher import teacher_gamma
from sweeps.settings.groups import TEACHER_GAMMA, searched_knobs
from sweeps.settings.sweep import Sweep


def search_space(
    config: Config, imbalance_ratio: float, fixed: Collection[str], groups: Collection[str]
) -> dict[str, BaseDistribution]:
    """Return the distributions of a method's knobs in some groups, without the fixed ones.

    `balance.teacher_gamma` is on a grid (1, IR/4, IR/2, IR, and its default), so that trials share teachers.
    """
    tried = {name: item.metadata["search"] for name, _, _, item in walk(config)}
    defaults = Config.preset(config.data.source, config.task).flatten()
    space: dict[str, BaseDistribution] = {}
    for name in searched_knobs(config.method, groups):
        if name in fixed:
            continue
        if name == TEACHER_GAMMA:
            gammas = {max(1.0, imbalance_ratio / part) for part in (imbalance_ratio, 4, 2, 1)}
            gammas.add(teacher_gamma(config, imbalance_ratio))
            space[name] = CategoricalDistribution(sorted(gammas))
        else:
            space[name] = _distribution(tried[name], defaults[name])
    return space


def sweep_space(sweep: Sweep, imbalance_ratio: float, row: str = "") -> dict[str, BaseDistribution]:
    """Return the space of a row's search, by the settings of a sweep.

    Raises:
        UserError: it is a single point, since every knob is fixed.
    """
    base = sweep.base_of(row)
    space = search_space(base, imbalance_ratio, sweep.fixed_in(row), sweep.settings.groups(base.method))
    if sweep.settings.trials > 1 and all(among.single() for among in space.values()):
        raise UserError(
            f"--trials {sweep.settings.trials}: every knob that is searched of {row or base.method} is fixed, so that "
            f"all trials would be one; leave one to the search, name further groups by --search, or give --trials 1"
        )
    return space


def published_defaults(
    config: Config, imbalance_ratio: float, space: Mapping[str, BaseDistribution]
) -> dict[str, Value]:
    """Return the point with the method's published defaults, the first trial."""
    known = config.flatten() | {TEACHER_GAMMA: teacher_gamma(config, imbalance_ratio)}
    return {name: known[name] for name in space}


def _distribution(tried: Range | Choices, default: Value) -> BaseDistribution:
    assert isinstance(default, int | float)
    if isinstance(tried, Choices):
        return CategoricalDistribution(_values(tried, default))
    unit = default if tried.relative else 1.0
    return FloatDistribution(tried.low * unit, tried.high * unit, log=tried.log)


def _values(tried: Choices, default: float) -> list[int | float]:
    """Return the values to try, the default among them."""
    values = [value * default if tried.relative else value for value in tried.values]
    if isinstance(default, int):
        values = [max(min(tried.least, default), round(value)) for value in values]
    return sorted({*values, default})
