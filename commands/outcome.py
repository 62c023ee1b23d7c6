"""From a finished pipeline run to what a person and a program want to know of it.

Reads the run's artifacts, writes the run's folder in the workspace, and completes the run
in MLflow: a component that was reused from the cache logs nothing there by itself.
"""

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zenml.client import Client
from zenml.models import PipelineRunResponse

import darkroom
from commands.models import CONFIG_FILE
from darkroom.config import Config
from darkroom.config.loading import config_digest, to_yaml
from darkroom.dataset import SPLITS
from darkroom.diagnosis.result import Diagnosis
from darkroom.errors import DarkroomError
from darkroom.evaluation.evaluate import Evaluation
from darkroom.evaluation.gate import refusal
from darkroom.files import atomic_path, workspace, write_text
from darkroom.model.bundle import Bundle
from darkroom.summary import (
    Artifacts,
    BatchSummary,
    DataSummary,
    DiagnosisSummary,
    EndpointSummary,
    EngineSummary,
    Latency,
    RegisteredVersion,
    RunSummary,
    Summary,
    Timings,
    write_summary,
)
from darkroom.tracking.runs import RunLog, environment, pipeline_run
from stacks.environment import CHECKOUT

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
    tracker = Client().active_stack.experiment_tracker
    tracker.configure_mlflow()  # a server on the network wants to know who asks
    tracking_uri = tracker.get_tracking_uri()
    folder = workspace() / "runs" / run.name
    with pipeline_run(
        run.name, experiment=config.tracking.experiment, tracking_uri=tracking_uri
    ) as log:
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
            artifacts=found.places(folder, mlflow_store=tracking_uri),
            endpoint=found.endpoint(),
            endpoint_reason=refusal(found.test.values(), deployment=config.deployment),
            batch=found.batch(folder, split=config.batch.split),
        )
        _write_folder(folder, found=found, summary=summary, config=config)
        _record(log, summary=summary, config=config)
    return summary


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
        dataset = self.load("validate_dataset", "dataset")
        return DataSummary(
            source=dataset.source,
            fingerprint=dataset.fingerprint,
            counts=dataset.counts(),
            left_out=dict(dataset.left_out),
        )

    def timings(self, started: float) -> Timings:
        ran = sorted(self._steps.items(), key=lambda item: item[1].start_time)
        spans = {name: (_seconds(step.start_time), _seconds(step.end_time)) for name, step in ran}
        return Timings(
            setup=max(0.0, min(begin for begin, _ in spans.values()) - started),
            components={name: end - begin for name, (begin, end) in spans.items()},
            reused=tuple(name for name, step in ran if step.status.value == "cached"),
            total=max(end for _, end in spans.values()) - started,
        )

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


def _write_folder(folder: Path, *, found: _Found, summary: Summary, config: Config) -> None:
    """The run's reports, model and summary, in one place; `latest` leads to the newest."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in found.reports.items():
        write_text(folder / f"{name}.html", page)
    with atomic_path(folder / "model") as temporary:
        # Links where the file system has them: a model can be hundreds of megabytes.
        shutil.copytree(found.bundle.folder, temporary, copy_function=_link_or_copy)
    # What later commands on this model go by; a source may be a signed URL.
    write_text(folder / CONFIG_FILE, to_yaml(config))
    (folder / CONFIG_FILE).chmod(0o600)
    if found.diagnosis:
        write_text(folder / "diagnosis.json", found.diagnosis.model_dump_json(indent=1))
    if recording := found.load("train_model", "training_recording").folder:
        stale = shutil.ignore_patterns("training.html")  # of an attempt that failed
        with atomic_path(folder / "recording") as temporary:
            shutil.copytree(recording, temporary, copy_function=_link_or_copy, ignore=stale)
    write_summary(summary, folder / "summary.json")
    with atomic_path(folder.parent / "latest") as temporary:
        temporary.symlink_to(folder.name)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _metrics(summary: Summary) -> dict[str, float]:
    """The numbers of MLflow's table; a reused component took no time that means anything."""
    timings, endpoint = summary.timings, summary.endpoint
    metrics = {
        f"{split}_{name}": metric.value
        for split, by_name in summary.metrics.items()
        for name, metric in by_name.items()
    }
    for name in _WITH_INTERVAL:
        metrics[f"test_{name}_low"], metrics[f"test_{name}_high"] = summary.metrics["test"][
            name
        ].interval
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
            "mlflow.note.content": _note(summary),
        },
    )
    images = {split: sum(summary.data.counts[split].values()) for split in SPLITS}
    log.log(parameters={f"images_{split}": count for split, count in images.items()})
    log.text(to_yaml(config), file="config.yaml")
    log.text(environment(), file="environment.json")
    log.text(summary.model_dump_json(indent=2), file="summary.json")
    for name, path in summary.artifacts.reports.items():
        log.text(Path(path).read_text(encoding="utf-8"), file=f"reports/{name}.html")


def _note(summary: Summary) -> str:
    """Shown as the run's description."""
    accuracy = summary.metrics["test"]["accuracy"]
    low, high = accuracy.interval
    return (
        f"Test accuracy {accuracy.value:.1%} (95 % interval {low:.1%} to {high:.1%}) on "
        f"`{summary.data.source}`."
    )
