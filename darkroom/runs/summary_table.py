"""The result of a run, for people: the metrics, what came of it, and where to look next."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from darkroom.config.sections import Split
from darkroom.config.tuning import SearchSpace
from darkroom.evaluation.evaluate import MetricValue
from darkroom.runs.summary import BatchSummary, DiagnosisSummary, Summary, metric_order
from darkroom.telemetry.findings import tally

_SHOWN_SPLITS: tuple[Split, ...] = ("validation", "test")


def render(summary: Summary) -> RenderableType:
    """What a run prints at its end: the metrics, and where to look next.

    Printed with `soft_wrap=True`, long paths stay whole and can be copied.
    """
    return Group(
        Text(""), _metrics_table(summary), Text(""), *_outcome(summary), Text(""), *_next(summary)
    )


def _metrics_table(summary: Summary) -> Table:
    table = Table(title=summary.run.name, title_justify="left", title_style="bold")
    table.add_column("metric")
    splits = [split for split in _SHOWN_SPLITS if split in summary.metrics]
    for split in splits:
        table.add_column(split, justify="right", no_wrap=True)
    for name in metric_order(summary):
        cells = [_interval(summary.metrics[split].get(name)) for split in splits]
        table.add_row(Text(name), *cells)
    return table


def _interval(metric: MetricValue | None) -> Text:
    if metric is None:
        return Text("–")
    if metric.interval is None:
        return Text.assemble(f"{metric.value:.4f} ", ("[no interval]", "dim"))
    low, high = metric.interval
    return Text.assemble(f"{metric.value:.4f} ", (f"[{low:.4f}, {high:.4f}]", "dim"))


def _outcome(summary: Summary) -> list[Text]:
    images = {split: sum(counts.values()) for split, counts in summary.data.counts.items()}
    left_out = sum(summary.data.left_out.values())
    reused = summary.timings.reused
    searched = {
        name: value
        for name, value in summary.best_hyperparameters.items()
        if name in SearchSpace.model_fields
    }
    return [
        _line("data", _joined(images) + (f", left out {left_out:,}" if left_out else "")),
        _line("hyperparameters", _joined(searched)),
        *([_line("diagnosis", _diagnosis(summary.diagnosis))] if summary.diagnosis else []),
        _line("time", _duration(summary) + (f", reused {', '.join(reused)}" if reused else "")),
        _line("endpoint", _endpoint(summary)),
        *([_line("batch", _batch(summary.batch))] if summary.batch else []),
    ]


def _diagnosis(diagnosis: DiagnosisSummary) -> str:
    """Such as '1 error, 2 notes; first: The learning rate is too high'."""
    findings = diagnosis.findings
    counts = tally(finding.severity for finding in findings)
    told = f"{counts}; first: {findings[0].title}" if findings else "nothing was found"
    return told + (f"; stopped early by {diagnosis.stopped_by}" if diagnosis.stopped_by else "")


def _joined(values: dict[str, int] | dict[str, int | float | str | bool] | dict[Split, int]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )


def _duration(summary: Summary) -> str:
    return f"{summary.timings.total:.1f} s, {summary.timings.setup:.1f} s of it set-up"


def _endpoint(summary: Summary) -> str:
    endpoint = summary.endpoint
    if endpoint is None:
        return f"none: {summary.endpoint_reason}"
    latency = endpoint.latency_ms
    return (
        f"{endpoint.agreement:.1%} of {endpoint.checked_images} images as evaluated, "
        f"{latency.p50:.1f} ms (p99 {latency.p99:.1f} ms)"
        + (f", listens at {endpoint.url}" if endpoint.url else "")
    )


def _batch(batch: BatchSummary) -> str:
    return (
        f"{batch.correct:.1%} of {batch.images} {batch.split} images right"
        + (f", {batch.unreadable} unreadable" if batch.unreadable else "")
        + f": {batch.predictions}"
    )


def _next(summary: Summary) -> list[Text]:
    reports = summary.artifacts.reports
    return [
        Text("Where to look next", style="bold"),
        *(_line(f"{name} report", path) for name, path in reports.items()),
        _line("model", summary.artifacts.bundle),
        _line("compare runs", _ui(summary.run.stack)),
        *(
            [_line("before and after", f"python run.py compare OTHER_RUN {summary.run.name}")]
            if summary.diagnosis
            else []
        ),
        _line("classify", "python run.py predict IMAGE"),
    ]


def _ui(stack: str) -> str:
    if stack == "sagemaker":
        return "on the MLflow server of the stack"
    return "python run.py ui" + ("" if stack == "local" else f" --stack {stack}")


def _line(label: str, text: str) -> Text:
    return Text.assemble((f"{label:<18}", "dim"), text)
