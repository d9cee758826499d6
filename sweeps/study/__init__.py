"""Optuna's side: what is searched, what proposes and stops early, and the study as other programs read it."""

import warnings

from optuna.exceptions import ExperimentalWarning

warnings.filterwarnings("ignore", message=".*set_metric_names is experimental", category=ExperimentalWarning)
