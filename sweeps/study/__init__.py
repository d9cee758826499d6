"""Optuna's side: the search space, the sampler and early stopping, and the study as other programs read it."""

import warnings

from optuna.exceptions import ExperimentalWarning

warnings.filterwarnings("ignore", message=".*set_metric_names is experimental", category=ExperimentalWarning)
