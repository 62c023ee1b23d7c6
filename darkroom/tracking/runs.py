"""Runs in MLflow: one a pipeline run, nested ones for trials and the training; their removal."""

import json
import platform
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis

from darkroom.telemetry.epochs import EpochMetrics
from darkroom.tuning.results import Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# --- runs ---

Kind = Literal["pipeline", "trial", "training"]
_MAX_DATASET_NAME = 500  # characters, MLflow's own limits
_MAX_DIGEST = 36
_MAX_VALUE = 6000  # characters of a parameter, MLflow's own limit


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
        """Log values in one round trip.

        Args:
            metrics: logged at `step`.
            parameters: logged as text, cut at the 6,000 characters that MLflow takes; a run has one
                value of each.
            step: the epoch, from 1; 0 for values of the whole run.
        """
        now = get_current_time_millis()
        self._client.log_batch(
            self.run_id,
            metrics=[Metric(name, value, now, step) for name, value in (metrics or {}).items()],
            params=[
                Param(name, str(value)[:_MAX_VALUE]) for name, value in (parameters or {}).items()
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
            name=source[:_MAX_DATASET_NAME],
            digest=digest[:_MAX_DIGEST],
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
    """The MLflow run of a whole pipeline run: found by name, or made if every step was cached.

    When the block ends, the run ends: as failed, where that is said, with those below it.

    Args:
        name: of the pipeline run, by which MLflow has it too.
        experiment: name of the MLflow experiment; made where there is none.
        tracking_uri: MLflow's store.
        failed: whether the pipeline run has failed; runs below it that still go on are ended.
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


# --- trials ---
# The trials of a search, each as a nested run.


def log_epoch(run: RunLog, epoch: EpochMetrics) -> None:
    """Log an epoch's metrics at its number."""
    run.log(
        metrics={
            "train_loss": epoch.train_loss,
            "train_accuracy": epoch.train_accuracy,
            "epoch_learning_rate": epoch.learning_rate,
            "images_per_second": epoch.images_per_second,
            **{f"validation_{name}": value for name, value in epoch.validation.items()},
        },
        step=epoch.epoch,
    )


class TrialLog:
    """Opens a nested run at a trial's first epoch and ends it with the trial."""

    def __init__(self, parent: RunLog) -> None:
        self._parent = parent
        self._runs: dict[int, RunLog] = {}
        self._finished: set[int] = set()

    def epoch(self, number: int, epoch: EpochMetrics) -> None:
        """An epoch of trial `number` ended."""
        log_epoch(self._run(number), epoch)

    def finish(self, trial: Trial) -> None:
        """A trial ended: completed, pruned or failed."""
        run = self._run(trial.number)
        run.log(
            parameters=trial.values,
            metrics={} if trial.objective is None else {"objective": trial.objective},
            tags={"trial.state": trial.state},
        )
        run.finish(failed=trial.state == "failed")
        self._finished.add(trial.number)

    def add_missing(self, trials: Sequence[Trial]) -> None:
        """Log the trials that an interrupted search had done before this one went on."""
        for trial in trials:
            if trial.number not in self._finished:
                self.finish(trial)

    def _run(self, number: int) -> RunLog:
        if number not in self._runs:
            self._runs[number] = self._parent.nested(f"trial-{number}", kind="trial")
        return self._runs[number]


# --- removal ---
# Removing a run from a local MLflow: its record, its files, and versions that it registered.

_ALIASES = "SELECT name, version, alias FROM registered_model_aliases"
_BELOW = """
WITH RECURSIVE below(id) AS (
    SELECT ? UNION SELECT run_uuid FROM tags JOIN below ON value = id
    WHERE key = 'mlflow.parentRunId'
)
SELECT artifact_uri FROM runs JOIN below ON run_uuid = id
"""
_MODELS = "SELECT artifact_location FROM logged_models WHERE source_run_id = ?"


def aliases(database: Path) -> dict[tuple[str, str], str]:
    """By model and version, the alias that points at it."""
    if not database.is_file():
        return {}
    with closing(_opened(database)) as connection:
        rows = connection.execute(_ALIASES).fetchall()
    return {(str(name), str(version)): str(alias) for name, version, alias in rows}


def folders_of(run_id: str, *, database: Path) -> list[Path]:
    """Where a run, those below it, and the models that they logged keep their files here."""
    if not database.is_file():
        return []
    with closing(_opened(database)) as connection:
        found = connection.execute(_BELOW, (run_id,)).fetchall()
        found += connection.execute(_MODELS, (run_id,)).fetchall()
    places = [urlsplit(str(uri)) for (uri,) in found]
    return [Path(url2pathname(place.path)) for place in places if place.scheme in ("", "file")]


def remove_run(run_id: str, *, database: Path) -> None:
    """Delete a run with what it logged and registered. Fine if it is gone."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    folders = folders_of(run_id, database=database)
    with suppress(MlflowException):
        for version in client.search_model_versions(f"run_id = '{run_id}'"):
            client.delete_model_version(version.name, version.version)
        run = client.get_run(run_id)
        below = f"tags.mlflow.parentRunId = '{run_id}'"
        for one in client.search_runs([run.info.experiment_id], below):
            client.delete_run(one.info.run_id)
        client.delete_run(run_id)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _opened(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
