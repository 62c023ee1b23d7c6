"""A bundle as an MLflow "python function" model, written as models-from-code: no pickle.

MLflow runs this file when it loads the model. Input: a table with a column `image` of
encoded images (bytes; base64 in JSON). Output: a table with `class`, `probability` and
one column of probabilities a class, named by it: see `probability_columns`.
"""

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class BundleModel(PythonModel):
    """Predicts with the bundle that was logged beside it."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle."""
        from pathlib import Path

        from darkroom.models.prediction import Predictor
        from darkroom.tracking.registry import probability_columns

        self._predictor = Predictor.load(Path(context.artifacts["bundle"]))
        self._columns = probability_columns(self._predictor.classes)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Classify the images of the column `image`."""
        probabilities = self._predictor.predict(list(model_input["image"]))
        table = pd.DataFrame(probabilities, columns=self._columns)
        table.insert(0, "class", [self._predictor.classes[i] for i in probabilities.argmax(axis=1)])
        table.insert(1, "probability", probabilities.max(axis=1))
        return table


set_model(BundleModel())
