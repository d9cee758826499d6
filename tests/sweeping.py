"""What the tests of whole sweeps share: the command, small enough to take seconds, and its records."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

SEARCH = Path(__file__).parent.parent / "sweeps" / "search.py"
SMALL = (
    *("--trials", "3", "--epochs", "4", "--teacher.epochs", "2", "--evaluate.every", "2", "--model.width", "8"),
    *("--search", "distill,balance"),  # whose trials share teachers and have large batches
    *("--confirm", "2", "--final-seeds", "1", "--final-attack", "none", "--reference-attack", "none"),
)
SMALLEST = (
    *("--trials", "1", "--epochs", "1", "--teacher.epochs", "1", "--final-seeds", "1", "--references", "at"),
    *("--confirm", "1", "--final-attack", "none", "--reference-attack", "none"),
)
ELSEWHERE = {
    "RAY_ADDRESS": "10.255.255.1:6379",
    "RAY_AUTH_MODE": "disabled",
    "RAY_AUTH_TOKEN": "of-another-cluster",
    "RAY_AUTH_TOKEN_PATH": "/none",
    "RAY_REDIS_ADDRESS": "127.0.0.1:9",
    "RAY_gcs_storage": "redis",
    "RAY_OVERRIDE_RESOURCES": '{"CPU": 7}',
    "RAY_RUNTIME_ENV_HOOK": "no.such.hook",
    "RAY_JOB_CONFIG_JSON_ENV_VAR": "{}",
    "RAY_CLIENT_MODE": "1",
    "RAY_TMPDIR": "/none",
    "RAY_STORAGE": "/none",
    "RAY_AIR_LOCAL_CACHE_DIR": "/none",
    "RAY_TUNE_CALLBACKS": "no.such.callback",
    "TUNE_RESULT_DIR": "/none",
    "TUNE_RESULT_BUFFER_LENGTH": "1000",
    "TMPDIR": f"/none/{'x' * 91}",
    "OMP_NUM_THREADS": "64",
    "PYTHONWARNINGS": "error",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    "MLFLOW_REGISTRY_URI": "http://127.0.0.1:9",
    "MLFLOW_EXPERIMENT_NAME": "another",
    "MLFLOW_EXPERIMENT_ID": "77",
    "MLFLOW_RUN_ID": "0123456789abcdef0123456789abcdef",
    "MLFLOW_RUN_CONTEXT": '{"foreign": "tag"}',
    "MLFLOW_ACTIVE_MODEL_ID": "m-0123456789abcdef",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "true",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
}
"""Variables by which a sweep that obeyed them would go elsewhere, or not at all."""


def command(*flags: str) -> list[str]:
    """The main command with flags."""
    return [sys.executable, str(SEARCH), *flags]


def run_search(
    folder: Path, *flags: str, timeout: float = 600, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the main command to its end in a folder of its own, with more variables in its environment."""
    return subprocess.run(
        command(*flags),
        cwd=folder,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_until(folder: Path, text: str, number: signal.Signals, *flags: str) -> tuple[int, str]:
    """Run the main command; once a line holds `text`, send a signal to it and its children, as a terminal does.

    Returns exit code and output.
    """
    with (folder / "interrupted.log").open("w+") as log:
        process = subprocess.Popen(
            command(*flags),
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        deadline = time.monotonic() + 180
        while text not in (output := Path(log.name).read_text()):
            assert process.poll() is None, output
            assert time.monotonic() < deadline, output
            time.sleep(0.1)
        os.killpg(process.pid, number)
        code = process.wait(60)
        return code, Path(log.name).read_text()


def mlflow_runs(folder: Path, sweep: str) -> list[Run]:
    """All MLflow runs of a sweep, parent included."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`ltsd.sweep` = '{sweep}'", max_results=1000))
