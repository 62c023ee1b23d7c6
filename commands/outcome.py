"""From a finished pipeline run to what a person and a program want to know of it.

Reads the run's artifacts, writes the run's folder in the workspace, and completes the run
in MLflow: a component that was reused from the cache logs nothing there by itself.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from zenml import save_artifact
from zenml.client import Client
from zenml.models import PipelineRunResponse, StepRunResponse
from zenml.types import HTMLString

import darkroom
from commands.models import CONFIG_FILE
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.files import atomic_path, link_or_copy, workspace, write_text
from darkroom.config import Config
from darkroom.config.loader import config_digest, to_yaml
from darkroom.config.sections import SPLITS, natural_direction
from darkroom.data.dataset import Dataset
from darkroom.data.source_names import public_url
from darkroom.evaluation.evaluate import Evaluation, refusal
from darkroom.models.bundle import Bundle
from darkroom.reports.pages import with_way_back
from darkroom.reports.run_page import Failure, Overview, run_page, verdict_of
from darkroom.runs.summary import (
    FAILURE_FILE,
    Artifacts,
    BatchSummary,
    DataSummary,
    DiagnosisSummary,
    EndpointSummary,
    EngineSummary,
    FailedRun,
    Latency,
    RegisteredVersion,
    RunSummary,
    Summary,
    Timings,
    write_summary,
)
from darkroom.telemetry.findings import Diagnosis
from darkroom.tracking.runs import RunLog, environment, pipeline_run
from darkroom.tuning.results import TuningResult
from stacks.environment import CHECKOUT
from stacks.loader import tracking_uri

_REPORTS = {
    "validation": ("validate_dataset", "validation_report"),
    "training": ("diagnose_training", "training_report"),
    "compilation": ("compile_model", "compilation_report"),
    "evaluation": ("evaluate_model", "evaluation_report"),
}
"""Component and output by the report's name."""
_MAX_TAG = 5000
"""Characters, a little below MLflow's own limit."""
_WITH_INTERVAL = ("accuracy", "f1_macro")
_DIGITS = 6


def conclude(
    run: PipelineRunResponse | None,
    *,
    config: Config,
    stack: str,
    started: float,
) -> Summary:
    """Summarise a run, write its folder, complete its record in MLflow.

    Args:
        run: as the pipeline returned it.
        started: seconds since the epoch at which the process started.

    Raises:
        DarkroomError: the run did not complete.
    """
    if run is None or not run.status.is_successful:
        raise DarkroomError(f"the pipeline run did not complete: {run and run.status.value}")
    found = _Found(run)
    store = tracking_uri()
    folder = workspace() / "runs" / run.name
    with pipeline_run(run.name, experiment=config.tracking.experiment, tracking_uri=store) as log:
        summary = Summary(
            run=_run_summary(run, config=config, stack=stack, started=started, log=log),
            data=found.data(),
            best_hyperparameters=found.bundle.metadata.hyperparameters,
            metrics={"validation": found.validation.metrics, "test": found.test.metrics},
            engine=EngineSummary(
                compiled_for=found.bundle.metadata.engine,
                evaluated_by=found.test.engine,
                fallback=found.test.engine_fallback,
            ),
            diagnosis=DiagnosisSummary.of(found.diagnosis) if found.diagnosis else None,
            timings=found.timings(started),
            artifacts=found.places(folder, mlflow_store=store),
            endpoint=found.endpoint(),
            endpoint_reason=refusal(found.test.values(), deployment=config.deployment),
            batch=found.batch(folder, split=config.batch.split),
        )
        summary = _with_overview(summary)
        pages = {**found.reports, "run": run_page(_overview(summary, found=found, config=config))}
        _write_folder(folder, pages=pages, found=found, summary=summary, config=config)
        _record(log, summary=summary, config=config)
    _keep_in_zenml(run.name, page=pages["run"])
    return summary


