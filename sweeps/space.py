"""What is searched: {dotted config name: Optuna distribution}. Nothing here knows of Ray."""

from collections.abc import Collection, Mapping

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from ltsd.config import Config
from ltsd.knobs import Value
from ltsd.methods import METHODS

LTSD_KNOBS = (
    "distill.temperature",
    "distill.kl_weight",
    "distill.igdm_weight",
    "balance.softmax_tau",
    "balance.teacher_gamma",
    "optim.lr",
)
KNOBS_OF: Mapping[str, tuple[str, ...]] = {
    "ltsd": LTSD_KNOBS,
    "at-bsl": ("balance.softmax_tau", "optim.lr"),
    "at": ("optim.lr",),
    "natural": ("optim.lr",),
}


def search_space(config: Config, imbalance_ratio: float, fixed: Collection[str]) -> dict[str, BaseDistribution]:
    """The distributions of the method's knobs, without those that the user fixed.

    What shapes a teacher lies on a grid (`balance.teacher_gamma`: 1, IR/4, IR/2, IR), so that trials meet
    teachers that are trained already.
    """
    assert config.method in METHODS
    distributions = _distributions(config, imbalance_ratio)
    return {name: distributions[name] for name in KNOBS_OF[config.method] if name not in fixed}


def published_defaults(
    config: Config, imbalance_ratio: float, space: Mapping[str, BaseDistribution]
) -> dict[str, Value]:
    """The point of the space that is the method's published default; the first trial."""
    known = config.flatten() | {"balance.teacher_gamma": max(1.0, imbalance_ratio / 2)}
    return {name: known[name] for name in space}


def _distributions(config: Config, imbalance_ratio: float) -> dict[str, BaseDistribution]:
    gammas = sorted({max(1.0, imbalance_ratio / part) for part in (imbalance_ratio, 4, 2, 1)})
    igdm, lr = config.distill.igdm_weight or 1.0, config.optim.lr
    return {
        "distill.temperature": FloatDistribution(0.5, 8.0, log=True),
        "distill.kl_weight": FloatDistribution(0.1, 10.0, log=True),
        "distill.igdm_weight": FloatDistribution(igdm / 10, igdm * 10, log=True),
        "balance.softmax_tau": FloatDistribution(0.0, 2.0),
        "balance.teacher_gamma": CategoricalDistribution(gammas),
        "optim.lr": FloatDistribution(lr / 5, lr * 3, log=True),
    }
