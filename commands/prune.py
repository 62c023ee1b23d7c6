"""`python run.py prune`: what earlier runs have left, and how much room it would make to go."""

import os
import re
import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commands.runs import (
    KeptRun,
    close_killed_runs,
    files_of,
    kept_runs,
    megabytes,
    runs_under_way,
)
from darkroom.backends.local.records import kept_endpoints
from darkroom.base.errors import UserError
from darkroom.base.files import workspace
from darkroom.base.locks import holder_of, to_itself, users_of
from darkroom.base.progress import terminal_progress
from darkroom.base.values import did_you_mean
from darkroom.data.hashes import record_of
from darkroom.models.bundle import METADATA_FILE, BundleMetadata
from darkroom.runs.summary import Summary
from darkroom.tracking.runs import aliases, folders_of, remove_run

_RUNS_NAMED = 5
_PIXEL_CACHE = re.compile(r"[0-9a-f]{32}")
_FETCHED = ("unpacked", "downloads", "s3", "published", "shards")
"""Folders of the store that hold what was fetched or unpacked, a folder each."""
_ARTIFACTS = """
SELECT DISTINCT pipeline_run.name, artifact_version.uri FROM pipeline_run
JOIN step_run ON step_run.pipeline_run_id = pipeline_run.id
JOIN step_run_output_artifact ON step_run_output_artifact.step_id = step_run.id
JOIN artifact_version ON artifact_version.id = step_run_output_artifact.artifact_id
"""


@dataclass
class _Part:
    """What would go together."""

    kind: str
    what: str
    paths: list[Path]
    run: KeptRun | None = None
    kept_because: str = ""
    mlflow_run: str = ""
    freed: int = field(default=0)


def prune(*, names: Sequence[str], keep: int | None, yes: bool) -> None:
    """Tell what could go, by run and kind; remove it where that is said.

    Args:
        names: runs that go, whatever points at them.
        keep: of the other runs, how many of the newest stay; None: all.

    Raises:
        UserError: a run is unknown, or is in use; others work in the workspace.
    """
    with ExitStack() as held:
        if yes:
            held.enter_context(to_itself(workspace(), progress=terminal_progress()))
        users = ", ".join(sorted(user.in_words for user in users_of(workspace())))
        if yes and users:
            raise UserError(
                f"nothing is removed while others work in {str(workspace())!r}, as what they need "
                f"is known only once they have ended: {users}. Wait for them, or end them"
            )
        close_killed_runs()
        runs = sorted(kept_runs(), key=lambda run: run.name, reverse=True)
        runs.sort(key=lambda run: run.started.timestamp() if run.started else 0, reverse=True)
        _check(names, runs=runs)
        going = _going(runs, names=names, keep=keep)
        parts = [*going, *_left_over(runs, going={part.run.name for part in going if part.run})]
        _measure(parts)
        parts = [part for part in parts if part.freed or part.run]
        _show(parts)
        if yes:
            _remove([part for part in parts if not part.kept_because])
            freed = sum(part.freed for part in parts if not part.kept_because)
            click.echo(f"Removed: {megabytes(freed)} are free again.")
            return
    click.echo("Nothing was removed. --yes removes it; --keep N or a run's name adds runs.")
    if users:
        click.echo(f"What others need is among it; it is removed once they have ended: {users}.")


def _check(names: Sequence[str], *, runs: Sequence[KeptRun]) -> None:
    known = {run.name: run for run in runs}
    problems = []
    for name in names:
        if name not in known:
            hint = did_you_mean(name, among=known)
            listed = ", ".join(list(known)[:_RUNS_NAMED]) or "none yet"
            problems.append(f"there is no run {name!r}: {hint}Runs, the newest first: {listed}")
        elif reason := _in_use(known[name]):
            problems.append(f"the run {name!r} cannot be removed: {reason}")
    if problems:
        raise UserError(problems)


