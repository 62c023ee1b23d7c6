"""What every backend owes: the same tests on this machine and on SageMaker, rehearsed."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import pytest

from darkroom.backends.contract import Backend, FailedTrainingError, TrainedBundle
from darkroom.backends.endpoint import Endpoint, EndpointCheck, EndpointError
from darkroom.backends.local.backend import LocalBackend
from darkroom.backends.predictions import BatchPrediction
from darkroom.backends.sagemaker.backend import SageMakerBackend
from darkroom.backends.sagemaker.session import Clients, SageMakerContext
from darkroom.base.errors import UserError
from darkroom.base.progress import SILENT
from darkroom.config import DeploymentConfig, Hyperparameters
from darkroom.config.debugging import Debugging, DiagnosisConfig, RecordingConfig
from darkroom.config.tuning import TuningConfig
from darkroom.data.dataset import Dataset
from darkroom.debugging.diagnosis import diagnose
from darkroom.debugging.recording.reader import read_evidence
from darkroom.models.bundle import ONNX_FILE, Bundle, read_bundle
from darkroom.models.engine import Floats
from darkroom.models.prediction import Predictor
from darkroom.telemetry.epochs import EpochMetrics
from darkroom.tuning.results import Trial, TuningResult
from pretended_jobs import IMAGE, ROLE
from rehearsal.emulator.server import emulator
from small_bundles import rewrite_digests, write_other_weights, write_small_bundle
from small_trainings import small_hyperparameters, write_dataset

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

REGION = "us-east-1"
TUNING = TuningConfig.model_validate(
    {
        "trials": 2,
        "strategy": "random",
        "objective": "log_loss",
        "pruning": "none",
        "search_space": {
            "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "batch_size": {"choices": [8, 12]},
            "weight_decay": None,
            "epochs": {"low": 1, "high": 2},
        },
    }
)


@dataclass(frozen=True)
class Place:
    """A backend, and the environment in which it works."""

    backend: Backend
    environment: Mapping[str, str]
    clients: Clients | None

    @contextmanager
    def entered(self) -> Iterator["Place"]:
        with mock.patch.dict(os.environ, self.environment):
            yield self

    @property
    def is_managed(self) -> bool:
        return self.clients is not None

    def served(self) -> set[str]:
        """Names of what serves here, or was made to."""
        if self.clients is None:
            return {str(process.pid) for process in psutil.process_iter() if self._serves(process)}
        service = self.clients.sagemaker
        return {
            *(one["EndpointName"] for one in service.list_endpoints()["Endpoints"]),
            *(
                one["EndpointConfigName"]
                for one in service.list_endpoint_configs()["EndpointConfigs"]
            ),
            *(one["ModelName"] for one in service.list_models()["Models"]),
        }

    def _serves(self, process: psutil.Process) -> bool:
        """Whether it is a process of this workspace's, other than the tests'."""
        try:
            home = process.environ().get("DARKROOM_HOME")
            return home == self.environment["DARKROOM_HOME"] and process.pid != os.getpid()
        except psutil.Error:
            return False

    def train(self, dataset: Dataset, **values: object) -> tuple[TrainedBundle, list[EpochMetrics]]:
        told: list[EpochMetrics] = []
        trained = self.backend.train(
            dataset,
            hyperparameters=hyperparameters(**values),
            debugging=DEBUGGING,
            on_epoch=told.append,
            progress=SILENT,
        )
        return trained, told

    def deploy(self, bundle: Bundle, *, keep: bool) -> Endpoint:
        deployment = DeploymentConfig(start_timeout_seconds=119.5)
        return self.backend.deploy(
            bundle, name="colours", deployment=deployment, keep=keep, progress=SILENT
        )

    def start_timeouts(self, endpoint: Endpoint) -> set[int]:
        """The seconds that SageMaker was told an endpoint may take to start."""
        (variant,) = Clients(REGION).sagemaker.describe_endpoint_config(
            EndpointConfigName=str(endpoint.configuration)
        )["ProductionVariants"]
        return {seconds for name, seconds in variant.items() if name.endswith("TimeoutInSeconds")}

    def check(self, endpoint: Endpoint, *, images: list[Path], expected: Floats) -> EndpointCheck:
        return self.backend.check(
            endpoint,
            images=images,
            expected=expected,
            classes=("blue", "green", "red"),
            tolerance=1e-3,
        )


@dataclass(frozen=True)
class Search:
    """A search, and what was told meanwhile."""

    result: TuningResult
    epochs: list[tuple[int, EpochMetrics]]
    trials: list[Trial]


DEBUGGING = Debugging(recording=RecordingConfig(every_steps=2, profiled_steps=2))


def hyperparameters(**values: object) -> Hyperparameters:
    return small_hyperparameters(**{"epochs": 2, "threads": 1, **values})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module", params=["local", "sagemaker"])
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp(request.param)
    home = {"DARKROOM_HOME": str(folder / "home")}
    if request.param == "local":
        yield Place(LocalBackend(), environment=home, clients=None)
        return
    with emulator(folder / "aws", images={IMAGE: None}, stop_grace_seconds=5) as running:
        running.client("s3").create_bucket(Bucket="bucket")
        environment = {
            **home,
            "AWS_CONFIG_FILE": str(folder / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
            "AWS_ACCESS_KEY_ID": "AKIAREHEARSALUSER000",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_ENDPOINT_URL": running.url,
        }
        site = SageMakerContext(
            region=REGION, role=ROLE, image=IMAGE, root="s3://bucket/darkroom", run="a-run"
        )
        clients = Clients(REGION)
        yield Place(SageMakerBackend(site, clients=clients), environment, clients=clients)
        assert running.state.log.mistakes == []


@pytest.fixture
def place(opened: Place) -> Iterator[Place]:
    with opened.entered():
        yield opened


@pytest.fixture(scope="module")
def dataset(opened: Place, source: Dataset) -> Dataset:
    with opened.entered():
        return opened.backend.publish(source, progress=SILENT)


@pytest.fixture(scope="module")
def training(opened: Place, dataset: Dataset) -> tuple[TrainedBundle, list[EpochMetrics]]:
    with opened.entered():
        return opened.train(dataset, learning_rate=3e-3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Tells the colours apart, as a training this short does not."""
    return read_bundle(write_small_bundle(tmp_path_factory.mktemp("bundle") / "bundle"))


