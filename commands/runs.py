"""`python run.py runs`: the runs of this checkout, with what came of them."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

import click
from pydantic import ValidationError

from commands.tables import print_rows
from darkroom.base.errors import UserError
from darkroom.base.files import workspace
from darkroom.base.locks import forget, killed_in, users_of
from darkroom.config.sections import Metric, natural_direction
from darkroom.runs.summary import FAILURE_FILE, FailedRun, Summary

State = Literal["running", "deployed", "trained", "failed", "stopped", "interrupted", "unknown"]

METRICS: tuple[Metric, ...] = get_args(Metric)
_MAIN_METRIC = "accuracy"
_NAMES_SHOWN = 8


@dataclass(frozen=True)
class KeptRun:
    """A run as its folder tells of it."""

    name: str
    started: datetime | None
    stack: str
    data: str
    metrics: dict[str, float]
    """Of the test split."""
    state: State
    reason: str
    """Why it was not deployed, or failed."""
    bytes: int
    """Of its folder: a model counts in each run that holds it, though it lies on the disk once."""
    folder: Path


def list_runs(*, as_json: bool, sort: str | None) -> None:
    """Print the runs, the newest first, or the best by a test metric.

    Raises:
        UserError: no run has that metric.
    """
    close_killed_runs()
    runs = sorted(kept_runs(), key=_age, reverse=True)
    metric = sort or _MAIN_METRIC
    if sort:
        runs = _by_metric(runs, metric=sort)
    if as_json:
        click.echo(json.dumps([_plain(run) for run in runs], indent=1))
        return
    if not runs:
        click.echo("no runs yet: `python run.py` starts one")
        return
    print_rows(
        ["run", "started", "stack", "data", f"test {metric}", "state", "size"],
        [_row(run, metric=metric) for run in runs],
    )


def _row(run: KeptRun, *, metric: str) -> list[str]:
    value = run.metrics.get(metric)
    return [
        run.name,
        run.started.astimezone().strftime("%Y-%m-%d %H:%M") if run.started else "–",
        run.stack,
        run.data,
        "–" if value is None else f"{value:.4f}",
        run.state,
        megabytes(run.bytes),
    ]


def kept_runs() -> list[KeptRun]:
    """All runs that have a folder, and those under way."""
    folders = [
        path
        for path in (workspace() / "runs").glob("*")
        if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")
    ]
    running = runs_under_way()
    found = [_read(folder, is_running=folder.name in running) for folder in folders]
    begun = running - {run.name for run in found}
    places = [workspace() / "runs" / name for name in begun]
    return found + [_unfinished(place, state="running") for place in places]


def runs_under_way() -> set[str]:
    """Names of the runs that processes of this machine work on."""
    return {user.name for user in users_of(workspace()) if user.name}


def close_killed_runs() -> None:
    """Have runs whose process was killed, or went down with the machine, not run for ever.

    Such a process says nothing: it stays under way in ZenML and MLflow until another one looks.
    """
    killed = killed_in(workspace())
    if not killed:
        return
    from stacks.loader import use_stack

    use_stack("local")
    from commands.remote_run import close_killed

    for record, process in killed.items():
        if process.name:
            close_killed(process.name, pid=process.pid)
        forget(record)


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:,.1f} MB"


def files_of(folder: Path) -> Iterator[Path]:
    """All files below a folder; links are not followed."""
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if not path.is_symlink():
                yield path


def _read(folder: Path, *, is_running: bool) -> KeptRun:
    size = sum({p.stat().st_ino: p.stat().st_size for p in files_of(folder)}.values())
    try:
        summary = Summary.model_validate_json((folder / "summary.json").read_bytes())
    except (OSError, ValidationError):
        return _without_summary(folder, size=size, is_running=is_running)
    test = summary.metrics.get("test", {})
    return KeptRun(
        name=folder.name,
        started=summary.run.started,
        stack=summary.run.stack,
        data=summary.data.source,
        metrics={name: metric.value for name, metric in test.items()},
        state="deployed" if summary.endpoint else "trained",
        reason=summary.endpoint_reason or "",
        bytes=size,
        folder=folder,
    )


def _without_summary(folder: Path, *, size: int, is_running: bool) -> KeptRun:
    if is_running:
        return _unfinished(folder, state="running", size=size)
    try:
        failed = FailedRun.model_validate_json((folder / FAILURE_FILE).read_bytes())
    except (OSError, ValidationError):
        return _unfinished(folder, state="unknown", size=size)
    return KeptRun(
        name=folder.name,
        started=failed.started,
        stack=failed.stack,
        data=failed.data,
        metrics={},
        state=failed.kind,
        reason=failed.reason,
        bytes=size,
        folder=folder,
    )


def _unfinished(folder: Path, *, state: State, size: int = 0) -> KeptRun:
    return KeptRun(
        name=folder.name,
        started=None,
        stack="",
        data="",
        metrics={},
        state=state,
        reason="",
        bytes=size,
        folder=folder,
    )


def _by_metric(runs: list[KeptRun], *, metric: str) -> list[KeptRun]:
    known = sorted({name for run in runs for name in run.metrics})
    if metric not in known:
        raise UserError(
            f"--sort {metric!r}: no run has that test metric; there are "
            f"{', '.join(known[:_NAMES_SHOWN]) or 'none yet'}"
        )
    is_error = any(metric == name and natural_direction(name) == "minimize" for name in METRICS)
    sign = 1 if is_error else -1
    having = [run for run in runs if metric in run.metrics]
    without = [run for run in runs if metric not in run.metrics]
    return sorted(having, key=lambda run: sign * run.metrics[metric]) + without


def _age(run: KeptRun) -> float:
    if run.started:
        return run.started.timestamp()
    return run.folder.stat().st_mtime if run.folder.exists() else float("inf")


def _plain(run: KeptRun) -> dict[str, object]:
    started = run.started.isoformat() if run.started else None
    return asdict(run) | {"started": started, "folder": str(run.folder)}
