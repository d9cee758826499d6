"""The registered model of sound: encoded clips in, classes with their probabilities out.

MLflow copies this file into the model and runs it wherever the model is loaded, without ltsd. So it repeats the lines
of `ltsd.data.clips` that make a waveform of an encoded clip; tests compare them.
"""

import io
import json
import math
from collections.abc import Sequence
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import soundfile
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray
from scipy.signal import resample_poly

BATCH = 64
"""How many decoded clips are in memory at a time."""
LARGEST = 32768
LONGEST_SECONDS = 3600


class ServedListener(PythonModel):
    """An exported network that takes encoded clips: WAV, FLAC or another format that soundfile reads."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the artifact `network`, a file of `python -m ltsd export --to torch-export`."""
        files = {"about.json": ""}
        self.network = torch.export.load(context.artifacts["network"], extra_files=files).module()
        about = json.loads(files["about.json"])
        self.length, self.rate = int(about["shape"][-1]), int(about["sampling_rate"])
        self.class_names: Sequence[str] = about["class_names"]

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Classify every clip.

        Args:
            context: not used.
            model_input: one column `audio` of bytes, one row per clip; clips are resampled, and cut or padded, as for
                the training.
            params: not used.

        Returns:
            One row per clip: `class`, the name of the most probable class; `probability` in [0, 1]; `probabilities`, a
            dict from class name to probability.

        Raises:
            MlflowException: a row holds no clip that can be read, or a silent one.
        """
        rows = []
        encoded = model_input["audio"].tolist()
        for start in range(0, len(encoded), BATCH):
            clips = [waveform(one, start + n, self.rate, self.length) for n, one in enumerate(encoded[start:][:BATCH])]
            with torch.no_grad():
                answers = self.network(torch.from_numpy(np.stack(clips)).float() / LARGEST).softmax(1)
            for of_clip in answers:
                label = int(of_clip.argmax())
                probabilities = dict(zip(self.class_names, of_clip.tolist(), strict=True))
                rows.append((self.class_names[label], float(of_clip[label]), probabilities))
        return pd.DataFrame(rows, columns=["class", "probability", "probabilities"])


def waveform(encoded: bytes, row: int, rate: int, length: int) -> NDArray[np.int16]:
    """Return an encoded clip as int16 [1, length] at a rate; `row` is its number, for errors.

    Raises:
        MlflowException: as `ServedListener.predict`.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(encoded)) as file:
            if file.frames > LONGEST_SECONDS * file.samplerate:
                raise refused(row, f"longer than {LONGEST_SECONDS} s; cut it into clips")
            sound = file.read(dtype="float32", always_2d=True)
            own = int(file.samplerate)
    except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:
        raise refused(row, "sound that cannot be read; WAV, FLAC, OGG and MP3 are read") from error
    mono = sound.mean(1)
    if len(mono) < 2 or not np.isfinite(mono).all():
        raise refused(row, "a clip without sound")
    if own != rate:
        common = math.gcd(own, rate)
        mono = np.asarray(resample_poly(mono, rate // common, own // common), dtype=np.float32)
    stored = np.clip(np.rint(mono[:length] * LARGEST), -LARGEST, LARGEST - 1).astype(np.int16)
    if not stored.any():
        raise refused(row, "a silent clip")
    return np.pad(stored, (0, length - len(stored)))[None]


def refused(row: int, why: str) -> MlflowException:
    """Return the error of a row, counted from 0; a server answers it with status 400."""
    return MlflowException(f"row {row}: {why}", error_code=INVALID_PARAMETER_VALUE)


mlflow.models.set_model(ServedListener())
