"""`python run.py predict`: classify images with a bundle, in this process, without torch."""

import json
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table

from commands.newest import model_path
from darkroom.errors import DarkroomError
from darkroom.prediction import Prediction, Predictor
from darkroom.prediction_inputs import predict_sources
from darkroom.progress import terminal_progress


def predict_images(*, sources: Sequence[str], model: str | None, top_k: int, as_json: bool) -> None:
    """Print a table, or a list of JSON objects; an unusable image is a row with its error.

    Raises:
        DarkroomError: no image at all could be classified.
    """
    predictor = Predictor.load(model_path(model))
    predictions = predict_sources(
        sources, predictor=predictor, top_k=top_k, progress=terminal_progress()
    )
    if as_json:
        rows = [prediction.model_dump(by_alias=True) for prediction in predictions]
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        Console().print(_table(predictions))
    if all(prediction.error for prediction in predictions):
        raise DarkroomError("no image could be classified")


def _table(predictions: Sequence[Prediction]) -> Table:
    table = Table("image", "class", "probability", "next best")
    for prediction in predictions:
        if prediction.error:
            table.add_row(prediction.source, f"[red]{prediction.error}[/red]")
            continue
        others = ", ".join(f"{k.class_name} {k.probability:.1%}" for k in prediction.top_k[1:])
        table.add_row(
            prediction.source, prediction.class_name, f"{prediction.probability:.1%}", others
        )
    return table
