"""`run.py predict`: classify images by a bundle or an endpoint, and show what came out."""

import json
import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Protocol, TextIO, TypeAlias

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commands.models import find_model
from darkroom.backends.endpoint import ConcurrentClient, EndpointError, pause_until
from darkroom.backends.predictions import as_csv
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.files import atomic_path
from darkroom.base.progress import SILENT, Progress, terminal_progress
from darkroom.config import known_encoding
from darkroom.data.found_image import FoundImage
from darkroom.data.inputs import Source, count, images_of, look_at
from darkroom.models.prediction import Prediction, Predictor
from darkroom.serving.model_names import ARCHIVE_ENDINGS

if TYPE_CHECKING:
    from darkroom.reports.pictures import PictureChoice


# --- predict options ---
# The options of `predict`, and what cannot be meant together.

FILE_FORMATS = (".json", ".csv")


@dataclass(frozen=True)
class Options:
    """As the command line gave them."""

    model: str | None
    endpoint: str | None
    stack: str
    target_model: str
    zip_encoding: str
    top_k: int
    as_json: bool
    as_csv: bool
    all_rows: bool
    out: Path | None
    grid: Path | None
    grid_images: int

    @property
    def is_for_programs(self) -> bool:
        """Whether standard output holds nothing but rows."""
        return self.as_json or self.as_csv


def check_options(options: Options) -> None:
    """Find all mistakes before anything is loaded or asked.

    Raises:
        UserError: with every problem.
    """
    problems = [*_conflicts(options), *_file_problems(options)]
    if problems:
        raise UserError(problems)


def _conflicts(options: Options) -> list[str]:
    problems = []
    try:
        known_encoding(options.zip_encoding)
    except ValueError as error:
        problems.append(f"--zip-encoding {options.zip_encoding!r} {error}")
    if options.as_json and options.as_csv:
        problems.append("--json and --csv exclude each other; --out FILE writes a second format")
    if options.model and options.endpoint:
        problems.append(
            f"--model {options.model!r} and --endpoint {options.endpoint!r} exclude each other: "
            "an endpoint has its own model (--target-model chooses among several)"
        )
    if options.endpoint is None and options.target_model:
        problems.append(f"--target-model {options.target_model!r} needs --endpoint NAME")
    if options.endpoint is None and options.stack != "local":
        problems.append(f"--stack {options.stack} needs --endpoint NAME: the endpoint to ask there")
    return problems


def _file_problems(options: Options) -> list[str]:
    problems = []
    if options.out and options.out.suffix.lower() not in FILE_FORMATS:
        problems.append(f"--out {str(options.out)!r} must end in {' or '.join(FILE_FORMATS)}")
    if options.grid and options.grid.suffix.lower() != ".png":
        problems.append(f"--grid {str(options.grid)!r} must end in .png")
    if options.grid and find_spec("matplotlib") is None:
        problems.append("--grid needs matplotlib: pip install 'darkroom[train]'")
    for option, path in (("--out", options.out), ("--grid", options.grid)):
        if path and (problem := _not_writable(path)):
            problems.append(f"{option} {str(path)!r}: {problem}")
    return problems


def _not_writable(path: Path) -> str | None:
    folder = path.absolute().parent
    if path.is_dir():
        return "is a folder; name a file"
    if not folder.is_dir():
        return "its folder does not exist; create it first"
    return None if os.access(folder, os.W_OK) else "its folder may not be written to"


# --- predict output ---
# The rows of `predict`: a table for people, JSON or CSV for programs, written as they come.

TABLE_ROWS = 40
"""That a table shows where not all are asked for."""

_WIDTH_IN_PIPES = 120
_SOURCE_LENGTH = 56
_ERROR_LENGTH = 200


@dataclass(frozen=True)
class Row:
    """A prediction, and what the image shows if its folder tells."""

    prediction: Prediction
    label: str | None

    @property
    def is_right(self) -> bool | None:
        """None: nobody knows."""
        if self.prediction.error or self.label is None:
            return None
        return self.prediction.class_name == self.label


class Output(Protocol):
    """Somewhere that rows go."""

    def write(self, row: Row) -> bool:
        """Take a row; whether a person gets to see it."""

    def close(self) -> None:
        """Write what has to come after the last row."""


