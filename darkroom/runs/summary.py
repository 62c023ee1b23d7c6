"""The result of a run, for machines: a versioned JSON file. summary_table shows it to people.

docs/summary.md describes every key, with a complete example.
"""

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeFloat, model_validator

from darkroom.base.files import write_text
from darkroom.config.debugging import Severity
from darkroom.config.sections import Metric, Split
from darkroom.evaluation.evaluate import MetricValue
from darkroom.telemetry.findings import Diagnosis

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


class FindingSummary(_Part):
    """Something that a rule found in the training."""

    rule: str
    severity: Severity
    title: str
    where: str
    """Layer, class or device; empty: the whole run."""
    step: int | None
    """Training step, from 0, at which it was first met."""
    follows_from: str
    """The rule whose finding explains this one; empty: none does."""


class DiagnosisSummary(_Part):
    """What was found in the recorded training."""

    findings: tuple[FindingSummary, ...]
    """The most important first."""
    stopped_by: str | None
    """The rule that ended the training early."""

    @classmethod
    def of(cls, diagnosis: Diagnosis) -> Self:
        """The findings without their evidence."""
        kept = FindingSummary.model_fields
        findings = [
            FindingSummary(**one.model_dump(include=set(kept))) for one in diagnosis.findings
        ]
        return cls(findings=tuple(findings), stopped_by=diagnosis.stopped_by or None)


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


class EngineSummary(_Part):
    """What ran the network, and what was to run it."""

    compiled_for: str
    """The engine that the bundle names: the default, or what `compile_model` chose."""
    evaluated_by: str
    """The engine whose answers the metrics are of; empty: not said."""
    fallback: str
    """Why it was not the one that the bundle names; empty: it was."""


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
    engine: str = ""
    """What ran the network there, as its answers say; empty: they do not."""
    tolerance: NonNegativeFloat | None = None
    """Largest difference of a probability that counted as agreement."""


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
    engine: str = ""
    """What ran the network, as the answers say; empty: they do not."""


class Summary(_Part):
    """Everything that is worth knowing of a run."""

    schema_version: Literal[1, 2] = 2
    """Since 2, the interval of a metric may be null."""
    run: RunSummary
    data: DataSummary
    best_hyperparameters: dict[str, int | float | str | bool]
    """Of the final training: the values that the search found, the others as configured."""
    metrics: dict[Split, dict[str, MetricValue]]
    """By split and name, each with its confidence interval, where one can be told."""
    engine: EngineSummary | None = None
    """null in files of earlier versions."""
    diagnosis: DiagnosisSummary | None = None
    """null where the training was not recorded, or not judged."""
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


class FailedRun(_Part):
    """A run that did not come to its end, in the place of a summary."""

    name: str
    started: AwareDatetime
    stack: str
    data: str
    """What the user named."""
    component: str
    """That it ended in; empty: it had not begun."""
    kind: Literal["failed", "stopped", "interrupted"]
    reason: str


FAILURE_FILE = "failure.json"
"""In the folder of a run that did not come to its end."""


def write_summary(summary: Summary, path: Path) -> None:
    """Write the summary as JSON, atomically."""
    write_text(path, summary.model_dump_json(indent=2) + "\n")


def metric_label(metric: str) -> str:
    """A metric's name as people write it, such as 'F1, macro'."""
    name, _, average = metric.partition("_")
    words = {"macro": ", macro", "weighted": ", weighted"}
    if average in words:
        return f"{'F1' if name == 'f1' else name.capitalize()}{words[average]}"
    return metric.replace("_", " ").replace("top5", "top-5").capitalize()


def metric_order(summary: Summary) -> list[str]:
    """The metrics of the summary: headline metrics first, as the configuration lists them."""
    present = dict.fromkeys(name for split in summary.metrics.values() for name in split)
    headline = [name for name in get_args(Metric) if name in present]
    return [*headline, *(name for name in present if name not in headline)]
