"""`python run.py batch`: classify a whole source, write tables, say how good it was."""

import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from commands.newest import model_path
from commands.source_name import short_name
from commands.where import ready
from darkroom.backends.batch_source import classify_remotely
from darkroom.batch.order import BatchOrder
from darkroom.batch.rows import BatchTable
from darkroom.batch.scoring import BatchScore, score
from darkroom.batch.selecting import SplitChoice
from darkroom.batch.tables import check_table_name, write_table
from darkroom.config.loading import load_config
from darkroom.errors import DarkroomError, UserError
from darkroom.files import write_text
from darkroom.progress import terminal_progress


def run_batch(
    *,
    source: str | None,
    out: Sequence[Path],
    model: str | None,
    stack: str,
    split: SplitChoice,
    top_k: int,
    config: Path,
    overrides: Sequence[str],
    no_resume: bool,
) -> None:
    """Classify and write.

    Raises:
        UserError: names or options have to change, or there are no images.
        DarkroomError: none of the images could be read, or the work failed.
    """
    _check_outputs(out)
    order = BatchOrder(
        source=source,
        split=split,
        model=model_path(model),
        top_k=top_k,
        resume=not no_resume,
        config=load_config(config, overrides=overrides),
    )
    with ready(stack):
        table, found = _classified(order, stack=stack)
    _write(table, found=found, out=out)
    _tell(found, out=out)


def _classified(order: BatchOrder, *, stack: str) -> tuple[BatchTable, BatchScore]:
    name = _run_name(order)
    if stack == "local":
        return _in_pipeline(order, name=name)
    jobs = order.config.sagemaker
    table = classify_remotely(order, jobs=jobs, run=name, progress=terminal_progress())
    return table, score(table)


def _in_pipeline(order: BatchOrder, *, name: str) -> tuple[BatchTable, BatchScore]:
    # ZenML takes seconds to import: only once the input is known to be good.
    from pipelines.batch import batch_pipeline
    from stacks.loader import use_stack

    use_stack("local")
    os.environ["MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"] = "false"
    tracker = {"experiment_name": order.config.tracking.experiment}
    options = {"settings": {"experiment_tracker": tracker}}
    run = batch_pipeline.with_options(run_name=name, **options)(order=order)
    if run is None:
        raise DarkroomError("ZenML tells nothing about the run")
    steps = run.steps
    return (
        steps["classify_source"].outputs["batch_table"][0].load(),
        steps["score_batch"].outputs["batch_score"][0].load(),
    )


def _check_outputs(out: Sequence[Path]) -> None:
    """Refuse before the work what could only fail after it."""
    for path in out:
        check_table_name(path)
        if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
            raise UserError(
                f"--out {str(path)!r} cannot be written: "
                "name a file in an existing folder that you may write to"
            )


def _write(table: BatchTable, *, found: BatchScore, out: Sequence[Path]) -> None:
    for path in out:
        write_table(table, path)
        write_text(
            path.with_name(f"{path.stem}.metrics.json"), found.model_dump_json(indent=1) + "\n"
        )


def _tell(found: BatchScore, *, out: Sequence[Path]) -> None:
    console = Console()
    if found.metrics:
        shown = Table("metric", "value")
        for name, value in found.metrics.items():
            shown.add_row(name, f"{value:.4f}")
        console.print(shown)
    right = f", {found.correct:,} of {found.labelled:,} labelled right" if found.labelled else ""
    unknown = (
        f", {found.unknown_labels:,} of classes the model lacks" if found.unknown_labels else ""
    )
    places = " and ".join(str(path) for path in out)
    console.print(
        f"{found.images:,} images, {found.unreadable:,} unreadable{right}{unknown}: {places}",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    if found.unreadable == found.images:
        raise DarkroomError("none of the images could be read; the table says why of each")


def _run_name(order: BatchOrder) -> str:
    source = short_name(order.source or order.config.data.source)
    moment = time.strftime("%Y%m%d-%H%M%S")
    return f"batch-{source}-{moment}-{secrets.token_hex(2)}"
