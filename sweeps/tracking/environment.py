"""MLflow's environment variables: which are obeyed, which are overridden."""

import os
from collections.abc import Iterator

OWN = {
    # Else MLflow prints the address of every run that ends, with the password in it.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Else MLflow reads the requirements of the project in which the sweep is started.
    "MLFLOW_UV_AUTO_DETECT": "false",
}
UNLESS_SET = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
URI = "--tracking-uri says where runs and models go"
RUNS = "a sweep names its experiment after its data, and makes its own runs"
ONCE = "MLflow is told what is on record, and nothing else"
HIDDEN: dict[str, str] = {
    **dict.fromkeys(("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "_MLFLOW_SERVER_ARTIFACT_ROOT"), URI),
    **dict.fromkeys(("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID", "MLFLOW_RUN_CONTEXT"), RUNS),
    **dict.fromkeys(("MLFLOW_ACTIVE_MODEL_ID", "_MLFLOW_ACTIVE_MODEL_ID"), RUNS),
    **dict.fromkeys(("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "MLFLOW_TRUNCATE_LONG_VALUES"), ONCE),
    "MLFLOW_ENABLE_ASYNC_LOGGING": "a sweep waits for MLflow's answers, beside the training",
    **dict.fromkeys(
        ("MLFLOW_LOCK_MODEL_DEPENDENCIES", "MLFLOW_LOG_MODEL_COMPRESSION"),
        "the finalist's model is kept as it is",
    ),
}
"""The variables that are hidden from MLflow, with the reason."""
LOGINS = (
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_AUTH"),
    *("MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_TRACKING_SERVER_CERT_PATH"),
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
)
OBEYED: dict[str, str] = {
    **dict.fromkeys(LOGINS, "a server at --tracking-uri is asked with it"),
    **dict.fromkeys(("MLFLOW_WORKSPACE", "MLFLOW_ENABLE_WORKSPACES", "MLFLOW_WORKSPACE_STORE_URI"), "runs go there"),
    **dict.fromkeys(
        ("MLFLOW_S3_ENDPOINT_URL", "MLFLOW_S3_IGNORE_TLS", "MLFLOW_S3_UPLOAD_EXTRA_ARGS"),
        "pictures and models that a server keeps in S3 go that way",
    ),
    **dict.fromkeys(("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"), "it limits waits for MLflow"),
}
"""The variables that are obeyed and change where MLflow's records go or how it is reached, with their effect."""

GIVEN = frozenset(os.environ)
"""The variables that the user has set."""
os.environ |= OWN | {name: value for name, value in UNLESS_SET.items() if name not in os.environ}


def told() -> Iterator[str]:
    """Return a sentence for each variable that is set and obeyed or overridden, without values: some are secret."""
    for name, why in HIDDEN.items():
        if name in os.environ:
            yield f"{name} is overridden: {why}"
    for name, what in OBEYED.items():
        if name in GIVEN:
            yield f"{name} is obeyed: {what}"


def hide() -> None:
    """Remove the overridden variables."""
    for name in HIDDEN:
        os.environ.pop(name, None)
