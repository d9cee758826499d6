"""Optuna's side: what is searched, what proposes and prunes, where the study lies."""
