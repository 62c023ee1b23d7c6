"""Transform jobs of the rehearsal, as boto3 sees them."""

import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.emulator.server import emulator
from tiny_images import CachedClients, model_archive, write_tiny_image

pytestmark = pytest.mark.slow  # they start processes

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/tiny:1"
ROLE = "arn:aws:iam::123456789012:role/Tiny"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CachedClients]:
    folder = tmp_path_factory.mktemp("transform")
    image = write_tiny_image(folder / "image")
    with emulator(folder / "aws", images={IMAGE: image}, startup_seconds=10) as running:
        clients = CachedClients(running)
        s3 = clients.client("s3")
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="one.tar.gz", Body=model_archive("one"))
        for name, environment in (
            ("good", {}),
            ("dying", {"DIE": "1"}),
            ("broken", {"BROKEN": "1"}),
        ):
            clients.client("sagemaker").create_model(
                ModelName=name,
                ExecutionRoleArn=ROLE,
                PrimaryContainer={
                    "Image": IMAGE,
                    "ModelDataUrl": "s3://bucket/one.tar.gz",
                    "Environment": environment,
                },
            )
        yield clients


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A job's name of this test's."""
    return f"t{abs(hash(request.node.name)) % 10**9}"


def put(aws: CachedClients, name: str, objects: dict[str, bytes]) -> str:
    """Objects below a prefix of the test's; its URI."""
    for key, body in objects.items():
        aws.client("s3").put_object(Bucket="bucket", Key=f"in/{name}/{key}", Body=body)
    return f"s3://bucket/in/{name}/"


def transform(aws: CachedClients, name: str, source: str, **changes: Any) -> dict[str, Any]:
    """Run a job to its end; its description."""
    more = dict(changes)
    data = {"S3DataType": more.pop("kind", "S3Prefix"), "S3Uri": source}
    request = {
        "ModelName": "good",
        "MaxConcurrentTransforms": 3,
        "TransformInput": {"DataSource": {"S3DataSource": data}, **more.pop("input", {})},
        "TransformOutput": {"S3OutputPath": f"s3://bucket/out/{name}", **more.pop("output", {})},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }
    sagemaker = aws.client("sagemaker")
    sagemaker.create_transform_job(TransformJobName=name, **(request | more))
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found = sagemaker.describe_transform_job(TransformJobName=name)
        if found["TransformJobStatus"] not in ("InProgress", "Stopping"):
            return dict(found)
        time.sleep(0.05)
    raise AssertionError(found)


def results(aws: CachedClients, name: str) -> dict[str, bytes]:
    """What the job wrote, by path."""
    s3, prefix = aws.client("s3"), f"out/{name}/"
    found = s3.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])
    return {
        each["Key"].removeprefix(prefix): s3.get_object(Bucket="bucket", Key=each["Key"])[
            "Body"
        ].read()
        for each in found
    }


def log_of(aws: CachedClients, name: str) -> str:
    logs = aws.client("logs")
    events = logs.filter_log_events(
        logGroupName="/aws/sagemaker/TransformJobs", logStreamNamePrefix=name
    )
    return "\n".join(event["message"] for event in events["events"])


def test_every_object_of_a_prefix_becomes_a_result_beside_its_name(
    aws: CachedClients, name: str
) -> None:
    source = put(aws, name, {"a.txt": b"a", "deep/b.txt": b"b", "c.txt": b"c"})
    assert transform(aws, name, source)["TransformJobStatus"] == "Completed"
    assert results(aws, name) == {
        "a.txt.out": b"one:a",
        "deep/b.txt.out": b"one:b",
        "c.txt.out": b"one:c",
    }
    assert "answering b'a'" in log_of(aws, name)


def test_types_and_environment_reach_the_container(aws: CachedClients, name: str) -> None:
    source = put(aws, name, {"a.png": b"headers"})
    transform(
        aws,
        name,
        source,
        input={"ContentType": "image/png"},
        output={"Accept": "application/json"},
    )
    seen = json.loads(results(aws, name)["a.png.out"])
    assert (seen["Content-Type"], seen["Accept"]) == ("image/png", "application/json")
    source = put(aws, f"{name}e", {"a.txt": b"a"})
    transform(aws, f"{name}e", source, Environment={"NAME": "my-"})
    assert results(aws, f"{name}e") == {"a.txt.out": b"my-one:a"}


def test_a_manifest_names_the_objects(aws: CachedClients, name: str) -> None:
    prefix = put(aws, name, {"a.txt": b"a", "b.txt": b"b"})
    manifest = json.dumps([{"prefix": prefix}, "b.txt"]).encode()
    source = put(aws, f"{name}m", {"list.json": manifest}) + "list.json"
    transform(aws, name, source, kind="ManifestFile")
    assert results(aws, name) == {"b.txt.out": b"one:b"}


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [("SingleRecord", b"one:1\none:2\none:3\n"), ("MultiRecord", b"one:1\n2\n3\n")],
)
def test_lines_are_sent_alone_or_together(
    strategy: str, wanted: bytes, aws: CachedClients, name: str
) -> None:
    source = put(aws, name, {"lines.csv": b"1\n2\n3\n"})
    transform(
        aws,
        name,
        source,
        BatchStrategy=strategy,
        input={"SplitType": "Line"},
        output={"AssembleWith": "Line"},
    )
    assert results(aws, name) == {"lines.csv.out": wanted}