def conclude_failed(
    name: str, *, config: Config, stack: str, started: float, error: BaseException
) -> Path | None:
    """Leave the overview of a run that did not come to its end, and complete its record.

    Args:
        name: of the run, which may not have begun.
        error: what ended it.

    Returns:
        The overview; None of a run that goes on elsewhere, or where nobody can be asked of it.
    """
    if stack != "local" and (isinstance(error, KeyboardInterrupt) or not _store_answers()):
        return None
    runs = Client().list_pipeline_runs(name=name, size=1, hydrate=True).items
    if stack != "local" and not runs:  # it has followed another run, which says so itself
        return None
    found = _Partial(runs[0].steps if runs else {})
    folder = workspace() / "runs" / name
    failure = Failure(
        component=found.under_way(),
        reason=str(error) or type(error).__name__,
        kind=_kind(error, component=found.under_way()),
    )
    pages = found.pages() | {
        path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.html")
    }
    overview = Overview(
        name=name,
        stack=stack,
        started=datetime.fromtimestamp(started, tz=UTC),
        source=public_url(config.data.source),
        pages=sorted(pages.keys() - {"run"}),
        timings=found.timings(started),
        places=[("Configuration", config_digest(config)), ("Git commit", _git_commit() or "none")],
        failure=failure,
        data=found.data(),
        search=found.get("tune_hyperparameters", "trials"),
        diagnosis=found.get("diagnose_training", "diagnosis"),
        test=found.get("evaluate_model", "test_evaluation"),
        validation=found.get("evaluate_model", "validation_evaluation"),
        gate=_gate(config),
    )
    pages["run"] = run_page(overview)
    _write_pages(folder, pages)
    failed = FailedRun(
        name=name,
        started=overview.started,
        stack=stack,
        data=overview.source,
        component=failure.component,
        kind=failure.kind,
        reason=failure.reason,
    )
    write_text(folder / FAILURE_FILE, failed.model_dump_json(indent=1))
    write_text(folder / CONFIG_FILE, to_yaml(config))
    (folder / CONFIG_FILE).chmod(0o600)
    with pipeline_run(
        name,
        experiment=config.tracking.experiment,
        tracking_uri=tracking_uri(),
        failed=True,
    ) as log:
        log.log(
            parameters={**config.hyperparameters.model_dump(), **_searched(config)},
            tags={
                "kind": "pipeline",
                "stack": stack,
                "data": overview.source,
                "config_digest": config_digest(config)[:12],
                "git_commit": _git_commit() or "none",
                "failed_in": failure.component or "before the first component",
                "error": failure.reason[:_MAX_TAG],
                "mlflow.note.content": f"{verdict_of(overview)[1]}\n\n{failure.reason}",
            },
        )
        if overview.data:
            data = overview.data
            log.dataset(
                data.source,
                digest=data.fingerprint,
                counts={split: data.counts[split] for split in SPLITS},
            )
        log.text(to_yaml(config), file="config.yaml")
        log.text(environment(), file="environment.json")
        for page, text in pages.items():
            log.text(text, file=f"reports/{page}.html")
    if runs:
        _keep_in_zenml(name, page=pages["run"])
    return folder / "run.html"


def _store_answers() -> bool:
    """Whether ZenML's server is there; a stand-in for it may have died."""
    address = urlsplit(os.environ.get("ZENML_STORE_URL", ""))
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=2).close()
    except OSError:
        return False
    return True