@contextmanager
def open_outputs(options: Options, *, stream: TextIO) -> Iterator[Output]:
    """Where rows go: standard output, and the file of --out, which appears whole or not at all.

    What has been written to standard output is complete even where an error ends it.

    Args:
        stream: standard output, before a progress bar puts itself in front of it.
    """
    with ExitStack() as stack:
        outputs: list[Output] = [_standard(options, stream=stream)]
        if options.out:
            path = stack.enter_context(atomic_path(options.out))
            file = stack.enter_context(path.open("w", encoding="utf-8", newline=""))
            is_json = options.out.suffix.lower() == ".json"
            outputs.append(JsonRows(file) if is_json else CsvRows(file))
        output = _All(outputs)
        try:
            yield output
        except DarkroomError:
            output.close()
            raise
        output.close()


def _standard(options: Options, *, stream: TextIO) -> Output:
    if options.as_json:
        return JsonRows(stream)
    if options.as_csv:
        return CsvRows(stream)
    return TableRows(stream, limit=None if options.all_rows else TABLE_ROWS)


class _All:
    def __init__(self, outputs: Sequence[Output]) -> None:
        self._outputs = outputs

    def write(self, row: Row) -> bool:
        seen = [output.write(row) for output in self._outputs]
        return any(seen)

    def close(self) -> None:
        for output in self._outputs:
            output.close()


class JsonRows:
    """A list of objects: a prediction's fields and `label`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._is_first = stream, True

    def write(self, row: Row) -> bool:
        content = {**row.prediction.model_dump(by_alias=True), "label": row.label}
        self._stream.write("[\n" if self._is_first else ",\n")
        self._stream.write(json.dumps(content, ensure_ascii=False))
        self._is_first = False
        return False

    def close(self) -> None:
        self._stream.write("[]\n" if self._is_first else "\n]\n")
        self._stream.flush()


class CsvRows:
    """The columns of a batch's table: file, class, probability, top_k, error and label."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._is_first = stream, True

    def write(self, row: Row) -> bool:
        text = as_csv([row.prediction], labels=[row.label or ""])
        if self._stream.isatty():  # a file's name may hold what would move the cursor
            text = "\n".join(map(_plain, text.split("\n")))
        self._stream.write(text if self._is_first else text.partition("\n")[2])
        self._is_first = False
        return False

    def close(self) -> None:
        self._stream.flush()


class TableRows:
    """A table, printed at the end; long ones are cut, and say so."""

    def __init__(self, stream: TextIO, *, limit: int | None) -> None:
        self._stream, self._limit = stream, limit
        self._shown: list[Row] = []
        self._total = 0

    def write(self, row: Row) -> bool:
        self._total += 1
        if self._limit is not None and self._total > self._limit:
            return False
        self._shown.append(row)
        return True

    def close(self) -> None:
        if not self._total:
            return
        width = None if self._stream.isatty() else _WIDTH_IN_PIPES
        console = Console(file=self._stream, width=width)
        console.print(_table(self._shown))
        if left := self._total - len(self._shown):
            console.print(
                f"… and {left:,} more rows; --all-rows shows them, --out FILE keeps them",
                highlight=False,
            )


def _table(rows: Sequence[Row]) -> Table:
    is_labelled = any(row.label for row in rows)
    table = Table("image", "class")
    table.add_column("prob.", justify="right", no_wrap=True)
    table.add_column("next best")
    if is_labelled:
        table.add_column("actual")
    for row in rows:
        cells = _cells(row)
        table.add_row(*cells, Text(_plain(row.label or "–"))) if is_labelled else table.add_row(
            *cells
        )
    return table


def _cells(row: Row) -> tuple[Text, Text, Text, Text]:
    prediction = row.prediction
    source = Text(_end_of(_plain(prediction.source)), overflow="fold")
    if prediction.error:
        error = _plain(prediction.error)[:_ERROR_LENGTH]
        return source, Text("–"), Text(""), Text(error, style="red")
    others = ", ".join(f"{k.class_name} {k.probability:.1%}" for k in prediction.top_k[1:])
    colour = {True: "green", False: "red", None: ""}[row.is_right]
    named = Text(_plain(str(prediction.class_name)), style=colour)
    return source, named, Text(f"{prediction.probability:.1%}"), Text(_plain(others))


