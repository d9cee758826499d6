"""The registered model of texts: strings in, classes with their probabilities out.

MLflow copies this file into the model and runs it wherever the model is loaded, without ltsd.
"""

import json
from collections.abc import Sequence
from typing import Any

import mlflow
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from tokenizers import Tokenizer

BATCH = 1000
"""How many texts are in memory as vectors at a time."""
PADDING, UNKNOWN = 0, 1
"""Numbers of word pieces."""


class ServedReader(PythonModel):
    """An exported network that takes the numbers of word pieces."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the artifact `network`, a file of `python -m ltsd export --to torch-export`."""
        files = {"about.json": ""}
        self.network = torch.export.load(context.artifacts["network"], extra_files=files).module()
        about = json.loads(files["about.json"])
        self.length = int(about["shape"][-1])
        self.tokenizer = Tokenizer.from_str(about["tokenizer"])
        self.class_names: Sequence[str] = about["class_names"]

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Classify every text.

        Args:
            context: not used.
            model_input: one column `text` of strings, one row per text.
            params: not used.

        Returns:
            One row per text: `class`, the name of the most probable class; `probability` in [0, 1]; `probabilities`, a
            dict from class name to probability.

        Raises:
            MlflowException: a row has no text, or a text with only unknown words.
        """
        texts = model_input["text"].tolist()
        if missing := [row for row, text in enumerate(texts) if not isinstance(text, str)]:
            raise MlflowException(f"row {missing[0]}: no text", error_code=INVALID_PARAMETER_VALUE)
        found = self.tokenizer.encode_batch_fast(texts)
        numbers = [(one.ids + [PADDING] * self.length)[: self.length] for one in found]
        for row, of_text in enumerate(numbers):
            if max(of_text) <= UNKNOWN:
                raise MlflowException(
                    f"row {row}: a text without a word that is known", error_code=INVALID_PARAMETER_VALUE
                )
        rows = []
        for start in range(0, len(numbers), BATCH):
            with torch.no_grad():
                answers = self.network(torch.tensor(numbers[start:][:BATCH], dtype=torch.int32)).softmax(1)
            for of_text in answers:
                label = int(of_text.argmax())
                probabilities = dict(zip(self.class_names, of_text.tolist(), strict=True))
                rows.append((self.class_names[label], float(of_text[label]), probabilities))
        return pd.DataFrame(rows, columns=["class", "probability", "probabilities"])


mlflow.models.set_model(ServedReader())
