"""`python run.py batch`: classify a whole source, write tables, say how good it was."""

import logging
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from commands.models import find_model
from commands.runs import close_killed_runs
from commands.source_name import short_name
from commands.where import ready
from darkroom.backends.placement import check_order
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.files import workspace, write_text
from darkroom.base.locks import alone, in_use
from darkroom.base.progress import terminal_progress
from darkroom.base.values import digest_of
from darkroom.batch.scoring import BatchScore
from darkroom.batch.selection import BatchJobSpec, SplitChoice
from darkroom.batch.table import BatchTable, check_table_name, write_table
from darkroom.config.loader import config_digest, overridden_keys
from darkroom.config.sagemaker import Placement

_OF_ANY_BATCH = ("sagemaker", "tracking")
_OF_A_SOURCE = ("data.maximum_archive_bytes", "data.maximum_files", "data.zip_encoding")
"""Settings that a batch reads; without a SOURCE, all that say how the data set is read."""


def run_batch(
    *,
    source: str | None,
    out: Sequence[Path],
    model: str | None,
    stack: str,
    split: SplitChoice,
    top_k: int,
    config: Path | None,
    overrides: Sequence[str],
    no_resume: bool,
) -> None:
    """Classify and write.

    Raises:
        UserError: names or options have to change, or there are no images.
        DarkroomError: none of the images could be read, or the work failed.
    """
    _check_outputs(out)
    _check_settings(overrides, has_source=source is not None)
    with ExitStack() as held:
        use = held.enter_context(in_use(workspace(), progress=terminal_progress()))
        found = find_model(model)
        order = BatchJobSpec(
            source=source,
            split=split,
            model=found.path,
            top_k=top_k,
            resume=not no_resume,
            config=found.settings(config=config, overrides=overrides, needs_data=source is None),
        )
        check_order(order)
        held.enter_context(ready(stack))
        held.enter_context(_alone(order, stack=stack))
        name = _run_name(order)
        if stack == "local":
            close_killed_runs()
            use.has_name(name)
        table, score = _run(order, name=name, stack=stack)
        _write(table, found=score, out=out)
        reason = next((row.error for row in table.rows() if row.error), "")
        table.discard()  # until now, the same command would have gone on with it
    _tell(score, out=out)
    if score.unreadable == score.images:
        raise DarkroomError(
            f"none of the images could be read; the table says why of each, the first: {reason}"
        )


def _alone(order: BatchJobSpec, *, stack: str) -> AbstractContextManager[bool]:
    """Of equal batches one works at a time: they share the rows that are done already."""
    said = order.model_dump(mode="json", exclude={"config", "resume"})
    digest = digest_of([said, config_digest(order.config), stack])[:16]
    lock = workspace() / "locks" / f"batch-{digest}.lock"
    return alone(lock, doing="classifies the same", progress=terminal_progress())


def _run(order: BatchJobSpec, *, name: str, stack: str) -> tuple[BatchTable, BatchScore]:
    # ZenML takes seconds to import: only once the input is known to be good.
    from stacks.loader import use_stack

    use_stack(stack, orchestrated_here=stack != "local")
    from pipelines.batch import batch_pipeline

    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its retries, which ZenML would show
    os.environ["MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"] = "false"
    tracking = order.config.tracking
    tracker = {"experiment_name": tracking.experiment, "tags": tracking.tags}
    run = batch_pipeline.with_options(run_name=name, settings={"experiment_tracker": tracker})(
        order=order, placement=_placement(order, stack=stack)
    )
    if run is None:
        raise DarkroomError("ZenML tells nothing about the run")
    steps = run.steps
    return (
        steps["classify_source"].outputs["batch_table"][0].load(),
        steps["score_batch"].outputs["batch_score"][0].load(),
    )


def _placement(order: BatchJobSpec, *, stack: str) -> Placement:
    """A job that was interrupted goes on, unless that is not wanted: then it is another job."""
    if stack == "local":
        return Placement()
    fresh = "" if order.resume else secrets.token_hex(4)
    return Placement(jobs=order.config.sagemaker, fresh=fresh)


def _check_outputs(out: Sequence[Path]) -> None:
    """Refuse before the work what could only fail after it."""
    for path in out:
        check_table_name(path)
        if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
            raise UserError(
                f"--out {str(path)!r} cannot be written: "
                "name a file in an existing folder that you may write to"
            )


def _check_settings(overrides: Sequence[str], *, has_source: bool) -> None:
    """Refuse what would be set without effect: a batch must not look as if it had been heard."""
    of_data = _OF_A_SOURCE if has_source else ("data", "training.seed")
    read = (*_OF_ANY_BATCH, *of_data)
    unread = [
        key
        for key in overridden_keys(overrides)
        if not any(key == one or key.startswith(f"{one}.") for one in read)
    ]
    if unread:
        why = " where a SOURCE is named: its images are taken as they lie" if has_source else ""
        raise UserError(
            f"--set has no effect on a batch{why}: {', '.join(unread)}. Leave it out; what has one "
            f"begins with {', '.join(read)}."
        )


def _write(table: BatchTable, *, found: BatchScore, out: Sequence[Path]) -> None:
    for path in out:
        write_table(table, path)
        write_text(
            path.with_name(f"{path.stem}.metrics.json"), found.model_dump_json(indent=1) + "\n"
        )


def _tell(found: BatchScore, *, out: Sequence[Path]) -> None:
    """Metrics as a table; last, where the results lie."""
    console = Console()
    if found.metrics:
        shown = Table("metric", "value")
        for name, value in found.metrics.items():
            shown.add_row(name, f"{value:.4f}")
        console.print(shown)
    places = " and ".join(str(path) for path in out)
    line = f"{', '.join(_counts(found))}: {places}"
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def _counts(found: BatchScore) -> list[str]:
    counts = [f"{found.images:,} images", f"{found.unreadable:,} unreadable"]
    if found.labelled:
        counts.append(f"{found.correct:,} of {found.labelled:,} labelled right")
    if found.unknown_labels:
        counts.append(f"{found.unknown_labels:,} of classes that the model does not know")
    if not found.labelled and not found.unknown_labels and found.unreadable < found.images:
        counts.append("no metrics, as no folder is named like one of the model's classes")
    return counts


def _run_name(order: BatchJobSpec) -> str:
    source = short_name(order.whole_source)
    moment = time.strftime("%Y%m%d-%H%M%S")
    return f"batch-{source}-{moment}-{secrets.token_hex(2)}"
