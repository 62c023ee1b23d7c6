"""The rows of `predict`: a table for people, JSON or CSV for programs, written as they come."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from commands.predict_options import Options
from darkroom.backends.batch import as_csv
from darkroom.errors import DarkroomError
from darkroom.files import atomic_path
from darkroom.prediction import Prediction

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
