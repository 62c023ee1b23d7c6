"""The result of a run: for machines as a versioned JSON file, for people as a table.

docs/summary.md describes every key, with a complete example.
"""

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeFloat, model_validator
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from darkroom.config import Metric, SearchSpace
from darkroom.dataset import Split
from darkroom.evaluation.evaluate import MetricValue
from darkroom.files import write_text

_SHOWN_SPLITS: tuple[Split, ...] = ("validation", "test")

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class RunSummary(_Part):
    """Which run this was."""

    name: str
    """The same in ZenML and MLflow."""
    id: str
    """ZenML's id of the pipeline run."""
    pipeline: str
    stack: str
    config_digest: str
    """SHA-256 of the resolved configuration, see `config_loading.config_digest`."""
    mlflow_run_id: str
    experiment: str
    """MLflow experiment."""
    started: AwareDatetime
    """When the process started."""
    git_commit: str | None
    """Of the checkout; null where it is none."""
    darkroom_version: str


class DataSummary(_Part):
    """What the model was trained and judged on."""

    source: str
    fingerprint: str
    """SHA-256 over path, label, split and content of every image."""
    counts: dict[Split, dict[str, Count]]
    """Images by split and class."""
    left_out: dict[str, Count]
    """Files of the source that were not used, by reason."""


class Timings(_Part):
    """Seconds."""

    setup: NonNegativeFloat
    """From the start of the process to the first component."""
    components: dict[str, NonNegativeFloat]
    """By component, in the order of their start; a reused one costs next to nothing."""
    reused: tuple[str, ...]
    """Components whose result was taken from an earlier run."""
    total: NonNegativeFloat
    """From the start of the process to the end of the last component."""


class RegisteredVersion(_Part):
    """A version in the model registry."""

    name: str
    version: str
    uri: str
    package: str | None = None
    """ARN of the model package in SageMaker's registry."""


class Artifacts(_Part):
    """Where things lie: paths, or URIs."""

    bundle: str
    """The model bundle, as `predict --model` and `serve` take it."""
    reports: dict[str, str]
    """HTML pages by name; `run` is the overview."""
    mlflow_store: str
    """MLflow's tracking URI."""
    registered_model: RegisteredVersion | None


class Latency(_Part):
    """Milliseconds from request to answer."""

    p50: NonNegativeFloat
    p99: NonNegativeFloat


class EndpointSummary(_Part):
    """The check of the deployed model against the evaluated one."""

    checked_images: Count
    agreement: Share
    """Share of the images with the same predicted class and probabilities."""
    maximum_difference: NonNegativeFloat
    """Largest difference of a probability."""
    latency_ms: Latency
    url: str | None
    """Where the endpoint still listens; null where it was stopped after the check."""


class BatchSummary(_Part):
    """Predictions for a whole split."""

    split: Split
    images: Count
    unreadable: Count
    """Images that have an error in the place of a prediction."""
    correct: Share
    """Share of the readable images whose label was predicted."""
    predictions: str
    """CSV: file, label, predicted class, probability, error."""


class Summary(_Part):
    """Everything that is worth knowing of a run."""

    schema_version: Literal[1] = 1
    run: RunSummary
    data: DataSummary
    best_hyperparameters: dict[str, int | float | str | bool]
    """Of the final training: the values that the search found, the others as configured."""
    metrics: dict[Split, dict[str, MetricValue]]
    """By split and name, each with its confidence interval."""
    timings: Timings
    artifacts: Artifacts
    endpoint: EndpointSummary | None
    endpoint_reason: str | None = None
    """Why there is no endpoint."""
    batch: BatchSummary | None = None
    """null where no split was asked for."""

    @model_validator(mode="after")
    def _endpoint_or_reason(self) -> Self:
        if (self.endpoint is None) != bool(self.endpoint_reason):
            raise ValueError("either endpoint or endpoint_reason must be given, and not both")
        return self


def write_summary(summary: Summary, path: Path) -> None:
    """Write the summary as JSON, atomically."""
    write_text(path, summary.model_dump_json(indent=2) + "\n")


def render(summary: Summary) -> RenderableType:
    """What a run prints at its end: the metrics, and where to look next.

    Printed with `soft_wrap=True`, long paths stay whole and can be copied.
    """
    return Group(
        Text(""), _metrics_table(summary), Text(""), *_outcome(summary), Text(""), *_next(summary)
    )


def metric_order(summary: Summary) -> list[str]:
    """The metrics of the summary: headline metrics first, as the configuration lists them."""
    present = dict.fromkeys(name for split in summary.metrics.values() for name in split)
    headline = [name for name in get_args(Metric) if name in present]
    return [*headline, *(name for name in present if name not in headline)]


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
        _line("time", _duration(summary) + (f", reused {', '.join(reused)}" if reused else "")),
        _line("endpoint", _endpoint(summary)),
        *([_line("batch", _batch(summary.batch))] if summary.batch else []),
    ]


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
        _line("classify", "python run.py predict IMAGE"),
    ]


def _ui(stack: str) -> str:
    if stack == "sagemaker":
        return "on the MLflow server of the stack"
    return "python run.py ui" + ("" if stack == "local" else f" --stack {stack}")


def _line(label: str, text: str) -> Text:
    return Text.assemble((f"{label:<18}", "dim"), text)
