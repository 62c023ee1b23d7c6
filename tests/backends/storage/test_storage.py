"""S3: fetched and uploaded once, checked, resumed, and clear about what is lacking."""

import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ResponseStreamingError
from botocore.response import StreamingBody
from moto import mock_aws
from moto.server import ThreadedMotoServer

from darkroom.backends.storage import transfer
from darkroom.backends.storage.ingestion import describe_source, ingest, source_version
from darkroom.backends.storage.listing import MARK
from darkroom.backends.storage.s3 import fetch, look_up, s3_client, upload_folder
from darkroom.backends.storage.transfer import (
    DamagedTransferError,
    Uploaded,
    check_file,
    md5_of_etag,
)
from darkroom.base.errors import DarkroomError, UserError
from darkroom.config import DataConfig, SplitFolders
from darkroom.data.listing import HIDDEN

_FILES = {
    f"{label}/{number}.jpg": f"{label} {number}".encode()
    for label in ("cat", "dog")
    for number in range(6)
}


@pytest.fixture(autouse=True)
def no_aws_of_the_user(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def credentials(monkeypatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


@pytest.fixture
def s3(credentials) -> Iterator:
    """A client of an S3 in memory, with the bucket 'photos' and twelve images in it."""
    with mock_aws():
        client = s3_client()
        location = {"LocationConstraint": "eu-west-1"}
        client.create_bucket(Bucket="photos", CreateBucketConfiguration=location)
        for path, content in _FILES.items():
            client.put_object(Bucket="photos", Key=f"data/{path}", Body=content)
        yield client


class _Client:
    """A client that counts what it is asked for and may answer otherwise."""

    def __init__(self, client, **answers) -> None:
        self._client, self._answers, self.calls = client, answers, Counter()

    def __getattr__(self, name: str):
        attribute = getattr(self._client, name)
        if name not in ("get_object", "put_object", "head_object", "list_objects_v2"):
            return attribute

        def call(**parameters):
            self.calls[name] += 1
            answer = self._answers.get(name)
            return (
                answer(attribute, self.calls[name], parameters)
                if answer
                else attribute(**parameters)
            )

        return call


def _fetch(client, store: Path, uri: str = "s3://photos/data", **limits: int) -> Path:
    limits = {"maximum_bytes": 10**6, "maximum_files": 1000} | limits
    return fetch(uri, store=store, client=client, pause=lambda _seconds: None, **limits)


def _content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _respond(client, operation: str, *, status: int, code: str, times: int = 10**6) -> None:
    """Let S3 answer an operation with an error, so many times."""
    left = [times]

    def answer(request, **_options):
        if not left[0]:
            return None
        left[0] -= 1
        body = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
        headers = {"Content-Type": "application/xml"}
        response = AWSResponse(request.url, status, headers, io.BytesIO(body))
        response._content = body
        return response

    client.meta.events.register_first(f"before-send.s3.{operation}", answer)


def test_a_prefix_is_fetched_with_its_folders(s3, tmp_path):
    assert _content(_fetch(s3, tmp_path)) == _FILES


def test_a_slash_at_the_end_does_not_matter(s3, tmp_path):
    assert _fetch(s3, tmp_path, "s3://photos/data/") == _fetch(s3, tmp_path, "s3://photos/data")


def test_a_prefix_does_not_include_its_neighbours(s3, tmp_path):
    s3.put_object(Bucket="photos", Key="data2/cat/1.jpg", Body=b"other")
    assert _content(_fetch(s3, tmp_path)) == _FILES


def test_the_same_content_is_not_fetched_twice(s3, tmp_path):
    first = _fetch(s3, tmp_path)
    counting = _Client(s3)
    assert _fetch(counting, tmp_path) == first
    assert counting.calls["get_object"] == 0


def test_what_was_changed_after_fetching_is_fetched_again(s3, tmp_path):
    first = _fetch(s3, tmp_path)
    (first / "cat/0.jpg").write_bytes(_FILES["cat/0.jpg"][::-1])
    assert _fetch(s3, tmp_path) == first
    assert _content(first) == _FILES


def test_changed_content_is_fetched_into_a_folder_of_its_own(s3, tmp_path):
    first = _fetch(s3, tmp_path)
    s3.put_object(Bucket="photos", Key="data/cat/0.jpg", Body=b"changed")
    second = _fetch(s3, tmp_path)
    assert _content(first) == _FILES
    assert _content(second) == {**_FILES, "cat/0.jpg": b"changed"}


def test_what_had_arrived_before_an_interruption_is_not_fetched_again(s3, tmp_path):
    def interrupt(get_object, count, parameters):
        if count == 8:
            raise KeyboardInterrupt
        return get_object(**parameters)

    interrupted, counting = _Client(s3, get_object=interrupt), _Client(s3)
    with pytest.raises(KeyboardInterrupt):
        _fetch(interrupted, tmp_path)
    arrived = len(list(tmp_path.rglob("*.jpg")))
    assert arrived >= 1
    assert _content(_fetch(counting, tmp_path)) == _FILES
    assert counting.calls["get_object"] == len(_FILES) - arrived
    assert [path.suffix for path in (tmp_path / "s3").iterdir() if path.is_dir()] == [""]


def test_a_transfer_that_breaks_off_is_tried_again(s3, tmp_path):
    def break_off_once(get_object, count, parameters):
        if count == 1:
            raise ResponseStreamingError(error="connection reset")
        return get_object(**parameters)

    client = _Client(s3, get_object=break_off_once)
    assert _content(_fetch(client, tmp_path)) == _FILES
    assert client.calls["get_object"] == len(_FILES) + 1


def _damaged(get_object, _count, parameters):
    answer = get_object(**parameters)
    content = answer["Body"].read()[::-1]
    return {**answer, "Body": StreamingBody(io.BytesIO(content), len(content))}


def test_damaged_content_is_never_kept(s3, tmp_path):
    with pytest.raises(DarkroomError, match=r"4 attempts: .* differs.*same command again"):
        _fetch(_Client(s3, get_object=_damaged), tmp_path)
    assert not list(tmp_path.rglob("*.jpg"))
    assert _content(_fetch(s3, tmp_path)) == _FILES


def test_a_busy_s3_is_asked_again(s3, tmp_path):
    _respond(s3, "ListObjectsV2", status=503, code="SlowDown", times=1)
    assert _content(_fetch(s3, tmp_path)) == _FILES


def test_large_objects_are_fetched_in_parts(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "_LARGE_BYTES", 1)
    counting = _Client(s3)
    assert _content(_fetch(counting, tmp_path)) == _FILES
    assert counting.calls == {"list_objects_v2": 1, "head_object": len(_FILES)}


@pytest.mark.slow
def test_hidden_objects_and_folder_markers_are_not_fetched(s3, tmp_path):
    for key in ("data/", "data/cat/", "data/.DS_Store", "data/__MACOSX/1.jpg"):
        s3.put_object(Bucket="photos", Key=key, Body=b"")
    assert _content(_fetch(s3, tmp_path)) == _FILES
    found = look_up("s3://photos/data", maximum_bytes=10**6, maximum_files=100, client=s3)
    assert found.left_out == {HIDDEN: 2}


@pytest.mark.parametrize("key", ["data/../../evil.jpg", "data/C:/evil.jpg", "data/cat/1.jpg/evil"])
def test_keys_that_would_be_written_elsewhere_are_refused_by_name(s3, tmp_path, key):
    s3.put_object(Bucket="photos", Key=key, Body=b"evil")
    with pytest.raises(UserError, match="cannot be files of a folder") as refusal:
        _fetch(s3, tmp_path / "store")
    assert repr(key) in str(refusal.value) or "data/cat/1.jpg" in str(refusal.value)
    assert not list(tmp_path.rglob("*evil*"))


def test_slashes_that_follow_each_other_count_as_one(s3, tmp_path):
    s3.put_object(Bucket="photos", Key="double//cat//1.jpg", Body=b"one")
    s3.put_object(Bucket="photos", Key="double/./dog/2.jpg", Body=b"two")
    folder = _fetch(s3, tmp_path, uri="s3://photos/double")
    assert _content(folder) == {"cat/1.jpg": b"one", "dog/2.jpg": b"two"}
    s3.put_object(Bucket="photos", Key="double/cat/1.jpg", Body=b"other")
    with pytest.raises(UserError, match=r"'double//cat//1\.jpg' needs the place of another"):
        _fetch(s3, tmp_path, uri="s3://photos/double")


@pytest.mark.parametrize("content", [b"", b"mark"])
def test_an_object_of_the_folders_own_name_is_passed_over(s3, tmp_path, content):
    s3.put_object(Bucket="photos", Key="data", Body=content)
    assert _content(_fetch(s3, tmp_path, uri="s3://photos/data")) == _FILES
    found = look_up("s3://photos/data", maximum_bytes=10**6, maximum_files=100, client=s3)
    assert found.left_out == {MARK: 1}


@pytest.mark.slow
def test_an_archive_and_a_folder_of_one_name_are_told_apart_by_a_slash(s3, tmp_path):
    s3.put_object(Bucket="photos", Key="data", Body=b"PK\x05\x06" + bytes(18))
    with pytest.raises(UserError, match=r"an archive, and a folder of 12 objects.*photos/data/'"):
        _fetch(s3, tmp_path, uri="s3://photos/data")
    assert _content(_fetch(s3, tmp_path, uri="s3://photos/data/")) == _FILES


def test_keys_that_differ_by_case_alone_are_two_files_or_refused(s3, tmp_path, monkeypatch):
    s3.put_object(Bucket="photos", Key="data/cat/0.JPG", Body=_FILES["cat/0.jpg"])
    assert len(_content(_fetch(s3, tmp_path / "one"))) == 13
    monkeypatch.setattr(transfer.Path, "exists", lambda _path: True)
    with pytest.raises(UserError, match=r"0\.JPG' and .*0\.jpg' differ by case alone"):
        _fetch(s3, tmp_path / "two")


def test_a_key_longer_than_any_file_name_is_refused_by_name(s3, tmp_path):
    s3.put_object(Bucket="photos", Key=f"data/{'x' * 300}.jpg", Body=b"x")
    with pytest.raises(UserError, match="has a part of more than 255 bytes"):
        _fetch(s3, tmp_path)


def test_sizes_and_counts_are_limited_before_anything_is_fetched(s3, tmp_path):
    with pytest.raises(UserError, match=r"more than data\.maximum_archive_bytes \(10\)"):
        _fetch(s3, tmp_path, maximum_bytes=10)
    with pytest.raises(UserError, match=r"more than 3 files.*data\.maximum_files"):
        _fetch(s3, tmp_path, maximum_files=3)
    assert not list(tmp_path.iterdir())


def test_a_prefix_that_does_not_exist_is_told_with_what_does(s3, tmp_path):
    s3.put_object(Bucket="photos", Key="data/cow.zip", Body=b"x")
    with pytest.raises(UserError) as refusal:
        _fetch(s3, tmp_path, "s3://photos/data/horse")
    message = str(refusal.value)
    assert "bucket 'photos' under the prefix 'data/horse/'" in message
    assert "In 's3://photos/data/' there are 'data/cat/', 'data/dog/', 'data/cow.zip'" in message


def test_a_bucket_that_does_not_exist_is_named(s3, tmp_path):
    with pytest.raises(UserError, match=r"bucket of 's3://nowhere/data' does not exist"):
        _fetch(s3, tmp_path, "s3://nowhere/data")


@pytest.mark.parametrize(
    ("operation", "action", "resource"),
    [
        ("ListObjectsV2", "s3:ListBucket", "arn:aws:s3:::photos'"),
        ("GetObject", "s3:GetObject", "arn:aws:s3:::photos/data/"),
    ],
)
def test_a_denied_access_names_the_action_and_the_caller(s3, tmp_path, operation, action, resource):
    _respond(s3, operation, status=403, code="AccessDenied")
    with pytest.raises(UserError) as refusal:
        _fetch(s3, tmp_path)
    message = str(refusal.value)
    assert f"'arn:aws:sts::123456789012:user/moto' lacks {action!r} on '{resource}" in message


@pytest.mark.slow
def test_expired_credentials_are_told_apart_from_missing_permission(s3, tmp_path):
    _respond(s3, "ListObjectsV2", status=400, code="ExpiredToken")
    with pytest.raises(UserError, match=r"does not accept the credentials.*ExpiredToken"):
        _fetch(s3, tmp_path)


def test_missing_credentials_are_told_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"needs AWS credentials.*aws configure"):
        _fetch(None, tmp_path)


def test_a_profile_that_does_not_exist_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UserError, match=r"profile \(nobody\).*AWS_PROFILE"):
        _fetch(None, tmp_path)


