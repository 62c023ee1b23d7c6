"""The options of `predict`, and what cannot be meant together."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from darkroom.config import known_encoding
from darkroom.errors import UserError

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
