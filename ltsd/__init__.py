"""Long-tailed adversarial training with self-distillation: the method, in pure PyTorch.

Nothing in this package knows of Ray, Optuna or MLflow; `sweeps` is built on top of it.
"""

__version__ = "0.1.0"
