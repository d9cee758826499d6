"""MLflow's side, the only room that imports mlflow: a view of the journal, kept in agreement with it."""

# Here, so that it comes before any file of the room that imports mlflow.
import sweeps.tracking.environment  # noqa: F401