def _kind(error: BaseException, *, component: str) -> Literal["failed", "stopped", "interrupted"]:
    """A rule, or a check of the data, stops a run by an error of its own."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    stops = isinstance(error, UserError) or component == "diagnose_training"
    return "stopped" if stops else "failed"


def _searched(config: Config) -> dict[str, str]:
    """That a value was to be searched, in the place of the value."""
    if not config.tuning.enabled:
        return {}
    space = config.tuning.search_space.model_dump(exclude_none=True)
    return dict.fromkeys(space, "searched")


class _Partial:
    """The artifacts of a run that did not come to its end, as far as they can be read."""

    def __init__(self, steps: Mapping[str, StepRunResponse]) -> None:
        self._steps = steps

    def get(self, step: str, output: str) -> Any:  # noqa: ANN401 - whatever the step returned
        """An output of a component; None where there is none."""
        try:
            return self._steps[step].outputs[output][0].load()
        except Exception:  # missing, or damaged: the error that ended the run matters more
            return None

    def under_way(self) -> str:
        """The component that the run ended in; empty: none had begun."""
        unfinished = [name for name, step in self._steps.items() if not step.status.is_successful]
        return unfinished[0] if unfinished else ""

    def pages(self) -> dict[str, str]:
        """Reports by name."""
        found = {name: self.get(step, output) for name, (step, output) in _REPORTS.items()}
        return {name: page for name, page in found.items() if page}

    def data(self) -> DataSummary | None:
        """Of the validated data set, else of the ingested one."""
        dataset = self.get("validate_dataset", "dataset") or self.get(
            "ingest_images", "ingested_dataset"
        )
        return _data_summary(dataset) if dataset else None

    def timings(self, started: float) -> Timings | None:
        """Of the components that ran."""
        return _timings(self._steps, started=started) if self._steps else None


class _Found:
    """The artifacts of a run, loaded once."""

    def __init__(self, run: PipelineRunResponse) -> None:
        self._steps = run.steps
        is_compiled = "compile_model" in run.steps
        self.bundle: Bundle = (
            self.load("compile_model", "compiled_bundle")
            if is_compiled
            else self.load("train_model", "model_bundle")
        )
        self.test: Evaluation = self.load("evaluate_model", "test_evaluation")
        self.validation: Evaluation = self.load("evaluate_model", "validation_evaluation")
        self.reports: dict[str, str] = {
            "evaluation": self.load("evaluate_model", "evaluation_report"),
            "validation": self.load("validate_dataset", "validation_report"),
        }
        self.diagnosis: Diagnosis | None = None
        if "diagnose_training" in run.steps:
            self.reports["training"] = self.load("diagnose_training", "training_report")
            self.diagnosis = self.load("diagnose_training", "diagnosis")
        if is_compiled:
            self.reports["compilation"] = self.load("compile_model", "compilation_report")

    def load(self, step: str, output: str) -> Any:  # noqa: ANN401 - whatever the step returned
        """An output of a component."""
        return self._steps[step].outputs[output][0].load()

    def data(self) -> DataSummary:
        return _data_summary(self.load("validate_dataset", "dataset"))

    def timings(self, started: float) -> Timings:
        return _timings(self._steps, started=started)

    def search(self) -> TuningResult | None:
        if "tune_hyperparameters" not in self._steps:
            return None
        found: TuningResult = self.load("tune_hyperparameters", "trials")
        return found

    def places(self, folder: Path, *, mlflow_store: str) -> Artifacts:
        registered = self.load("register_model", "registered_model")
        return Artifacts(
            bundle=str(folder / "model"),
            reports={name: str(folder / f"{name}.html") for name in self.reports},
            mlflow_store=mlflow_store,
            registered_model=RegisteredVersion(**registered.model_dump()),
        )

    def endpoint(self) -> EndpointSummary | None:
        if "predict_images" not in self._steps:
            return None
        check = self.load("predict_images", "endpoint_check")
        return EndpointSummary(
            checked_images=check.images,
            agreement=check.agreement,
            maximum_difference=check.maximum_difference,
            latency_ms=Latency(p50=check.latency_ms_p50, p99=check.latency_ms_p99),
            url=check.url,
            engine=check.engine,
            tolerance=check.tolerance,
        )

    def batch(self, folder: Path, *, split: str) -> BatchSummary | None:
        """What came of the batch; its table is written to the run's folder."""
        step = self._steps.get("predict_split")
        if step is None:
            return None
        path = folder / "predictions.csv"
        write_text(path, self.load("predict_split", "batch_predictions"))
        counted = step.outputs["batch_predictions"][0].run_metadata | step.run_metadata
        return BatchSummary(
            split=split,
            images=counted["images"],
            unreadable=counted["unreadable"],
            correct=counted["correct"],
            predictions=str(path),
            engine=str(counted.get("engine", "")),
        )