def _plain(text: str) -> str:
    """Without what would move a terminal's cursor, or worse."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def _end_of(source: str) -> str:
    """The end of a long path, if it can be from a folder on: there it differs from others."""
    if len(source) <= _SOURCE_LENGTH:
        return source
    end = source[-_SOURCE_LENGTH + 2 :]
    _, separator, below = end.partition("/")
    return f"…/{below}" if separator else f"…{end}"


# --- predict counts ---
# What came of a whole `predict`: how many, how right, how fast, and what could not be used.

_ERRORS_NAMED = 10


@dataclass
class Counts:
    """Of the rows so far."""

    classified: int = 0
    labelled: int = 0
    right: int = 0
    unusable: int = 0
    seconds: float = 0.0
    hidden_errors: list[str] = field(default_factory=list)
    """The first of those that no table shows."""
    hidden: int = 0

    def note(self, row: Row, *, is_shown: bool) -> None:
        """One row more."""
        if error := row.prediction.error:
            self.unusable += 1
            self.hidden += not is_shown
            if not is_shown and len(self.hidden_errors) < _ERRORS_NAMED:
                self.hidden_errors.append(f"{row.prediction.source}: {error}")
            return
        self.classified += 1
        self.labelled += row.label is not None
        self.right += row.is_right is True

    def report(self, *, latency_ms: tuple[float, float] | None, to_stdout: bool) -> None:
        """Print it to standard error; what is right belongs below a table on standard output."""
        click.echo(self._speed(latency_ms), err=True)
        if self.unusable:
            total = self.classified + self.unusable
            click.echo(f"{self.unusable:,} of {total:,} could not be used", err=True)
            for line in self.hidden_errors:
                click.echo(f"  {line}", err=True)
            if more := self.hidden - len(self.hidden_errors):
                click.echo(f"  … and {more:,} more; --out FILE keeps all rows", err=True)
        if self.labelled:
            share = self.right / self.labelled
            click.echo(
                f"{self.right:,} of {self.labelled:,} right ({share:.1%})", err=not to_stdout
            )

    def _speed(self, latency_ms: tuple[float, float] | None) -> str:
        noun = "image" if self.classified == 1 else "images"
        text = f"{self.classified:,} {noun} classified in {self.seconds:.1f} s"
        if latency_ms:
            p50, p99 = latency_ms
            text += f", {p50:.1f} ms an answer (p99 {p99:.1f} ms)"
        return text


# --- predict endpoint ---
# An endpoint to ask: on this machine by name or address, or on the stack's account.

_NOT_FOUND = 404


@contextmanager
def asked_endpoint(
    name: str, *, stack: str, target_model: str, top_k: int
) -> Iterator[ConcurrentClient]:
    """Something that asks the endpoint while the block runs.

    Args:
        name: as `run.py endpoints` lists it; on this machine an address will do too.
        target_model: which model, where the endpoint has several: as `deploy NAME=…` called it,
            or the archive that SageMaker calls it by.

    Raises:
        UserError: no such endpoint, no rehearsal is up, or values of the stack are missing.
    """
    target_model = _archive(target_model)
    if stack == "local":
        from darkroom.backends.local.endpoint import EndpointClient
        from darkroom.backends.local.records import address_of

        with EndpointClient(address_of(name), target_model=target_model) as client:
            try:
                yield ConcurrentClient(client, top_k=top_k)
            except EndpointError as error:
                if error.status == _NOT_FOUND:  # it says which models there are
                    raise UserError(str(error)) from error
                raise
        return
    from commands.endpoints import account
    from darkroom.backends.sagemaker.hosting.client import client_of as answering_at
    from darkroom.backends.sagemaker.hosting.several_models import target_problem

    with account(stack) as clients:
        ended = Event()
        answering = answering_at(
            name, clients=clients, target_model=target_model, pause=pause_until(ended)
        )
        try:
            yield ConcurrentClient(answering, top_k=top_k, ended=ended)
        except DarkroomError as error:
            if problem := target_problem(target_model, endpoint=name, clients=clients):
                raise UserError(problem) from error
            raise


def _archive(model: str) -> str:
    """What requests name: 'dogs' was deployed as dogs.tar.gz."""
    return model if not model or model.endswith(ARCHIVE_ENDINGS) else f"{model}.tar.gz"


# --- predict ---

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
        from darkroom.batch.prediction import predict_images as predict

        return predict(images, predictor=self._predictor, top_k=self._top_k)

    def latency_ms(self) -> tuple[float, float] | None:
        return None


def _choice(options: Options) -> "PictureChoice | None":
    if options.grid is None:
        return None
    from darkroom.reports.pictures import PictureChoice

    return PictureChoice(options.grid_images)


def _write_grid(choice: "PictureChoice", *, path: Path) -> None:
    from darkroom.reports.figures import png
    from darkroom.reports.pictures import picture_grid

    content = png(picture_grid(choice.tiles(), title=choice.title()))
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    click.echo(f"grid: {path}", err=True)


def _abandon_stdout() -> None:
    """Let what is still buffered go nowhere, instead of failing once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
