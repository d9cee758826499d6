"""Scores of a model by class, on clean and attacked inputs; the exam on the test set, and comparisons of models."""