def _going(runs: Sequence[KeptRun], *, names: Sequence[str], keep: int | None) -> list[_Part]:
    """The runs that were chosen, with why one of them stays nevertheless."""
    chosen = [run for run in runs if run.name in names]
    if keep is not None:
        finished = [run for run in runs if run.state != "running"]
        chosen += [run for run in finished[keep:] if run not in chosen]
    pointed_at = _pointed_at(runs)
    artifacts = _artifacts()
    going = {run.name for run in chosen}
    shared = {uri for run, uris in artifacts.items() if run not in going for uri in uris}
    registered = {version for run in runs if run.name not in going for version in _registered(run)}
    parts = []
    for run in chosen:
        because = _in_use(run) or ("" if run.name in names else pointed_at.get(run.name, ""))
        summary = _summary(run)
        is_here = summary is not None and run.stack == "local"
        # A version that a run which stays has reused keeps its record and its files.
        reused = registered & set(_registered(run))
        mlflow_run = summary.run.mlflow_run_id if summary and is_here and not reused else ""
        paths = [run.folder, *(uri for uri in artifacts.get(run.name, ()) if uri not in shared)]
        if mlflow_run:
            paths += folders_of(mlflow_run, database=_mlflow())
        parts.append(
            _Part("run", run.name, paths, run=run, kept_because=because, mlflow_run=mlflow_run)
        )
    return parts


def _in_use(run: KeptRun) -> str:
    """Why a run may not go, even if it is named; empty: it may."""
    if run.name in runs_under_way():
        return "it is under way"
    version = _version(run.folder / "model")
    for kept in kept_endpoints():
        if kept.run == run.name or (version and kept.model_version == version):
            return f"the endpoint {kept.name!r} serves its model (`run.py down {kept.name}`)"
    return ""


def _pointed_at(runs: Sequence[KeptRun]) -> dict[str, str]:
    """Runs that something points at, by name, with what does."""
    found = {}
    latest = workspace() / "runs" / "latest"
    if latest.is_symlink():
        found[os.readlink(latest)] = "`latest` points at it; name it to remove it"
    by_version = aliases(_mlflow())
    for run in runs:  # the newest first: it alone stands for a version that others reused
        summary = _summary(run)
        model = summary.artifacts.registered_model if summary else None
        alias = by_version.pop((model.name, model.version), "") if model else ""
        if alias and model:
            found.setdefault(
                run.name, f"models:/{model.name}@{alias} points at it; name it to remove it"
            )
    return found


def _left_over(runs: Sequence[KeptRun], *, going: set[str]) -> list[_Part]:
    """What no run needs that stays: bundles, recordings, checkpoints, data, caches."""
    home = workspace()
    stay = [run for run in runs if run.name not in going]
    return [
        _Part("bundles", "of no run", _unused_bundles(stay)),
        _Part("recordings", "of no run", _unused_recordings(stay)),
        _Part("checkpoints", "of trainings and searches that are not under way", _idle(home)),
        _Part("data", "fetched or unpacked, that no run was made of", _unused_data(going)),
        _Part(
            "caches",
            "decoded images; they are decoded again when they are needed",
            [p for p in (home / "cache").glob("*") if _PIXEL_CACHE.fullmatch(p.name)],
        ),
        _Part(
            "work",
            "of compilations and batches",
            [*(home / "work").glob("*"), *(home / "batches").glob("*")],
        ),
        _Part("errors", "tracebacks of faults of Darkroom's", list((home / "errors").glob("*"))),
    ]


def _unused_bundles(stay: Sequence[KeptRun]) -> list[Path]:
    used = {_version(run.folder / "model") for run in stay}
    used |= {kept.model_version for kept in kept_endpoints()}
    folders = [p for p in (workspace() / "bundles").glob("*") if p.is_dir()]
    return [folder for folder in folders if folder.name.split("-")[0] not in used]


def _unused_recordings(stay: Sequence[KeptRun]) -> list[Path]:
    """Those none of whose files a run holds too; recordings of runs are the same files."""
    used = {path.stat().st_ino for run in stay for path in files_of(run.folder / "recording")}
    folders = [p for p in (workspace() / "recordings").glob("*") if p.is_dir()]
    unused = [f for f in folders if not any(p.stat().st_ino in used for p in files_of(f))]
    return [*unused, *map(record_of, unused)]


def _idle(home: Path) -> list[Path]:
    folders = [*(home / "training").glob("*"), *(home / "tuning").glob("*")]
    return [
        folder
        for folder in folders
        if folder.is_dir() and holder_of(folder.with_suffix(".lock")) is None
    ]


