"""The wide space that the configurations of the table are drawn from; sweeps search a part of it."""

from collections.abc import Mapping

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

SPACE: Mapping[str, BaseDistribution] = {
    "distill.temperature": FloatDistribution(0.5, 8.0, log=True),
    "distill.kl_weight": FloatDistribution(0.1, 10.0, log=True),
    "distill.igdm_weight": FloatDistribution(0.1, 10.0, log=True),
    "balance.softmax_tau": FloatDistribution(0.0, 2.0),
    "balance.teacher_gamma": CategoricalDistribution((1.0, 5.0, 10.0, 20.0)),
    "optim.lr": FloatDistribution(0.1 * 0.2, 0.1 * 3.0, log=True),
    "optim.weight_decay": FloatDistribution(1e-4, 1e-2, log=True),
    "optim.batch_size": CategoricalDistribution((32, 64, 128)),
    "optim.ema_decay": CategoricalDistribution((0.0, 0.9, 0.98, 0.99, 0.995)),
    "teacher.epochs": CategoricalDistribution((4, 7, 14, 28)),
    "awp.gamma": CategoricalDistribution((0.0, 2.5e-3, 5e-3, 1e-2)),
    "robustlt.strength": FloatDistribution(0.0, 0.4),
}
"""Not made from the ranges of the knobs: these change by what the table shows, and its rows have to stay theirs."""