def test_an_unreachable_s3_is_told(credentials, tmp_path):
    client = boto3.client(
        "s3",
        endpoint_url="http://127.0.0.1:9",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with pytest.raises(DarkroomError, match=r"cannot be reached.*AWS_ENDPOINT_URL"):
        _fetch(client, tmp_path)


def _upload(client, folder: Path) -> Uploaded:
    return upload_folder(folder, uri="s3://photos/copy", client=client)


def test_an_uploaded_folder_comes_back_as_it_was(s3, tmp_path):
    folder = _fetch(s3, tmp_path)
    assert _upload(s3, folder) == Uploaded(sent=12, skipped=0, size=sum(map(len, _FILES.values())))
    assert _content(_fetch(s3, tmp_path / "other", "s3://photos/copy")) == _FILES


def test_only_what_is_not_there_yet_is_uploaded(s3, tmp_path):
    folder = _fetch(s3, tmp_path)
    _upload(s3, folder)
    (folder / "cat/0.jpg").write_bytes(b"CAT 0")
    (folder / "cat/new.jpg").write_bytes(b"new")
    counting = _Client(s3)
    assert _upload(counting, folder) == Uploaded(sent=2, skipped=11, size=8)
    assert counting.calls["put_object"] == 2


def test_content_is_recognised_where_the_etag_does_not_tell_it(s3, tmp_path, monkeypatch):
    folder = _fetch(s3, tmp_path)
    _upload(s3, folder)
    monkeypatch.setattr(transfer, "md5_of_etag", lambda _answer: None)
    assert _upload(s3, folder).sent == 0


def test_large_files_are_uploaded_in_parts(s3, tmp_path, monkeypatch):
    folder = _fetch(s3, tmp_path)
    monkeypatch.setattr(transfer, "_LARGE_BYTES", 1)
    assert _upload(s3, folder).sent == 12
    assert _upload(s3, folder).sent == 0
    assert _content(_fetch(s3, tmp_path / "other", "s3://photos/copy")) == _FILES


@pytest.mark.slow
def test_a_denied_upload_names_the_action(s3, tmp_path):
    folder = _fetch(s3, tmp_path)
    _respond(s3, "PutObject", status=403, code="AccessDenied")
    with pytest.raises(UserError, match=r"lacks 's3:PutObject' on 'arn:aws:s3:::photos/copy/"):
        _upload(s3, folder)


def test_an_empty_folder_is_not_uploaded(s3, tmp_path):
    with pytest.raises(UserError, match="no files to upload"):
        _upload(s3, tmp_path)


def test_a_prefix_becomes_a_data_set(s3, tmp_path):
    config = DataConfig()
    dataset = ingest("s3://photos/data", config=config, seed=1, store=tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert len(dataset.records) == 12
    assert "12 images in 2 classes" in describe_source("s3://photos/data", config=config).line
    before = source_version("s3://photos/data", config=config)
    s3.put_object(Bucket="photos", Key="data/dog/9.jpg", Body=b"another")
    assert source_version("s3://photos/data", config=config) != before


def test_an_archive_becomes_the_same_data_set_as_its_prefix(s3, tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, content in _FILES.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    s3.put_object(Bucket="photos", Key="packed/data.tgz", Body=packed.getvalue())
    datasets = [
        ingest(uri, config=DataConfig(), seed=1, store=tmp_path)
        for uri in ("s3://photos/data", "s3://photos/packed/data.tgz")
    ]
    assert datasets[0].fingerprint == datasets[1].fingerprint


def test_the_endpoint_of_the_environment_is_honoured(credentials, tmp_path, monkeypatch):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        client = s3_client()
        location = {"LocationConstraint": "eu-west-1"}
        client.create_bucket(Bucket="photos", CreateBucketConfiguration=location)
        for name in ("cat/1.jpg", "dog/2.jpg"):
            client.put_object(Bucket="photos", Key=name, Body=name.encode())
        dataset = ingest("s3://photos", config=DataConfig(), seed=1, store=tmp_path)
        assert [record.path for record in dataset.records] == ["cat/1.jpg", "dog/2.jpg"]
    finally:
        server.stop()


@pytest.mark.parametrize(
    "answer",
    [
        {"ETag": '"900150983cd24fb0d6963f7d28e17f72-2"'},
        {"ETag": '"900150983cd24fb0d6963f7d28e17f72"', "ServerSideEncryption": "aws:kms"},
        {"ETag": '"900150983cd24fb0d6963f7d28e17f72"', "SSECustomerAlgorithm": "AES256"},
    ],
)
def test_an_etag_that_is_no_md5_is_not_taken_for_one(answer):
    assert md5_of_etag(answer) is None


@pytest.mark.parametrize(
    "answer",
    [
        {"ETag": '"900150983cd24fb0d6963f7d28e17f72"'},
        {"ChecksumSHA256": "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="},
        {"ChecksumSHA1": "qZk+NkcGgWq6PiVxeFDCbJzQ2J0="},
        {"ChecksumCRC32": "NSRBwg=="},
        {"ETag": '"x-2"', "ChecksumCRC32": "NSRBwg==", "ChecksumType": "FULL_OBJECT"},
    ],
)
def test_every_checksum_of_an_answer_is_compared(tmp_path, answer):
    (tmp_path / "same").write_bytes(b"abc")
    (tmp_path / "other").write_bytes(b"abd")
    check_file(tmp_path / "same", size=3, answer=answer)
    with pytest.raises(DamagedTransferError, match="differs"):
        check_file(tmp_path / "other", size=3, answer=answer)


def test_checksums_over_parts_are_not_taken_for_those_of_the_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    answer = {"ETag": '"x-2"', "ChecksumCRC32": "AAAAAA==", "ChecksumType": "COMPOSITE"}
    check_file(tmp_path / "file", size=3, answer=answer)


def test_a_file_of_another_size_is_damaged(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    with pytest.raises(DamagedTransferError, match="3 of 4 bytes"):
        check_file(tmp_path / "file", size=4, answer={})


def test_a_prefix_with_labels_splits_and_two_forms_of_unicode_becomes_a_data_set(s3, tmp_path):
    nfc, nfd = "caf\u00e9", "cafe\u0301"
    for number, folder in enumerate((f"fit/{nfc}", f"fit/{nfd}", "fit/tea", f"judge/{nfd}") * 3):
        key = f"own/{folder}/{number}.jpg"
        s3.put_object(Bucket="photos", Key=key, Body=f"{number}".encode())
    rows = "".join(f"{number}.jpg,{number // 6}\n" for number in range(12))
    s3.put_object(Bucket="photos", Key="own/people.csv", Body=b"file,person\n" + rows.encode())
    splits = SplitFolders(train=("fit",), test=("judge",))
    config = DataConfig(splits=splits, labels=("people.csv",))
    foreseen = describe_source("s3://photos/own", config=config, seed=1).dataset
    dataset = ingest("s3://photos/own", config=config, seed=1, store=tmp_path)
    for found in (foreseen, dataset):
        assert found.classes == (nfc, "tea")
        assert found.provenance.reading.startswith("splits: fit → train, judge → test; groups in")
        assert found.counts() == foreseen.counts()
        assert {record.group for record in found.records} == {"0", "1"}
    assert all(dataset.file(record).is_file() for record in dataset.records)
