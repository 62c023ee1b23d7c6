"""`python run.py compile`: which engine runs a bundle best on this machine."""

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from commands.models import find_model
from darkroom.base.errors import UserError
from darkroom.base.files import workspace, write_text
from darkroom.base.locks import in_use
from darkroom.base.progress import terminal_progress
from darkroom.compilation.measurement import bundle_for, measure
from darkroom.compilation.results import BATCHES, CompilationReport, generated_images, prepared
from darkroom.config.sections import CompilationConfig
from darkroom.data.image_folder import is_image_name
from darkroom.models.bundle import Bundle, open_bundle, read_bundle
from darkroom.models.engine import Floats


def compile_bundle(
    *,
    model: str | None,
    images: Path | None,
    out: Path | None,
    config: Path | None,
    overrides: Sequence[str],
) -> None:
    """Measure, print a table, write the report and, where that is wanted, the compiled bundle.

    Raises:
        UserError: no model, no images, or a configuration that has to change.
    """
    with in_use(workspace(), progress=terminal_progress()):
        found = find_model(model)
        settings = found.settings(config=config, overrides=overrides).compilation
        with open_bundle(found.path) as folder:
            bundle = read_bundle(folder)
            pictures = _pictures(images, bundle=bundle, config=settings)
            report = measure(bundle, images=pictures, config=settings, progress=terminal_progress())
            page = _write_page(report)
            if out:
                bundle_for(bundle, engine=report.chosen, folder=out)
    console = Console()
    console.print(_table(report))
    for result in report.results:
        if result.problem:
            console.print(f"[yellow]{result.engine}[/yellow]: {result.problem}")
    console.print(f"chosen: [bold]{report.chosen}[/bold], {report.reason}")
    if told := _told_by_tvm(report):
        console.print(told)
    click.echo(f"report: {page}")
    if out:
        click.echo(f"bundle: {out}")


def _told_by_tvm(report: CompilationReport) -> str:
    found = report.tvm
    if found is None:
        return report.tvm_problem
    slowest = max(found.operators, key=lambda operator: operator.ms)
    return (
        f"TVM {found.version}, untuned: {found.latency_ms:.1f} ms; slowest is {slowest.name} "
        f"({slowest.ms:.1f} ms in {slowest.calls} calls); first deviation from torch: "
        f"{found.first_deviation or 'none'}"
    )


def _pictures(images: Path | None, *, bundle: Bundle, config: CompilationConfig) -> Floats:
    how = bundle.metadata.preprocessing
    if images is None:
        return generated_images(how.image_size, count=config.images)
    if not images.is_dir():
        raise UserError(f"--images {str(images)!r} is no folder; name one with photographs")
    files = sorted(path for path in images.rglob("*") if is_image_name(path.name))
    if not files:
        raise UserError(f"--images {str(images)!r} holds no images")
    return prepared(files, how=how, most=config.images)


def _write_page(report: CompilationReport) -> Path:
    from darkroom.reports.compilation_page import compilation_page

    path = workspace() / "compilation" / f"{report.version}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, compilation_page(report))
    return path


def _table(report: CompilationReport) -> Table:
    table = Table("engine", "1 image", "images/s", "memory", "same class", "differs by")
    for result in report.results:
        found = result.measurement
        if found is None:
            table.add_row(result.engine, *["–"] * 5)
            continue
        batch = max(BATCHES, key=lambda size: found.images_per_second[size])
        table.add_row(
            f"{result.engine} {result.version}",
            f"{found.latency_ms:.2f} ms",
            f"{found.images_per_second[batch]:.0f} ({batch} at once)",
            f"{found.memory_mb:.0f} MB",
            f"{found.top1_agreement:.1%}",
            f"{found.probability_difference:.2g}",
        )
    return table