def _data_summary(dataset: Dataset) -> DataSummary:
    return DataSummary(
        source=dataset.source,
        fingerprint=dataset.fingerprint,
        counts=dataset.counts(),
        left_out=dict(dataset.left_out),
    )


def _timings(steps: Mapping[str, StepRunResponse], *, started: float) -> Timings:
    """Of what ran; a component that did not end has run until now."""
    now = time.time()
    begun = [(step.start_time, name, step) for name, step in steps.items() if step.start_time]
    ran = sorted(begun, key=lambda each: each[0])
    spans = {
        name: (_seconds(begin), _seconds(step.end_time) if step.end_time else now)
        for begin, name, step in ran
    }
    return Timings(
        setup=max(0.0, min(begin for begin, _ in spans.values()) - started),
        components={name: max(0.0, end - begin) for name, (begin, end) in spans.items()},
        reused=tuple(name for _, name, step in ran if step.status.value == "cached"),
        total=max(0.0, max(end for _, end in spans.values()) - started),
    )


def _with_overview(summary: Summary) -> Summary:
    """A summary that names the overview first among the reports."""
    folder = Path(summary.artifacts.bundle).parent
    reports = {"run": str(folder / "run.html"), **summary.artifacts.reports}
    artifacts = summary.artifacts.model_copy(update={"reports": reports})
    return summary.model_copy(update={"artifacts": artifacts})


def _overview(summary: Summary, *, found: _Found, config: Config) -> Overview:
    run, artifacts = summary.run, summary.artifacts
    registered = artifacts.registered_model
    return Overview(
        name=run.name,
        stack=run.stack,
        started=run.started,
        source=summary.data.source,
        pages=list(found.reports),
        timings=summary.timings,
        places=[
            ("Model bundle", artifacts.bundle),
            ("MLflow store", artifacts.mlflow_store),
            ("MLflow run", f"{run.mlflow_run_id} in experiment {run.experiment}"),
            *([("Registered model", registered.uri)] if registered else []),
            ("ZenML run", run.id),
            ("Configuration", run.config_digest),
            ("Git commit", run.git_commit or "none"),
        ],
        data=summary.data,
        search=found.search(),
        diagnosis=found.diagnosis,
        test=found.test,
        validation=found.validation,
        gate=_gate(config),
        endpoint=summary.endpoint,
        endpoint_reason=summary.endpoint_reason or "",
        batch=summary.batch,
    )


def _gate(config: Config) -> str:
    """What the model has to reach, in words."""
    deployment = config.deployment
    if not deployment.enabled:
        return "none, for deployment.enabled is false"
    is_error = natural_direction(deployment.gate_metric) == "minimize"
    bound = "at most" if is_error else "at least"
    return f"test {deployment.gate_metric} of {bound} {deployment.gate_threshold:g}"


def _keep_in_zenml(run: str, *, page: str) -> None:
    """The overview as an artifact, which ZenML's dashboard shows."""
    save_artifact(HTMLString(page), name="run_overview", version=run)


def _seconds(moment: datetime) -> float:
    """ZenML's times are UTC without saying so."""
    return moment.replace(tzinfo=UTC).timestamp()


def _run_summary(
    run: PipelineRunResponse, *, config: Config, stack: str, started: float, log: RunLog
) -> RunSummary:
    return RunSummary(
        name=run.name,
        id=str(run.id),
        pipeline="training",
        stack=stack,
        config_digest=config_digest(config),
        mlflow_run_id=log.run_id,
        experiment=config.tracking.experiment,
        started=datetime.fromtimestamp(started, tz=UTC),
        git_commit=_git_commit(),
        darkroom_version=darkroom.__version__,
    )


