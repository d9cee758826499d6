"""MLflow's side, and the only room that imports mlflow: a view of the journal, kept in agreement with it."""

import os

# Here, so that it is set before any file of the room imports mlflow.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# It would print the address of every run that ends, with the password that is in it.
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
