"""Batch transform: jobs found again, answers joined to the files."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.backends.predictions import BatchPrediction, predict_batch
from darkroom.backends.sagemaker.retry import JobInterrupted
from darkroom.backends.sagemaker.transform import (
    BatchImage,
    inspect_files,
    largest_megabytes,
    list_images,
    read_answers,
    transform,
    transform_request,
)
from darkroom.base.errors import DarkroomError, UserError
from darkroom.config.sagemaker import TransformConfig
from darkroom.images import Preprocessing
from darkroom.models.bundle import ONNX_FILE
from golden_requests import assert_golden
from rehearsed_hosting import BUCKET, Rehearsed, briefly, enter, rehearsed

pytestmark = pytest.mark.slow

ANSWER = b'{"class": "red", "probability": 0.5, "top_k": [{"class": "red", "probability": 0.5}]}'


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsed]:
    with rehearsed(tmp_path_factory.mktemp("transform")) as opened:
        yield opened


@pytest.fixture
def aws(opened: Rehearsed, monkeypatch: pytest.MonkeyPatch) -> Rehearsed:
    return enter(opened, monkeypatch)


def jobs(aws: Rehearsed) -> int:
    return len(aws.clients.sagemaker.list_transform_jobs()["TransformJobSummaries"])


def put(aws: Rehearsed, key: str, body: bytes = ANSWER) -> None:
    aws.clients.s3.put_object(Bucket=BUCKET, Key=key, Body=body)


def test_the_request_of_a_job() -> None:
    site = Rehearsed.site(
        transform={"instance_count": 2, "concurrent_requests": 20},
        kms_key="key",
    )
    request = transform_request(
        "darkroom-transform-1",
        model="model-1",
        images="s3://bucket/in/",
        output="s3://bucket/out",
        site=site,
        tags=[{"Key": "darkroom:run", "Value": "run-1"}],
    )
    assert_golden(request, operation="sagemaker:CreateTransformJob", name="create_transform_job")


@pytest.mark.parametrize(("at_once", "megabytes"), [(1, 6), (16, 6), (20, 5), (100, 1)])
def test_many_requests_at_once_leave_less_for_each(at_once: int, megabytes: int) -> None:
    assert largest_megabytes(TransformConfig(concurrent_requests=at_once)) == megabytes


def test_a_batch_is_answered_as_by_this_machine_and_only_once(
    aws: Rehearsed, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = [*aws.images, tmp_path / "broken.png", tmp_path / "none.png", aws.images[0]]
    bundle = aws.bundle("batch")

    def run() -> list[BatchPrediction]:
        return transform(images, bundle=bundle, site=aws.site(), clients=aws.clients, pause=briefly)

    rows, before = run(), jobs(aws)
    expected = predict_batch(images, bundle=bundle)
    assert [row.source for row in rows] == [str(path) for path in images]
    assert [row.class_name for row in rows] == [row.class_name for row in expected]
    for row, other in zip(rows[:6], expected, strict=False):
        assert row.probability == pytest.approx(other.probability, abs=1e-6)
    assert "not an image" in str(rows[6].error)
    assert "No such file" in str(rows[7].error)
    assert run() == rows
    assert jobs(aws) == before
    assert not [name for name in aws.names() if "transform" in name]


def test_an_interrupted_job_goes_on(aws: Rehearsed) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    arguments = {"bundle": aws.bundle("goes-on"), "site": aws.site(), "clients": aws.clients}
    before = jobs(aws)
    with pytest.raises(JobInterrupted):
        transform(aws.images, pause=interrupt, **arguments)
    rows = transform(aws.images, pause=briefly, **arguments)
    assert all(row.class_name for row in rows)
    assert jobs(aws) == before + 1


def test_images_on_s3_are_rows_by_key_even_where_some_cannot_be_read(aws: Rehearsed) -> None:
    for index, path in enumerate(aws.images):
        put(aws, f"photos/{index % 2}/{path.name}-{index}.png", path.read_bytes())
    put(aws, "photos/1/broken.png", b"no image")
    rows = transform(
        f"s3://{BUCKET}/photos",
        bundle=aws.bundle("prefix"),
        site=aws.site(),
        clients=aws.clients,
        pause=briefly,
    )
    assert len(rows) == 7
    failed = [row for row in rows if row.error]
    assert [row.source for row in failed] == [f"s3://{BUCKET}/photos/1/broken.png"]


def test_a_failed_job_is_told_by_its_last_words_and_tried_again_next_time(aws: Rehearsed) -> None:
    bundle = aws.bundle("fails")
    good = (bundle.folder / ONNX_FILE).read_bytes()
    (bundle.folder / ONNX_FILE).write_bytes(b"changed")
    arguments = {"site": aws.site(), "clients": aws.clients, "pause": briefly}
    with pytest.raises(DarkroomError, match=r"(?s)Failed.*SHA-256 differs"):
        transform(aws.images, bundle=bundle, **arguments)
    (bundle.folder / ONNX_FILE).write_bytes(good)
    key = f"prefix/models/{bundle.metadata.version}/model.tar.gz"
    aws.clients.s3.delete_object(Bucket=BUCKET, Key=key)
    rows = transform(aws.images, bundle=bundle, **arguments)
    assert all(row.class_name for row in rows)


def test_a_job_that_answered_nothing_has_failed_whoever_is_blamed(aws: Rehearsed) -> None:
    put(aws, "broken/1.png", b"no image")
    with pytest.raises(DarkroomError, match="Failed: ClientError"):
        transform(
            f"s3://{BUCKET}/broken",
            bundle=aws.bundle("nothing"),
            site=aws.site(),
            clients=aws.clients,
            pause=briefly,
        )


def test_without_a_readable_image_no_job_is_started(aws: Rehearsed, tmp_path: Path) -> None:
    before = jobs(aws)
    rows = transform(
        [tmp_path / "none.png"], bundle=aws.bundle("no"), site=aws.site(), clients=aws.clients
    )
    assert rows[0].error
    assert jobs(aws) == before


def test_a_prefix_without_images_is_refused(aws: Rehearsed) -> None:
    put(aws, "texts/read.me", b"text")
    with pytest.raises(UserError, match="holds no images"):
        list_images(f"s3://{BUCKET}/texts", clients=aws.clients)


def test_files_that_aws_would_not_pass_on_are_not_sent(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(2**20 + 1))
    how = Preprocessing(resize_size=16, image_size=16)
    found = inspect_files([tmp_path / "large.png"], preprocessing=how, largest_megabytes=1)
    assert "not an image" in found[0].error


def test_what_a_job_would_not_open_is_sent_in_another_form(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 800, 3), dtype=np.uint8)
    for name in ("large.png", "scan.tif"):
        Image.fromarray(noise).save(tmp_path / name)
    Image.fromarray(noise[:99]).save(tmp_path / "small.png")
    how = Preprocessing(resize_size=16, image_size=16)
    paths = [tmp_path / name for name in ("large.png", "scan.tif", "small.png")]
    found = inspect_files(paths, preprocessing=how, largest_megabytes=1)
    assert [image.error for image in found] == [""] * 3
    assert found[0].name == found[1].name
    assert found[2].version == sha256(paths[2].read_bytes()).hexdigest()


def test_answers_are_found_with_and_without_their_folders(aws: Rehearsed) -> None:
    put(aws, "out/a/1.png.out")
    put(aws, "out/2.png.out")
    put(aws, "out/same.png.out")
    put(aws, "out/odd.png.out", b"[]")
    names = ["a/1.png", "b/2.png", "a/same.png", "b/same.png", "odd.png"]
    batch = [BatchImage(name, name=name) for name in names]
    rows = read_answers(batch, output=f"s3://{BUCKET}/out", missing="why", clients=aws.clients)
    assert [row.class_name for row in rows] == ["red", "red", None, None, None]
    assert rows[2].error == rows[3].error == "why"
    assert "not an answer of `serve`" in str(rows[4].error)