def test_gzipped_objects_are_unpacked(aws: CachedClients, name: str) -> None:
    source = put(aws, name, {"a.gz": gzip.compress(b"a")})
    transform(aws, name, source, input={"CompressionType": "Gzip"})
    assert results(aws, name) == {"a.gz.out": b"one:a"}


def test_objects_that_are_not_packed_as_they_say_spare_the_others(
    aws: CachedClients, name: str
) -> None:
    packed = gzip.compress(b"a" * 99)
    source = put(aws, name, {"a.gz": gzip.compress(b"a"), "b.gz": packed[:-9], "c.gz": b"plain"})
    found = transform(aws, name, source, input={"CompressionType": "Gzip"})
    assert found["FailureReason"] == "ClientError: See job logs for more information"
    assert results(aws, name) == {"a.gz.out": b"one:a"}
    assert f"bucket/in/{name}/b.gz: " in log_of(aws, name)


def test_an_object_that_is_refused_fails_the_job_and_spares_the_others(
    aws: CachedClients, name: str
) -> None:
    source = put(aws, name, {"a.txt": b"a", "b.txt": b"bad", "c.txt": b"c"})
    found = transform(aws, name, source)
    assert found["TransformJobStatus"] == "Failed"
    assert found["FailureReason"] == "ClientError: See job logs for more information"
    assert set(results(aws, name)) == {"a.txt.out", "c.txt.out"}
    assert f"bucket/in/{name}/b.txt: ClientError: 400" in log_of(aws, name)
    assert f"bucket/in/{name}/b.txt: a bad request" in log_of(aws, name)


def test_errors_of_the_server_are_algorithm_errors(aws: CachedClients, name: str) -> None:
    found = transform(aws, name, put(aws, name, {"a.txt": b"a"}), ModelName="broken")
    assert found["FailureReason"] == "AlgorithmError: See job logs for more information"
    assert "Bad HTTP status received from algorithm: 503" in log_of(aws, name)


def test_an_object_that_is_too_large_fails_the_job(aws: CachedClients, name: str) -> None:
    source = put(aws, name, {"a.txt": bytes(2**20 + 1)})
    found = transform(aws, name, source, MaxPayloadInMB=1)
    assert found["FailureReason"].startswith("ClientError")
    assert "MaxPayloadInMB=1" in log_of(aws, name)


def test_a_container_that_dies_fails_the_job(aws: CachedClients, name: str) -> None:
    found = transform(aws, name, put(aws, name, {"a.txt": b"a"}), ModelName="dying")
    assert found["TransformJobStatus"] == "Failed"
    assert "ping health check" in found["FailureReason"]


def test_an_empty_prefix_fails_the_job(aws: CachedClients, name: str) -> None:
    found = transform(aws, name, "s3://bucket/nothing/")
    assert "No S3 objects found" in found["FailureReason"]


def test_jobs_are_listed_and_their_names_used_once(aws: CachedClients, name: str) -> None:
    source = put(aws, name, {"a.txt": b"a"})
    transform(aws, name, source)
    with pytest.raises(ClientError) as caught:
        transform(aws, name, source)
    assert caught.value.response["Error"]["Code"] == "ResourceInUse"
    listed = aws.client("sagemaker").list_transform_jobs(NameContains=name)
    assert [row["TransformJobStatus"] for row in listed["TransformJobSummaries"]] == ["Completed"]


def test_a_stopped_job_is_stopped(aws: CachedClients, name: str) -> None:
    source = put(aws, name, {f"{n}.txt": b"a" for n in range(40)})
    sagemaker = aws.client("sagemaker")
    sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName="good",
        TransformInput={
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}}
        },
        TransformOutput={"S3OutputPath": f"s3://bucket/out/{name}"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    sagemaker.stop_transform_job(TransformJobName=name)
    sagemaker.get_waiter("transform_job_completed_or_stopped").wait(
        TransformJobName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 20}
    )
    assert len(results(aws, name)) < 40


@pytest.mark.parametrize(
    "changes",
    [
        {"input": {"SplitType": "TFRecord"}},
        {"DataProcessing": {"InputFilter": "$.features"}},
    ],
    ids=["split", "processing"],
)
def test_what_is_not_executed_is_refused_in_words(
    changes: dict[str, Any], aws: CachedClients, name: str
) -> None:
    with pytest.raises(ClientError, match="not executed in the rehearsal"):
        transform(aws, name, "s3://bucket/in/", **changes)


def test_an_unknown_model_is_refused(aws: CachedClients, name: str) -> None:
    with pytest.raises(ClientError, match='Could not find model "arn'):
        transform(aws, name, "s3://bucket/in/", ModelName="nobody")