def _unused_data(going: set[str]) -> list[Path]:
    """What was fetched or unpacked for no run that stays."""
    store = workspace() / "data"
    roots = {root for name, root in _roots().items() if name not in going}
    folders = [path for kind in _FETCHED for path in (store / kind).glob("*") if path.is_dir()]
    used = {folder for folder in folders for root in roots if root.is_relative_to(folder)}
    unused = [folder for folder in folders if folder not in used]
    return [*unused, *map(record_of, unused)]


def _roots() -> dict[str, Path]:
    """By run, where the images of its data set lie."""
    roots = {}
    for run, places in _artifacts().items():
        for place in places:
            with suppress(OSError):
                text = (place / "manifest.json").read_text(encoding="utf-8")
                if found := re.search(r'"root": "((?:[^"\\]|\\.)*)"', text[:10_000]):
                    roots[run] = Path(found[1])
    return roots


def _artifacts() -> dict[str, set[Path]]:
    """By run, the places of what its components have returned, as ZenML knows them."""
    database = workspace() / "zenml" / "local_stores" / "default_zen_store" / "zenml.db"
    if not database.is_file():
        return {}
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute(_ARTIFACTS).fetchall()
    found: dict[str, set[Path]] = {}
    for run, uri in rows:
        found.setdefault(run, set()).add(Path(uri))
    return found


def _measure(parts: Iterable[_Part]) -> None:
    """Give each part the bytes that go with it: a file with names elsewhere frees nothing.

    What several parts hold together counts for the last of them.
    """
    left: dict[tuple[int, int], int] = {}
    for part in parts:
        if part.kept_because:
            continue
        for path in {file for place in part.paths for file in _files(place)}:
            status = path.stat()
            key = (status.st_dev, status.st_ino)
            left[key] = left.get(key, status.st_nlink) - 1
            if left[key] == 0:
                part.freed += status.st_size


def _files(place: Path) -> Iterable[Path]:
    return [place] if place.is_file() else files_of(place)


def _show(parts: Sequence[_Part]) -> None:
    some_stay = any(part.kept_because for part in parts)
    table = Table("kind", "what", "makes room", *([""] if some_stay else []))
    for part in parts:
        room = "–" if part.kept_because else megabytes(part.freed)
        note = Text(f"stays: {part.kept_because}" if part.kept_because else "", overflow="fold")
        notes = [note] if some_stay else []
        table.add_row(part.kind, Text(part.what, overflow="fold"), room, *notes)
    if parts:
        Console().print(table)
    total = sum(part.freed for part in parts)
    click.echo(f"{megabytes(total)} in all, of {megabytes(_size(workspace()))} in {workspace()}.")


def _remove(parts: Sequence[_Part]) -> None:
    runs = [part.run.name for part in parts if part.run]
    if runs:
        _forget(runs)
    for part in parts:
        if part.mlflow_run:
            remove_run(part.mlflow_run, database=_mlflow())
        for path in part.paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    latest = workspace() / "runs" / "latest"
    if latest.is_symlink() and not latest.exists():
        latest.unlink()
        rest = [run for run in kept_runs() if (run.folder / "model").is_dir() and run.started]
        if rest:
            newest = max(rest, key=lambda run: run.started.timestamp() if run.started else 0)
            latest.symlink_to(newest.name)


def _forget(runs: Sequence[str]) -> None:
    """Have ZenML forget runs and artifacts, so that nothing of them is taken for a result."""
    from stacks.loader import use_stack

    use_stack("local")
    from zenml.client import Client

    client = Client()
    for name in runs:
        for run in client.list_pipeline_runs(name=name).items:
            client.delete_pipeline_run(run.id)


def _summary(run: KeptRun) -> Summary | None:
    with suppress(OSError, ValueError):
        return Summary.model_validate_json((run.folder / "summary.json").read_bytes())
    return None


def _registered(run: KeptRun) -> list[tuple[str, str]]:
    """Name and version of the model that a run has registered, or reused."""
    summary = _summary(run)
    model = summary.artifacts.registered_model if summary else None
    return [(model.name, model.version)] if model else []


def _version(model: Path) -> str:
    with suppress(OSError, ValueError):
        return BundleMetadata.model_validate_json((model / METADATA_FILE).read_bytes()).version
    return ""


def _mlflow() -> Path:
    return workspace() / "artifacts" / "mlflow.db"


def _size(folder: Path) -> int:
    return sum({(s := p.stat()).st_ino: s.st_size for p in files_of(folder)}.values())
