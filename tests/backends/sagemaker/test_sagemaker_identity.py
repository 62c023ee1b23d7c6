"""Names of jobs: the same for the same work, another for any other."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from darkroom.backends.sagemaker.resources import (
    JobIdentity,
    tags_of,
    training_identity,
    tuning_identity,
)
from darkroom.backends.sagemaker.session import SageMakerContext
from darkroom.config import Hyperparameters
from darkroom.config.debugging import RecordingConfig
from darkroom.config.sagemaker import SageMakerConfig
from darkroom.config.tuning import TuningConfig
from darkroom.data.dataset import Dataset, ImageRecord, make_dataset

HYPERPARAMETERS = Hyperparameters()
SITE = SageMakerContext(region="eu-west-1", role="r", image="i:1", root="s3://b/p", run="monday")


def dataset(*names: str) -> Dataset:
    records = [ImageRecord(f"{name}.png", name, "train", 1, name) for name in names]
    return make_dataset(records, root=Path("somewhere"), source="x")


def configured(**config: Any) -> SageMakerContext:
    return replace(SITE, config=SageMakerConfig.model_validate(config))


def training(
    site: SageMakerContext = SITE, *, data: Dataset | None = None, **values: Any
) -> JobIdentity:
    return training_identity(
        data or dataset("cat", "dog"),
        hyperparameters=HYPERPARAMETERS.replace(**values),
        recording=RecordingConfig(),
        site=site,
    )


def recorded(**values: Any) -> JobIdentity:
    return training_identity(
        dataset("cat", "dog"),
        hyperparameters=HYPERPARAMETERS,
        recording=RecordingConfig(**values),
        site=SITE,
    )


def tuning(site: SageMakerContext = SITE, **settings: Any) -> JobIdentity:
    return tuning_identity(
        dataset("cat", "dog"),
        hyperparameters=HYPERPARAMETERS,
        tuning=TuningConfig.model_validate(settings),
        recording=RecordingConfig(),
        site=site,
    )


def test_names_fit_and_count_the_attempts() -> None:
    assert list(islice(training().names(), 2)) == [training().name(1), training().name(2)]
    assert training().name(1).startswith("darkroom-training-")
    assert len(training().name(9999)) <= 63
    assert len(tuning().name(999)) <= 32


@pytest.mark.parametrize(
    "other",
    [
        training(data=dataset("cat", "cow")),
        training(seed=1),
        recorded(every_steps=7),
        training(configured(training={"instance_type": "ml.g5.xlarge"})),
        training(configured(training={"instance_count": 2})),
        training(replace(SITE, fresh="again")),
    ],
)
def test_what_decides_the_result_changes_the_name(other: JobIdentity) -> None:
    assert other != training()


@pytest.mark.parametrize(
    "site",
    [
        configured(training={"spot": True}),
        configured(training={"volume_gb": 99, "max_runtime_seconds": 60, "input_mode": "FastFile"}),
        configured(network={"subnets": ["s"], "security_group_ids": ["g"]}),
        configured(kms_key="k", tags={"a": "b"}, environment={"A": "b"}),
        replace(SITE, run="tuesday", image="i:2", role="another"),
    ],
)
def test_where_and_how_cheaply_it_runs_does_not(site: SageMakerContext) -> None:
    assert training(site) == training()
    assert tuning(site) == tuning()


def test_another_place_of_the_same_images_does_not_either() -> None:
    moved = replace(dataset("cat", "dog"), root=Path("elsewhere"), source="y")
    assert training(data=moved) == training()


def test_a_search_is_known_by_what_it_searches() -> None:
    assert tuning() == tuning(timeout_seconds=600)
    assert tuning() == tuning(configured(tuning={"parallel_jobs": 9}))
    others = (
        tuning(trials=9),
        tuning(strategy="random"),
        tuning(search_space={"epochs": None}),
        tuning(configured(tuning={"warm_start_from": ["t"]})),
    )
    assert len({tuning().digest, *(other.digest for other in others)}) == 5


def test_the_place_does_not_depend_on_the_attempt() -> None:
    identity = JobIdentity("training", "abc")
    assert identity.place(SITE, "checkpoints") == "s3://b/p/jobs/abc/checkpoints"


def test_tags_name_the_run_and_carry_the_users() -> None:
    site = configured(tags={"team": "photos"})
    assert tags_of(site, identity="abc", kind="training", endpoint="") == [
        {"Key": "darkroom:run", "Value": "monday"},
        {"Key": "darkroom:identity", "Value": "abc"},
        {"Key": "darkroom:kind", "Value": "training"},
        {"Key": "team", "Value": "photos"},
    ]