def _git_commit() -> str | None:
    command = ["git", "-C", str(CHECKOUT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def _write_pages(folder: Path, pages: Mapping[str, str]) -> None:
    """Reports by name, each with a link to the overview."""
    for name, page in pages.items():
        told = page if name == "run" else with_way_back(page, to="run.html", text="Overview")
        write_text(folder / f"{name}.html", told)


def _write_folder(
    folder: Path, *, pages: Mapping[str, str], found: _Found, summary: Summary, config: Config
) -> None:
    """The run's reports, model and summary, in one place; `latest` leads to the newest."""
    _write_pages(folder, pages)
    with atomic_path(folder / "model") as temporary:
        # Links where the file system has them: a model can be hundreds of megabytes.
        shutil.copytree(found.bundle.folder, temporary, copy_function=link_or_copy)
    # What later commands on this model go by; a source may be a signed URL.
    write_text(folder / CONFIG_FILE, to_yaml(config))
    (folder / CONFIG_FILE).chmod(0o600)
    if found.diagnosis:
        write_text(folder / "diagnosis.json", found.diagnosis.model_dump_json(indent=1))
    if recording := found.load("train_model", "training_recording").folder:
        stale = shutil.ignore_patterns("training.html")  # of an attempt that failed
        with atomic_path(folder / "recording") as temporary:
            shutil.copytree(recording, temporary, copy_function=link_or_copy, ignore=stale)
    write_summary(summary, folder / "summary.json")
    with atomic_path(folder.parent / "latest") as temporary:
        temporary.symlink_to(folder.name)


def _metrics(summary: Summary) -> dict[str, float]:
    """The numbers of MLflow's table; a reused component took no time that means anything."""
    timings, endpoint = summary.timings, summary.endpoint
    metrics = {
        f"{split}_{name}": metric.value
        for split, by_name in summary.metrics.items()
        for name, metric in by_name.items()
    }
    for name in _WITH_INTERVAL:
        if interval := summary.metrics["test"][name].interval:
            metrics[f"test_{name}_low"], metrics[f"test_{name}_high"] = interval
    metrics |= {
        f"seconds_{name}": seconds
        for name, seconds in timings.components.items()
        if name not in timings.reused
    }
    metrics["seconds_total"] = timings.total
    if endpoint:
        metrics["endpoint_agreement"] = endpoint.agreement
    return {name: round(value, _DIGITS) for name, value in metrics.items()}


def _record(log: RunLog, *, summary: Summary, config: Config) -> None:
    """What makes runs comparable in MLflow's table."""
    log.log(
        metrics=_metrics(summary),
        parameters=summary.best_hyperparameters,
        tags={
            "kind": "pipeline",
            "stack": summary.run.stack,
            "data": summary.data.source,
            "data_fingerprint": summary.data.fingerprint[:12],
            "config_digest": summary.run.config_digest[:12],
            "git_commit": summary.run.git_commit or "none",
            "engine": summary.engine.evaluated_by if summary.engine else "",
            "deployed": "yes" if summary.endpoint else f"no: {summary.endpoint_reason}",
            "reused": ", ".join(summary.timings.reused) or "nothing",
            "mlflow.note.content": _note(summary, confidence=100 * config.evaluation.confidence),
        },
    )
    log.dataset(
        summary.data.source,
        digest=summary.data.fingerprint,
        counts={split: summary.data.counts[split] for split in SPLITS},
    )
    images = {split: sum(summary.data.counts[split].values()) for split in SPLITS}
    log.log(parameters={f"images_{split}": count for split, count in images.items()})
    log.text(to_yaml(config), file="config.yaml")
    log.text(environment(), file="environment.json")
    log.text(summary.model_dump_json(indent=2), file="summary.json")
    for name, path in summary.artifacts.reports.items():
        log.text(Path(path).read_text(encoding="utf-8"), file=f"reports/{name}.html")


def _note(summary: Summary, *, confidence: float) -> str:
    """Shown as the run's description."""
    accuracy = summary.metrics["test"]["accuracy"]
    low, high = accuracy.interval or (0.0, 1.0)
    return (
        f"Test accuracy {accuracy.value:.1%} ({confidence:.3g} % interval {low:.1%} to "
        f"{high:.1%}) on `{summary.data.source}`."
    )