def searched(place: Place, dataset: Dataset) -> Search:
    epochs: list[tuple[int, EpochMetrics]] = []
    trials: list[Trial] = []
    result = place.backend.tune(
        dataset,
        hyperparameters=hyperparameters(objective="log_loss"),
        tuning=TUNING,
        debugging=DEBUGGING,
        on_epoch=lambda number, epoch: epochs.append((number, epoch)),
        on_trial=trials.append,
        progress=SILENT,
    )
    return Search(result, epochs=epochs, trials=trials)


@pytest.fixture(scope="module")
def search(opened: Place, dataset: Dataset) -> Search:
    with opened.entered():
        return searched(opened, dataset)


@pytest.fixture(scope="module")
def images(source: Dataset) -> list[Path]:
    return [source.file(record) for record in source.split("test")]


@pytest.fixture(scope="module")
def expected(bundle: Bundle, images: list[Path]) -> Floats:
    return Predictor.load(bundle.folder).predict(images)


def test_a_published_data_set_is_the_same_data_set(
    place: Place, dataset: Dataset, source: Dataset
) -> None:
    assert dataset.fingerprint == source.fingerprint
    assert dataset.counts() == source.counts()
    assert place.backend.publish(source, progress=SILENT) == dataset
    first = dataset.split("train")[0]
    assert dataset.file(first).read_bytes() == source.file(first).read_bytes()


def test_a_training_yields_a_bundle_that_predicts(
    training: tuple[TrainedBundle, list[EpochMetrics]], images: list[Path], dataset: Dataset
) -> None:
    trained, _ = training
    metadata = read_bundle(trained.bundle.folder).metadata
    assert metadata.data_fingerprint == dataset.fingerprint
    assert metadata.classes == dataset.classes
    assert metadata.hyperparameters["learning_rate"] == 3e-3
    probabilities = Predictor.load(trained.bundle.folder).predict(images)
    assert probabilities.shape == (len(images), 3)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_each_epoch_is_told_once_and_in_order(
    training: tuple[TrainedBundle, list[EpochMetrics]],
) -> None:
    trained, told = training
    assert [epoch.epoch for epoch in told] == [1, 2]
    assert [epoch.epoch for epoch in trained.history] == [1, 2]
    assert told[-1].validation == pytest.approx(trained.history[-1].validation, rel=1e-6)
    best = trained.history[trained.best_epoch - 1]
    assert trained.metrics == pytest.approx(best.validation)
    assert best.validation["f1_macro"] == max(e.validation["f1_macro"] for e in trained.history)


