"""The sweep's model in MLflow: the finalist's, registered under a name."""

import contextlib
import importlib.metadata
import io
import warnings

import mlflow
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.models import infer_signature
from torch import Tensor

from ltsd.runs import load_model
from sweeps.journal.jobs import Job


def is_registered(client: MlflowClient, run: Run, name: str) -> bool:
    """Return whether a version under that name belongs to a run."""
    return bool(client.search_model_versions(f"name = '{name}' and run_id = '{run.info.run_id}'"))


def register(uri: str, run: Run, name: str, job: Job, inputs: Tensor) -> None:
    """Log and register the model of a final run, once; `mlflow.pyfunc.load_model` opens it anywhere.

    Args:
        uri: of the tracking server and the registry.
        run: of the job.
        name: of the registered model.
        job: the final run with the model.
        inputs: example inputs [N, C, H, W] in [0, 1].
    """
    model, _ = load_model(job.checkpoint, torch.device("cpu"))
    with torch.no_grad():
        signature = infer_signature(inputs.numpy(), model(inputs).numpy())
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.set_experiment(experiment_id=run.info.experiment_id)
    if is_registered(MlflowClient(uri, uri), run, name):
        return
    with (
        warnings.catch_warnings(action="ignore"),
        contextlib.redirect_stderr(io.StringIO()),
        mlflow.start_run(run_id=run.info.run_id),
    ):
        mlflow.pytorch.log_model(
            model,
            name="model",
            signature=signature,
            input_example=inputs.numpy(),
            serialization_format="pt2",
            registered_model_name=name,
            pip_requirements=[f"{package}=={importlib.metadata.version(package)}" for package in ("torch", "mlflow")],
        )
