"""Compile: which engine runs the network best on this machine, and the same answers."""

from typing import Annotated

from zenml import log_metadata, step
from zenml.types import HTMLString

from darkroom.base.files import workspace
from darkroom.base.progress import terminal_progress
from darkroom.compilation.results import CompilationReport
from darkroom.config.sections import CompilationConfig
from darkroom.data.dataset import Dataset
from darkroom.models.bundle import Bundle
from darkroom.tracking.runs import active_run
from materializers.bundle import BundleMaterializer
from steps.cache_policy import depends_on


@step(
    experiment_tracker=True,
    cache_policy=depends_on(
        "darkroom.compilation.measurement",
        "darkroom.compilation.measurement",
        "darkroom.compilation.child",
        "darkroom.compilation.tvm",
        "darkroom.compilation.tvm_program",
        "darkroom.compilation.torch_tensors",
        "darkroom.reports.compilation_page",
        files=("darkroom/templates",),
    ),
    output_materializers={"compiled_bundle": BundleMaterializer},
)
def compile_model(
    bundle: Bundle, dataset: Dataset, compilation: CompilationConfig
) -> tuple[
    Annotated[Bundle, "compiled_bundle"],
    Annotated[CompilationReport, "compilation"],
    Annotated[HTMLString, "compilation_report"],
]:
    """Measure the engines at hand, and let the bundle say which one is to run it.

    Args:
        bundle: the packed model.
        dataset: on whose validation images engines have to agree with torch.
        compilation: engines, rule and thresholds.
    """
    from darkroom.compilation.measurement import bundle_for, measure
    from darkroom.compilation.results import validation_images
    from darkroom.reports.compilation_page import compilation_figure, compilation_page

    images = validation_images(
        dataset, preprocessing=bundle.metadata.preprocessing, most=compilation.images
    )
    report = measure(bundle, images=images, config=compilation, progress=terminal_progress())
    folder = workspace() / "work" / "compiled" / f"{report.version}-{report.chosen}"
    compiled = bundle_for(bundle, engine=report.chosen, folder=folder)
    page, run = compilation_page(report), active_run()
    run.log(metrics=report.metrics())
    run.figure(compilation_figure(report), file="figures/engines.png")
    run.text(page, file="reports/compilation.html")
    log_metadata({"chosen": report.chosen, "reason": report.reason, **report.metrics()})
    return compiled, report, HTMLString(page)
