"""The orchestration: Ray runs the jobs, Optuna proposes them, MLflow keeps what they measured."""

# This must run before any module that imports Ray.
import sweeps.machines.environment  # noqa: F401
