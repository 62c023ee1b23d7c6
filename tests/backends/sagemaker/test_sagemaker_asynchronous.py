"""Asynchronous endpoints: asked by way of S3, deployed, verified and taken down."""

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError
from PIL import Image

from darkroom.backends.endpoint import EndpointError
from darkroom.backends.sagemaker.cleanup import Selection, find, list_endpoints, remove
from darkroom.backends.sagemaker.hosting.client import (
    AsynchronousEndpoint,
    SageMakerEndpoint,
    client_of,
)
from darkroom.base.errors import DarkroomError, UserError
from rehearsed_hosting import BUCKET, Rehearsed, briefly, enter, rehearsed

PLACE = "s3://bucket/prefix/asynchronous/pets"
ANSWER = {"class": "cat", "probability": 1.0, "top_k": [], "model_version": "1"}


class Storage:
    """S3 as far as an endpoint needs it: objects by key."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.stored: list[dict[str, Any]] = []

    def put_object(self, **request: Any) -> None:
        self.stored.append(request)
        self.objects[request["Key"]] = request["Body"]

    def get_object(self, **request: str) -> dict[str, Any]:
        key = request["Key"]
        if key not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey", "Message": key}}, "GetObject")
        return {"Body": io.BytesIO(self.objects[key])}

    def delete_object(self, **request: str) -> None:
        self.objects.pop(request["Key"], None)


class Queue:
    """Is asked, and leaves what it was told to on S3 after some looks."""

    def __init__(self, s3: Storage, *, answer: bytes = b"", failure: bytes = b"") -> None:
        self.s3, self.answer, self.failure = s3, answer, failure
        self.requests: list[dict[str, Any]] = []
        self.pauses = 0

    def invoke_endpoint_async(self, **request: Any) -> dict[str, str]:
        self.requests.append(request)
        assert request["InputLocation"].removeprefix("s3://bucket/") in self.s3.objects
        return {"OutputLocation": f"{PLACE}/answers/1", "FailureLocation": f"{PLACE}/failures/1"}

    def pause(self, seconds: float) -> None:
        self.pauses += 1
        if self.pauses == 3:
            found = {"answers": self.answer, "failures": self.failure}
            for folder, content in found.items():
                if content:
                    self.s3.objects[f"prefix/asynchronous/pets/{folder}/1"] = content


class Account:
    def __init__(self, queue: Queue) -> None:
        self.s3, self.runtime = queue.s3, queue


def asked(queue: Queue, **output: str) -> AsynchronousEndpoint:
    return AsynchronousEndpoint(
        "pets",
        output={"S3OutputPath": f"{PLACE}/answers", **output},
        clients=Account(queue),  # type: ignore[arg-type]
        pause=queue.pause,
        seconds=60,
    )


def test_an_answer_is_waited_for_and_nothing_stays_on_s3() -> None:
    queue = Queue(Storage(), answer=json.dumps(ANSWER).encode())
    answer = asked(queue, KmsKeyId="key").invoke(b"jpeg", content_type="image/jpeg", top_k=2)
    assert answer == ANSWER
    assert queue.pauses == 3
    assert queue.s3.objects == {}
    (stored,) = queue.s3.stored
    assert stored["Key"].startswith("prefix/asynchronous/pets/images/")
    assert (stored["Body"], stored["SSEKMSKeyId"]) == (b"jpeg", "key")
    (request,) = queue.requests
    assert (request["CustomAttributes"], request["ContentType"]) == ("top_k=2", "image/jpeg")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b'Received client error (400) from primary with message "not an image".', 400),
        (b'{"error": "Received server error (503) from primary"}', 503),
        (b"Model is gone, 12345 bytes", 424),
    ],
)
def test_a_failure_is_an_error_with_the_containers_status(text: bytes, status: int) -> None:
    queue = Queue(Storage(), failure=text)
    with pytest.raises(EndpointError, match="the endpoint 'pets' failed") as caught:
        asked(queue).invoke(b"jpeg", content_type="image/jpeg")
    assert caught.value.status == status
    assert queue.s3.objects == {}


def test_an_answer_that_never_comes_is_given_up() -> None:
    queue = Queue(Storage())
    with pytest.raises(DarkroomError, match=r"answer of the endpoint 'pets': not done after"):
        asked(queue).invoke(b"jpeg", content_type="image/jpeg")
    assert queue.s3.objects == {}


# With a stand-in for AWS


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsed]:
    with rehearsed(tmp_path_factory.mktemp("asynchronous")) as opened:
        yield opened


@pytest.fixture
def aws(opened: Rehearsed, monkeypatch: pytest.MonkeyPatch) -> Rehearsed:
    return enter(opened, monkeypatch)


def keys(aws: Rehearsed, prefix: str) -> list[str]:
    found = aws.clients.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"prefix/{prefix}")
    return [each["Key"] for each in found.get("Contents", [])]


def noise() -> bytes:
    """A PNG that is larger than endpoints take that answer at once."""
    pixels = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=0)
    return stream.getvalue()


def test_no_such_endpoint_is_the_users_mistake(aws: Rehearsed) -> None:
    with pytest.raises(UserError, match="there is no endpoint 'nowhere'"):
        client_of("nowhere", clients=aws.clients)


@pytest.mark.slow
def test_a_queue_is_deployed_verified_listed_and_taken_down(aws: Rehearsed) -> None:
    hosting = {"kind": "asynchronous", "autoscaling": {"min_instances": 0, "max_instances": 2}}
    bundle, site = aws.bundle("queue"), aws.site(hosting=hosting)
    endpoint = aws.deploy(bundle, site=site, name="queue")
    check = aws.verify(endpoint, bundle=bundle)
    assert (check.agreement, check.images) == (1, 6)
    assert keys(aws, "asynchronous/") == []
    (row,) = list_endpoints(clients=aws.clients, region="us-east-1")
    assert (row.name, row.kind, row.model_version) == (
        "queue",
        "asynchronous",
        bundle.metadata.version,
    )
    (target,) = aws.clients.autoscaling.describe_scalable_targets(ServiceNamespace="sagemaker")[
        "ScalableTargets"
    ]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 2)
    assert "darkroom-queue-waiting" in aws.names()
    answering = client_of("queue", clients=aws.clients, pause=briefly)
    with pytest.raises(EndpointError, match="not an image") as caught:
        answering.invoke(b"no picture", content_type="image/png")
    assert caught.value.status == 400
    large = noise()
    assert len(large) > 6 * 2**20
    assert len(answering.invoke(large, content_type="image/png")["top_k"]) == 3
    with pytest.raises(DarkroomError, match="InvokeEndpointAsync"):
        SageMakerEndpoint("queue", clients=aws.clients, pause=briefly).invoke(
            b"", content_type="image/png"
        )
    for thing in find(Selection(name="queue"), clients=aws.clients):
        remove(thing, clients=aws.clients, pause=briefly)
    assert aws.names() == set()


@pytest.mark.slow
def test_a_queue_that_answers_wrongly_is_taken_back(aws: Rehearsed) -> None:
    first = aws.kept("turned", hosting={"kind": "asynchronous"})
    bundle = aws.bundle("turned-2")
    second = aws.deploy(bundle, site=aws.site(hosting={"kind": "asynchronous"}), name="turned")
    with pytest.raises(EndpointError, match="before serves again"):
        aws.verify(second, bundle=bundle, wrong=True)
    aws.verify(first, bundle=aws.bundle("turned"))
    for thing in find(Selection(name="turned"), clients=aws.clients):
        remove(thing, clients=aws.clients, pause=briefly)