def test_a_search_tells_its_trials_with_typed_values(search: Search) -> None:
    trials = search.result.trials
    assert [trial.number for trial in trials] == [0, 1]
    for trial in trials:
        assert trial.state == "complete"
        assert {name: type(value) for name, value in trial.values.items()} == {
            "learning_rate": float,
            "batch_size": int,
            "epochs": int,
        }
        assert 1e-4 <= trial.values["learning_rate"] <= 1e-2
        assert trial.values["batch_size"] in (8, 12)
        assert trial.epochs == trial.values["epochs"]
        told = [epoch.epoch for number, epoch in search.epochs if number == trial.number]
        assert told == list(range(1, trial.epochs + 1))
    assert sorted(search.trials, key=lambda trial: trial.number) == trials


def test_the_best_trial_is_the_best(search: Search) -> None:
    result = search.result
    assert result.direction == "minimize"
    best = min(result.trials, key=lambda trial: trial.value)
    assert (result.best, result.best_value) == (best.values, best.objective)
    of_best = [epoch for number, epoch in search.epochs if number == best.number]
    objectives = [epoch.validation["log_loss"] for epoch in of_best]
    assert result.best_value == pytest.approx(min(objectives), rel=1e-6)


def test_the_same_search_has_the_same_result(
    place: Place, dataset: Dataset, search: Search
) -> None:
    assert searched(place, dataset).result == search.result


def test_a_training_with_the_best_values_is_as_good_as_the_best_trial(
    place: Place, dataset: Dataset, search: Search
) -> None:
    trained, told = place.train(dataset, **search.result.best, objective="log_loss")
    assert trained.metrics["log_loss"] == pytest.approx(search.result.best_value, rel=1e-6)
    assert [epoch.epoch for epoch in told] == [epoch.epoch for epoch in trained.history]
    assert trained.recording is not None
    assert list(read_evidence(trained.recording).epochs) == list(trained.history)


def test_a_version_is_registered_once(
    place: Place, dataset: Dataset, training: tuple[TrainedBundle, Any]
) -> None:
    def registered() -> str | None:
        return place.backend.register(
            training[0].bundle,
            name="colours",
            metrics={"accuracy": 0.5},
            dataset=dataset,
            training_job=training[0].job or "",
            passed=True,
        )

    first = registered()
    assert bool(first) == place.is_managed
    assert registered() == first


@pytest.mark.parametrize("keep", [False, True])
def test_an_endpoint_answers_as_evaluated_and_leaves_nothing(
    place: Place, bundle: Bundle, images: list[Path], expected: Floats, keep: bool
) -> None:
    before = place.served()
    endpoint = place.deploy(bundle, keep=keep)
    assert place.served() > before
    if place.is_managed:
        assert place.start_timeouts(endpoint) == {120}
    check = place.check(endpoint, images=images, expected=expected)
    assert check.agrees
    assert check.images == len(images)
    assert check.maximum_difference < 1e-4
    place.backend.remove(endpoint)
    place.backend.remove(endpoint)
    assert place.served() == before


def test_an_endpoint_that_answers_otherwise_is_found_out(
    place: Place, bundle: Bundle, images: list[Path], expected: Floats
) -> None:
    before = place.served()
    endpoint = place.deploy(bundle, keep=True)
    wrong = np.roll(expected, 1, axis=1)
    if place.is_managed:
        with pytest.raises(EndpointError, match=r"0\.0% of 6 .* it was removed"):
            place.check(endpoint, images=images, expected=wrong)
    else:
        check = place.check(endpoint, images=images, expected=wrong)
        assert not check.agrees
        place.backend.remove(endpoint)
    assert place.served() == before


def test_a_bundle_that_cannot_be_served_is_an_error_and_leaves_nothing(
    place: Place, bundle: Bundle, tmp_path: Path
) -> None:
    before = place.served()
    broken = tmp_path / "broken"
    shutil.copytree(bundle.folder, broken)
    write_other_weights(broken, name="of-another-version")
    rewrite_digests(broken)
    told = read_bundle(broken)
    (broken / ONNX_FILE).write_bytes(b"changed")
    with pytest.raises(EndpointError, match="SHA-256"):
        place.deploy(told, keep=False)
    assert place.served() == before


