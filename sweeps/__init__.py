"""The orchestration: Ray runs the jobs, Optuna proposes them, MLflow keeps what they measured."""

# Here, so that it comes before any file of any room that imports Ray.
import sweeps.machines.environment  # noqa: F401
