"""MLflow's side, and the only room that imports mlflow: a view of the journal, kept in agreement with it."""
