"""`python run.py compare`: two trainings, before and after a change."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from darkroom.base.errors import UserError
from darkroom.base.files import workspace, write_text
from darkroom.base.values import did_you_mean
from darkroom.reports.chart_axes import number
from darkroom.reports.comparison import (
    Pair,
    RecordedRun,
    caveats,
    comparison_page,
    course,
    findings,
    metrics,
    phases,
    settings,
    signed,
    verdict,
)
from darkroom.telemetry.findings import Diagnosis
from darkroom.telemetry.recording import RecordingFolder

if TYPE_CHECKING:
    from darkroom.telemetry.evidence import Evidence

Read = Callable[[Path], "Evidence"]

_RUNS_NAMED = 8
_PHASES_SHOWN = 2
_COLOURS = {"good": "green", "bad": "red", "": "default"}
_FATES = {"came": "red", "stayed": "yellow", "went": "green"}


def compare_runs(*, before: str, after: str, out: Path | None, read: Read | None = None) -> None:
    """Print the most telling differences, and write a page with all of them.

    Args:
        read: from a recording's folder to its evidence; by default the recorder's own.

    Raises:
        UserError: a run is unknown, or was not recorded.
    """
    places = _found([before, after])
    if places[0].root.resolve() == places[1].root.resolve():
        raise UserError(f"{before!r} and {after!r} are the same run: name two that differ")
    first, second = (_recorded(place, read=read or _read) for place in places)
    page = out or workspace() / "comparisons" / f"{first.name}-to-{second.name}.html"
    write_text(page, comparison_page(first, after=second))
    console = Console()
    console.print(_table(first, after=second))
    for told in caveats(first, after=second):
        console.print(f"[yellow]{escape(told)}[/yellow]")
    console.print(verdict(first, after=second), markup=False)
    click.echo(f"report: {page}")


def _read(folder: Path) -> "Evidence":
    # It imports the formats of recordings: only once both runs are known to be there.
    from darkroom.debugging.recording.reader import read_evidence

    return read_evidence(folder)


def _found(names: Sequence[str]) -> list[RecordingFolder]:
    """The recordings of both runs; every one that is missing is told at once."""
    places = [(name, _recording(name)) for name in names]
    problems = [_unknown(name) for name, place in places if place is None]
    if problems:
        raise UserError(problems)
    return [place for _, place in places if place is not None]


def _recording(name: str) -> RecordingFolder | None:
    """Of a run's name, its folder, or the recording's own folder."""
    run = workspace() / "runs" / name
    candidates = [run / "recording", Path(name).expanduser() / "recording", Path(name).expanduser()]
    folders = [RecordingFolder(Path(os.path.realpath(folder))) for folder in candidates]
    return next((folder for folder in folders if folder.facts.is_file()), None)


def _unknown(name: str) -> str:
    if (workspace() / "runs" / name).is_dir():
        return f"run {name!r} has no recording: it ran with recording.backend=off, or failed early"
    known = _known_runs()
    if not known:
        return f"run {name!r} is unknown: no run has left a recording yet"
    hint = did_you_mean(name, among=known)
    rest = f" and {len(known) - _RUNS_NAMED} more" if len(known) > _RUNS_NAMED else ""
    listed = ", ".join(known[:_RUNS_NAMED])
    return f"run {name!r} is unknown: {hint}Recorded runs, the newest first: {listed}{rest}"


def _known_runs() -> list[str]:
    runs = [
        facts.parent.parent
        for facts in (workspace() / "runs").glob("*/recording/recording.json")
        if not facts.parent.parent.is_symlink()
    ]
    newest = sorted(runs, key=lambda run: run.stat().st_mtime, reverse=True)
    return [run.name for run in newest]


def _recorded(place: RecordingFolder, *, read: Read) -> RecordedRun:
    is_of_run = place.root.name == "recording"
    return RecordedRun(
        name=place.root.parent.name if is_of_run else place.root.name,
        evidence=read(place.root),
        diagnosis=_diagnosis(place, is_of_run=is_of_run),
    )


def _diagnosis(place: RecordingFolder, *, is_of_run: bool) -> Diagnosis:
    """What was found; nothing where the run was not judged."""
    of_run = [place.root.parent / "diagnosis.json"] if is_of_run else []
    path = next((file for file in [*of_run, place.findings] if file.is_file()), None)
    if path is None:
        return Diagnosis(findings=(), rules=())
    try:
        return Diagnosis.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(f"{str(path)!r} is no diagnosis of this version: {error}") from error


def _table(before: RecordedRun, *, after: RecordedRun) -> Table:
    table = Table(
        "", "before", "after", "difference", title=escape(f"{before.name} → {after.name}")
    )
    for setting in settings(before, after=after):
        told = (setting.name, setting.before, setting.after)
        table.add_row(*map(escape, told), "changed")
    table.add_section()
    for pair in [*metrics(before, after=after), *course(before, after=after)]:
        table.add_row(*_row(pair))
    table.add_section()
    for pair in _most_changed(phases(before, after=after)):
        table.add_row(*_row(pair, unit=" s"))
    table.add_section()
    for traced in findings(before, after=after):
        fate = f"[{_FATES[traced.fate]}]{traced.fate}[/]"
        was, is_ = (found.severity if found else "–" for found in (traced.before, traced.after))
        table.add_row(escape(traced.finding.title), was, is_, fate)
    return table


def _row(pair: Pair, *, unit: str = "") -> tuple[str, str, str, str]:
    was, is_ = (
        "–" if value is None else f"{number(value)}{unit}" for value in (pair.before, pair.after)
    )
    colour = _COLOURS[pair.verdict]
    chance = f" {pair.chance}" if pair.chance else ""
    return pair.name, was, is_, f"[{colour}]{signed(pair.difference)}[/]{chance}"


def _most_changed(pairs: Sequence[Pair]) -> list[Pair]:
    ranked = sorted(pairs, key=lambda pair: -abs(pair.difference or 0.0))
    return [pair for pair in ranked[:_PHASES_SHOWN] if pair.difference]
