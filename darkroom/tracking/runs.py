"""Runs in MLflow: one a pipeline run, and nested ones for the trials and the final training.

fox-1234                    kind=pipeline   headline metrics, parameters, reports, model
├── trial-0 … trial-3       kind=trial      metrics by epoch, the values tried
└── training                kind=training   metrics by epoch, system metrics
"""

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["pipeline", "trial", "training"]
_LONGEST_DATASET_NAME = 500  # characters, MLflow's own limits
_LONGEST_DIGEST = 36
_MAXIMUM_VALUE = 6000  # characters of a parameter, MLflow's own limit


class RunLog:
    """One MLflow run that things can be logged to."""

    def __init__(self, client: MlflowClient, *, run_id: str, experiment_id: str) -> None:
        self._client, self.run_id, self.experiment_id = client, run_id, experiment_id

    @property
    def name(self) -> str:
        """The run's name, as the user interface shows it."""
        return str(self._client.get_run(self.run_id).info.run_name)

    def log(
        self,
        *,
        metrics: Mapping[str, float] | None = None,
        parameters: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        """Log values in one round trip; `step` counts epochs from 1, or is 0."""
        now = get_current_time_millis()
        self._client.log_batch(
            self.run_id,
            metrics=[Metric(name, value, now, step) for name, value in (metrics or {}).items()],
            params=[
                Param(name, str(value)[:_MAXIMUM_VALUE])
                for name, value in (parameters or {}).items()
            ],
            tags=[RunTag(name, value) for name, value in (tags or {}).items()],
        )

    def dataset(self, source: str, *, digest: str, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Log the data set as the run's input, as MLflow knows data sets.

        Args:
            source: as people know it.
            digest: its fingerprint, of which MLflow keeps the beginning.
            counts: images by split and class.
        """
        images = {split: sum(by_class.values()) for split, by_class in counts.items()}
        classes = len({name for by_class in counts.values() for name in by_class})
        profile = {"images": images, "classes": classes, "fingerprint": digest}
        dataset = Dataset(
            name=source[:_LONGEST_DATASET_NAME],
            digest=digest[:_LONGEST_DIGEST],
            source_type="local" if "://" not in source else source.partition(":")[0],
            source=json.dumps({"uri": source}),
            profile=json.dumps(profile),
        )
        context = InputTag("mlflow.data.context", "training, validation and test")
        self._client.log_inputs(self.run_id, datasets=[DatasetInput(dataset, tags=[context])])

    def text(self, text: str, *, file: str) -> None:
        """Store a text or HTML file."""
        self._client.log_text(self.run_id, text, file)

    def file(self, path: Path, *, folder: str) -> None:
        """Store a file in a folder of the run's."""
        self._client.log_artifact(self.run_id, str(path), folder)

    def figure(self, figure: "Figure", *, file: str) -> None:
        """Store a figure as PNG."""
        self._client.log_figure(self.run_id, figure, file)

    def nested(self, name: str, *, kind: Kind) -> "RunLog":
        """Start a run below this one; `finish` ends it."""
        run = self._client.create_run(
            self.experiment_id,
            run_name=name,
            tags={"mlflow.parentRunId": self.run_id, "kind": kind},
        )
        return RunLog(self._client, run_id=run.info.run_id, experiment_id=self.experiment_id)

    def finish(self, *, failed: bool = False) -> None:
        """End the run."""
        status = RunStatus.FAILED if failed else RunStatus.FINISHED
        self._client.set_terminated(self.run_id, RunStatus.to_string(status))


def active_run() -> RunLog:
    """The run that ZenML's experiment tracker opened for the component under way."""
    run = mlflow.active_run()
    assert run, "the step lacks experiment_tracker=True"  # noqa: S101 - a programmer's error
    log = RunLog(MlflowClient(), run_id=run.info.run_id, experiment_id=run.info.experiment_id)
    # From the first component on, so that a run that fails is found as one too.
    log.log(tags={"kind": "pipeline"})
    return log


@contextmanager
def training_run(*, system_metrics: bool) -> Iterator[RunLog]:
    """The nested run of the final training, with CPU, memory, disk and network if wanted."""
    with mlflow.start_run(
        run_name="training",
        nested=True,
        tags={"kind": "training"},
        log_system_metrics=system_metrics,
    ) as run:
        yield RunLog(MlflowClient(), run_id=run.info.run_id, experiment_id=run.info.experiment_id)


@contextmanager
def pipeline_run(
    name: str, *, experiment: str, tracking_uri: str, failed: bool = False
) -> Iterator[RunLog]:
    """The run of a whole pipeline run, found by name, or made where every step was cached.

    When the block ends, the run ends: as failed, where that is said, with those below it.
    """
    client = MlflowClient(tracking_uri)
    found = client.get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else client.create_experiment(experiment)
    runs = client.search_runs([experiment_id], f'tags.mlflow.runName = "{name}"', max_results=1)
    run = runs[0] if runs else client.create_run(experiment_id, run_name=name)
    log = RunLog(client, run_id=run.info.run_id, experiment_id=experiment_id)
    yield log
    if failed:
        fail_unfinished(name, experiment=experiment, tracking_uri=tracking_uri)
    log.finish(failed=failed)


def fail_unfinished(
    name: str, *, experiment: str | None, tracking_uri: str, error: str = ""
) -> None:
    """End what is left of a pipeline run whose process died; fine where nothing is.

    Args:
        experiment: that it is in; None: any.
        error: why the run itself has failed, even if its record was ended between components.
    """
    client = MlflowClient(tracking_uri)
    if experiment is None:
        found = list(client.search_experiments())
    else:
        found = list(filter(None, [client.get_experiment_by_name(experiment)]))
    if not found:
        return
    places = [each.experiment_id for each in found]
    for run in client.search_runs(places, f'tags.mlflow.runName = "{name}"'):
        below = f'tags.mlflow.parentRunId = "{run.info.run_id}"'
        for one in (*client.search_runs([run.info.experiment_id], below), run):
            if one.info.status == RunStatus.to_string(RunStatus.RUNNING):
                client.set_terminated(one.info.run_id, RunStatus.to_string(RunStatus.FAILED))
        if error:
            client.set_tag(run.info.run_id, "error", error)
            client.set_terminated(run.info.run_id, RunStatus.to_string(RunStatus.FAILED))


def environment() -> str:
    """Python, platform and installed packages, as JSON."""
    packages = {distribution.name: distribution.version for distribution in distributions()}
    return json.dumps(
        {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
        },
        indent=1,
    )
