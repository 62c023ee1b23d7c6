"""A stand-in for AWS with a bucket, and a small bundle to serve there."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darkroom.backends.endpoint import Endpoint, EndpointCheck
from darkroom.backends.sagemaker.hosting.endpoint import deploy, verify_endpoint
from darkroom.backends.sagemaker.hosting.state import describe
from darkroom.backends.sagemaker.resources import tags_at
from darkroom.backends.sagemaker.session import Clients, SageMakerContext
from darkroom.config.sagemaker import SageMakerConfig
from darkroom.models.bundle import Bundle, read_bundle
from darkroom.models.engine import Floats
from darkroom.models.prediction import Predictor
from emulated import IMAGES
from pictures import write_image_folder
from small_bundles import CLASSES, rewrite_digests, write_other_weights, write_small_bundle

REGION = "us-east-1"
BUCKET = "bucket"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/darkroom:1"


@dataclass(frozen=True)
class Rehearsed:
    """What a test of hosting starts from."""

    url: str
    folder: Path
    clients: Clients
    images: list[Path]

    @staticmethod
    def site(*, run: str = "run-1", **config: Any) -> SageMakerContext:
        return SageMakerContext(
            region=REGION,
            role="arn:aws:iam::123456789012:role/jobs",
            image=IMAGE,
            root=f"s3://{BUCKET}/prefix",
            config=SageMakerConfig.model_validate(config),
            run=run,
        )

    def bundle(self, name: str) -> Bundle:
        """A bundle of its own version, made once."""
        folder = self.folder / "bundles" / name
        if not folder.exists():
            write_small_bundle(folder)
            write_other_weights(folder, name=name)
            rewrite_digests(folder)
        return read_bundle(folder)

    def expected(self, bundle: Bundle) -> Floats:
        return Predictor.load(bundle.folder).predict(self.images)

    def deploy(
        self, bundle: Bundle, *, site: SageMakerContext, name: str, keep: bool = True
    ) -> Endpoint:
        return deploy(bundle, name=name, keep=keep, site=site, clients=self.clients, pause=briefly)

    def verify(self, endpoint: Endpoint, *, bundle: Bundle, wrong: bool = False) -> EndpointCheck:
        expected = self.expected(bundle)
        return verify_endpoint(
            endpoint,
            images=self.images,
            expected=np.roll(expected, 1, axis=1) if wrong else expected,
            classes=CLASSES,
            tolerance=1e-3,
            clients=self.clients,
            pause=briefly,
        )

    def kept(self, name: str, **config: Any) -> Endpoint:
        """An endpoint that was checked."""
        endpoint = self.deploy(self.bundle(name), site=self.site(**config), name=name)
        self.verify(endpoint, bundle=self.bundle(name))
        return endpoint

    def tags(self, endpoint: str) -> dict[str, str]:
        state = describe(endpoint, clients=self.clients)
        assert state is not None
        return tags_at(state.arn, clients=self.clients)

    def names(self) -> set[str]:
        """Of all endpoints, configurations, models and alarms."""
        service = self.clients.sagemaker
        return {
            *(one["EndpointName"] for one in service.list_endpoints()["Endpoints"]),
            *(
                one["EndpointConfigName"]
                for one in service.list_endpoint_configs()["EndpointConfigs"]
            ),
            *(one["ModelName"] for one in service.list_models()["Models"]),
            *(
                one["AlarmName"]
                for one in self.clients.cloudwatch.describe_alarms()["MetricAlarms"]
            ),
        }


def briefly(seconds: float) -> None:
    time.sleep(min(seconds, 0.05))


@contextmanager
def rehearsed(folder: Path) -> Iterator[Rehearsed]:
    """The stand-in while the block runs; `enter` it in each test."""
    from rehearsal.emulator.server import emulator

    images = write_image_folder(folder / "images", per_class=2, suffix=".png")
    with emulator(folder / "aws", region=REGION, images={IMAGE: None, **IMAGES}) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        yield Rehearsed(
            url=running.url,
            folder=folder,
            clients=Clients(REGION),
            images=sorted(path for path in images.rglob("*") if path.is_file()),
        )


def enter(aws: Rehearsed, monkeypatch: pytest.MonkeyPatch) -> Rehearsed:
    """Point this test's environment to the stand-in."""
    settings = {
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_ACCESS_KEY_ID": "rehearsal",
        "AWS_SECRET_ACCESS_KEY": "rehearsal",
        "AWS_REGION": REGION,
        "AWS_CONFIG_FILE": str(aws.folder / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(aws.folder / "none"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return aws
