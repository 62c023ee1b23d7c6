"""`python run.py predict`: classify images with a bundle in this process, or by an endpoint."""

import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import click

from commands.models import find_model
from commands.predict_counts import Counts
from commands.predict_options import Options, check_options
from commands.predict_output import Output, Row, open_outputs
from darkroom.errors import DarkroomError
from darkroom.files import atomic_path
from darkroom.inputs.finding import Source, count, images_of, look_at
from darkroom.inputs.found import FoundImage
from darkroom.prediction import Prediction, Predictor
from darkroom.progress import SILENT, Progress, terminal_progress

if TYPE_CHECKING:
    from darkroom.reports.picture_choice import PictureChoice

_Answered: TypeAlias = tuple[FoundImage, Prediction]


class Classifier(Protocol):
    """A model in this process, or an endpoint."""

    @property
    def classes(self) -> Collection[str]:
        """What the model knows, as soon as it has classified an image."""

    def rows(self, images: Iterable[FoundImage]) -> Iterator[_Answered]:
        """Each image with its prediction, in the order given."""

    def latency_ms(self) -> tuple[float, float] | None:
        """Median and 99th percentile of the answers; None: nothing was waited for."""


def predict_images(
    *,
    sources: Sequence[str],
    model: str | None,
    endpoint: str | None,
    stack: str,
    target_model: str | None,
    zip_encoding: str | None,
    top_k: int,
    as_json: bool,
    as_csv: bool,
    all_rows: bool,
    out: Path | None,
    grid: Path | None,
    grid_images: int,
) -> None:
    """Print a row for each image; an unusable one is a row with its error.

    Raises:
        UserError: options that do not go together, no such model or endpoint.
        DarkroomError: no image at all could be classified, or the endpoint is gone.
    """
    options = Options(
        model=model,
        endpoint=endpoint,
        stack=stack,
        target_model=target_model or "",
        zip_encoding=zip_encoding or "",
        top_k=top_k,
        as_json=as_json,
        as_csv=as_csv,
        all_rows=all_rows,
        out=out,
        grid=grid,
        grid_images=grid_images,
    )
    check_options(options)
    try:
        with _classifier(options) as classifier:
            _classify(look_at(sources), classifier=classifier, options=options)
    except BrokenPipeError:  # whoever read the rows has seen enough
        _abandon_stdout()
        sys.exit(1)


def _classify(sources: Sequence[Source], *, classifier: Classifier, options: Options) -> None:
    counts, choice = Counts(), _choice(options)
    images = images_of(sources, zip_encoding=options.zip_encoding)
    started = time.monotonic()
    with (
        open_outputs(options, stream=sys.stdout) as output,
        _progress(options).task("predicting", total=count(sources)) as task,
    ):
        for found, prediction in _told(classifier.rows(images), counts=counts):
            label = found.label(classifier.classes)
            _write(Row(prediction, label), output=output, counts=counts)
            if choice:
                choice.note(found, prediction=prediction, label=label)
            task.advance()
    counts.seconds = time.monotonic() - started
    if choice and options.grid:
        _write_grid(choice, path=options.grid)
    counts.report(latency_ms=classifier.latency_ms(), to_stdout=not options.is_for_programs)
    if not counts.classified:
        raise DarkroomError("no image could be classified")


def _told(rows: Iterator[_Answered], *, counts: Counts) -> Iterator[_Answered]:
    """The rows; where an error ends them, how many there were is part of it."""
    try:
        yield from rows
    except DarkroomError:
        if counts.classified:
            click.echo(f"{counts.classified:,} images were classified before this:", err=True)
        raise


def _write(row: Row, *, output: Output, counts: Counts) -> None:
    counts.note(row, is_shown=output.write(row))


def _progress(options: Options) -> Progress:
    """A bar on a terminal, unless rows for programs go there too; nothing in pipes."""
    rows_in_the_way = options.is_for_programs and sys.stdout.isatty()
    return terminal_progress() if sys.stderr.isatty() and not rows_in_the_way else SILENT


@contextmanager
def _classifier(options: Options) -> Iterator[Classifier]:
    if options.endpoint is None:
        yield _LocalModel(find_model(options.model).path, top_k=options.top_k)
        return
    from commands.predict_endpoint import asked_endpoint

    with asked_endpoint(
        options.endpoint,
        stack=options.stack,
        target_model=options.target_model,
        top_k=options.top_k,
    ) as asker:
        yield asker


class _LocalModel:
    def __init__(self, path: Path, *, top_k: int) -> None:
        self._predictor, self._top_k = Predictor.load(path), top_k
        self.classes = frozenset(self._predictor.classes)

    def rows(self, images: Iterable[FoundImage]) -> Iterator[_Answered]:
        from darkroom.prediction_inputs import predict_images as predict

        return predict(images, predictor=self._predictor, top_k=self._top_k)

    def latency_ms(self) -> tuple[float, float] | None:
        return None


def _choice(options: Options) -> "PictureChoice | None":
    if options.grid is None:
        return None
    from darkroom.reports.picture_choice import PictureChoice

    return PictureChoice(options.grid_images)


def _write_grid(choice: "PictureChoice", *, path: Path) -> None:
    from darkroom.reports.figures import png
    from darkroom.reports.picture_grid import picture_grid

    content = png(picture_grid(choice.tiles(), title=choice.title()))
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    click.echo(f"grid: {path}", err=True)


def _abandon_stdout() -> None:
    """Let what is still buffered go nowhere, instead of failing once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