@pytest.fixture(scope="module")
def batch(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files whose names are easily mixed up, and what is no image."""
    folder = tmp_path_factory.mktemp("batch")
    names = ["a b.png", "a%20b.png", "a+b.png", "ä#1.png", "upper.PNG", "no-suffix"]
    colours_in_turn = [*images[::2], *images[1::2]]
    for name, image in zip(names, colours_in_turn, strict=True):
        shutil.copy(image, folder / name)
    (folder / "deeper").mkdir()
    shutil.copy(images[-1], folder / "deeper" / "a b.png")
    shutil.copy(images[0], folder / "same-content.png")
    (folder / "broken.png").write_bytes(images[0].read_bytes()[:60])
    (folder / "empty.png").write_bytes(b"")
    (folder / "words.png").write_text("no image")
    return [*sorted(p for p in folder.rglob("*") if p.is_file()), folder / "missing.png"]


@pytest.fixture(scope="module")
def rows(opened: Place, bundle: Bundle, batch: list[Path]) -> list[BatchPrediction]:
    with opened.entered():
        return opened.backend.predict_batch(bundle, images=batch, progress=SILENT)


BAD = ("broken.png", "empty.png", "words.png", "missing.png")


def test_a_batch_has_a_row_for_each_file_in_order(
    rows: list[BatchPrediction], batch: list[Path]
) -> None:
    assert [row.source for row in rows] == [str(path) for path in batch]
    for row, path in zip(rows, batch, strict=True):
        assert bool(row.error) == (path.name in BAD), row
        assert bool(row.class_name) != bool(row.error)


def test_a_batch_says_what_the_predictor_says(
    rows: list[BatchPrediction], batch: list[Path], bundle: Bundle
) -> None:
    predictor = Predictor.load(bundle.folder)
    good = [(row, path) for row, path in zip(rows, batch, strict=True) if not row.error]
    assert {row.class_name for row, _ in good} == set(predictor.classes)
    for (row, _), wanted in zip(good, predictor.predict([path for _, path in good]), strict=True):
        answered = {item.class_name: item.probability for item in row.top_k}
        assert [answered[name] for name in predictor.classes] == pytest.approx(wanted, abs=1e-4)
        assert row.class_name == predictor.classes[int(wanted.argmax())]
        assert row.probability == pytest.approx(wanted.max(), abs=1e-4)


def test_a_batch_of_nothing_but_broken_files_is_rows_with_errors(
    place: Place, bundle: Bundle, batch: list[Path]
) -> None:
    bad = [path for path in batch if path.name in BAD]
    rows = place.backend.predict_batch(bundle, images=bad, progress=SILENT)
    assert [row.source for row in rows] == [str(path) for path in bad]
    assert all(row.error for row in rows)


def test_no_images_are_no_rows(place: Place, bundle: Bundle) -> None:
    assert place.backend.predict_batch(bundle, images=[], progress=SILENT) == []


def test_what_was_recorded_comes_back_with_the_model(
    training: tuple[TrainedBundle, list[EpochMetrics]],
) -> None:
    trained, epochs = training
    assert trained.recording is not None
    evidence = read_evidence(trained.recording)
    assert list(evidence.epochs) == list(trained.history)
    assert len(evidence.steps) == 3 * len(epochs)
    assert len(evidence.tensors.names("gradient")) == 142
    assert evidence.system is not None
    judged = diagnose(trained.recording, config=DiagnosisConfig())
    assert [rule.rule for rule in judged.diagnosis.rules if rule.outcome == "failed"] == []


def test_a_training_that_fails_leaves_its_recording(place: Place, dataset: Dataset) -> None:
    with pytest.raises(FailedTrainingError, match="not finite") as failed:
        place.train(dataset, learning_rate=10, optimizer="sgd", gradient_clip=0, momentum=0.99)
    judged = diagnose(failed.value.recording, config=DiagnosisConfig())
    assert judged.diagnosis.headline[0].severity == "error"
    assert len(judged.evidence.steps) > 0


def test_weights_that_are_not_there_are_the_users_mistake(place: Place, dataset: Dataset) -> None:
    with pytest.raises(UserError, match=r"nowhere\.safetensors"):
        place.train(dataset, weights="/nowhere.safetensors")


def test_weights_that_are_none_are_the_users_mistake(
    place: Place, dataset: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "odd.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"odd\.safetensors"):
        place.train(dataset, weights=str(tmp_path / "odd.safetensors"))
