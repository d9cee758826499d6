"""MLflow's side, the only room that imports mlflow: a view of the journal, kept in agreement with it."""

# This must run before any module that imports mlflow.
import sweeps.tracking.environment  # noqa: F401
