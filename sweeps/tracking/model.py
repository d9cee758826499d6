"""The sweep's model in MLflow: the finalist's, registered under a name; it classifies images, clips or texts."""

import contextlib
import importlib.metadata
import io
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array, Map, Object, Property
from PIL import Image
from torch import Tensor

from ltsd.data.items import Form
from ltsd.export import export_model
from ltsd.runs import load_model, vocabulary_of
from sweeps.journal.jobs import Job

IMAGES = Schema([ColSpec(DataType.binary, "image")])
CLIPS = Schema([ColSpec(DataType.binary, "audio")])
TEXTS = Schema([ColSpec(DataType.string, "text")])
CLASSES = Schema(
    [
        ColSpec(DataType.string, "class"),
        ColSpec(DataType.double, "probability"),
        ColSpec(Map(DataType.double), "probabilities"),
    ]
)
MASKS = Schema([ColSpec(DataType.binary, "mask"), ColSpec(Map(DataType.double), "shares")])
CORNERS = ("x0", "y0", "x1", "y1")
FOUND = Object([Property("class", DataType.string), *(Property(name, DataType.double) for name in ("score", *CORNERS))])
BOXES = Schema([ColSpec(Array(FOUND), "boxes")])
SIGNATURES = {
    "classification": ModelSignature(inputs=IMAGES, outputs=CLASSES),
    "segmentation": ModelSignature(inputs=IMAGES, outputs=MASKS),
    "detection": ModelSignature(inputs=IMAGES, outputs=BOXES),
    "speech": ModelSignature(inputs=CLIPS, outputs=CLASSES),
    "text": ModelSignature(inputs=TEXTS, outputs=CLASSES),
}
"""By task."""
COMMON = ("torch", "mlflow", "pandas", "numpy")


@dataclass(frozen=True)
class Serving:
    """How a model for a kind of inputs is served.

    Attributes:
        file: the module that MLflow runs where the model is loaded; it imports only `packages`.
        packages: their names on PyPI.
        encoded: (an input as the exported network reads it, the form of inputs) -> the input as a client sends it.
    """

    file: str
    packages: tuple[str, ...]
    encoded: Callable[[Tensor, Form], bytes | str]


def png(image: Tensor, form: Form) -> bytes:
    """Encode an image [C, H, W] in [0, 1] with one channel or three."""
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    encoded = io.BytesIO()
    Image.fromarray(np.squeeze(pixels, axis=2) if len(image) == 1 else pixels).save(encoded, format="PNG")
    return encoded.getvalue()


def wav(clip: Tensor, form: Form) -> bytes:
    """Encode sound [1, T] in [-1, 1]."""
    import soundfile

    encoded = io.BytesIO()
    soundfile.write(encoded, clip[0].numpy(), form.data.sampling_rate, format="WAV", subtype="PCM_16")
    return encoded.getvalue()


def text(numbers: Tensor, form: Form) -> str:
    """Return the text of the numbers of word pieces, [L]."""
    assert form.vocabulary is not None
    return form.vocabulary.text(numbers.tolist())


SERVINGS: Mapping[str, Serving] = {
    "image": Serving("served.py", (*COMMON, "torchvision", "pillow"), png),
    "audio": Serving("served_sound.py", (*COMMON, "soundfile", "scipy"), wav),
    "text": Serving("served_text.py", ("torch", "mlflow", "pandas", "tokenizers"), text),
}
"""By the name of the column of inputs."""


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
        inputs: example inputs [N, ...], as the exported network reads them.

    Raises:
        ExportError: the exported model and the checkpoint answer the examples differently.
    """
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.set_experiment(experiment_id=run.info.experiment_id)
    if is_registered(MlflowClient(uri, uri), run, name):
        return
    signature = SIGNATURES[job.config.task]
    (column,) = signature.inputs.input_names()
    serving = SERVINGS[column]
    with tempfile.TemporaryDirectory() as folder:
        network = Path(folder) / "network.pt2"
        model, about = load_model(job.checkpoint, torch.device("cpu"))
        export_model(model, about, "torch-export", network, inputs)
        form = Form(about["shape"], job.config.data, vocabulary_of(about))
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stderr(io.StringIO()),
            mlflow.start_run(run_id=run.info.run_id),
        ):
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name(serving.file)),
                artifacts={"network": str(network)},
                signature=signature,
                input_example=pd.DataFrame({column: [serving.encoded(one, form) for one in inputs[:1]]}),
                registered_model_name=name,
                pip_requirements=[f"{package}=={importlib.metadata.version(package)}" for package in serving.packages],
            )
