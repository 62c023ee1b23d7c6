"""Bucket and image, before a run: each mistake with its sentence."""

import json
from collections.abc import Iterator

import pytest
from moto import mock_aws

from darkroom.backends.sagemaker.account.preflight import Finding
from darkroom.backends.sagemaker.account.services import check_bucket, check_image
from darkroom.backends.sagemaker.session import Clients
from preflight_account import (
    ACCOUNT,
    REGION,
    REGISTRY,
    Account,
    create_bucket,
    isolate,
    levels,
    problem,
    stubbed,
)


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path) -> None:
    """Nothing of the user's AWS configuration is seen."""
    isolate(monkeypatch, tmp_path)


@pytest.fixture
def account() -> Iterator[Account]:
    with mock_aws():
        yield Account(REGION)


def test_a_bucket_in_the_region_is_fine(account: Clients) -> None:
    create_bucket(account)
    found = check_bucket("s3://photos/darkroom", region=REGION, s3=account.s3)
    assert found == [Finding("bucket", "ok", "photos is reachable, in eu-west-1.")]


@pytest.mark.slow
def test_a_missing_bucket_says_what_to_do(account: Clients) -> None:
    text = problem(check_bucket("s3://photos/darkroom", region=REGION, s3=account.s3))
    assert text.startswith("the bucket 'photos' does not exist.")
    assert "DARKROOM_S3_ROOT" in text


def test_a_bucket_of_another_region_is_named_with_both(account: Clients) -> None:
    create_bucket(account, region="us-west-2")
    text = problem(check_bucket("s3://photos/darkroom", region=REGION, s3=account.s3))
    assert "bucket 'photos' lies in us-west-2, the jobs would run in eu-west-1" in text


@pytest.mark.parametrize("code", ["403", "301"])
def test_a_bucket_that_may_not_be_accessed_or_was_moved_is_named(code: str) -> None:
    s3, stubber = stubbed("s3")
    headers = {"HTTPHeaders": {"x-amz-bucket-region": "us-east-2"}}
    stubber.add_client_error("head_bucket", code, http_status_code=int(code), response_meta=headers)
    text = problem(check_bucket("s3://photos", region=REGION, s3=s3))
    assert ("may not be accessed" if code == "403" else "lies in us-east-2") in text


def test_what_is_no_place_on_s3_is_named(account: Clients) -> None:
    text = problem(check_bucket("photos", region=REGION, s3=account.s3))
    assert text == "'photos' is no place on S3. Write DARKROOM_S3_ROOT as s3://bucket/prefix."


def test_an_open_or_versioned_bucket_is_a_note(account: Clients) -> None:
    create_bucket(account)
    account.s3.delete_public_access_block(Bucket="photos")
    account.s3.put_bucket_versioning(Bucket="photos", VersioningConfiguration={"Status": "Enabled"})
    found = check_bucket("s3://photos/darkroom", region=REGION, s3=account.s3)
    assert levels(found) == ["ok", "note", "note"]
    assert "does not block all public access" in found[1].text
    assert "keeps old versions" in found[2].text


@pytest.mark.slow
def test_a_repository_is_enough_where_the_run_builds_the_image(account: Clients) -> None:
    account.ecr.create_repository(repositoryName="darkroom")
    found = check_image(f"{REGISTRY}/darkroom", region=REGION, ecr=account.ecr)
    assert found == [Finding("image", "ok", "the repository darkroom exists.")]


def test_a_missing_repository_says_how_to_create_it(account: Clients) -> None:
    text = problem(check_image(f"{REGISTRY}/darkroom:1", region=REGION, ecr=account.ecr))
    assert "the repository 'darkroom' does not exist" in text
    assert "aws ecr create-repository --region eu-west-1 --repository-name darkroom" in text


def test_a_missing_image_says_how_to_build_it(account: Clients) -> None:
    account.ecr.create_repository(repositoryName="darkroom")
    text = problem(check_image(f"{REGISTRY}/darkroom:1", region=REGION, ecr=account.ecr))
    assert f"there is no image '{REGISTRY}/darkroom:1'" in text
    assert "make image" in text


def test_an_image_is_found_by_tag_and_by_digest(account: Clients) -> None:
    account.ecr.create_repository(repositoryName="darkroom")
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    content = {"schemaVersion": 2, "mediaType": kind, "config": {"size": 3}, "layers": []}
    manifest = json.dumps(content)
    pushed = account.ecr.put_image(repositoryName="darkroom", imageManifest=manifest, imageTag="1")
    digest = pushed["image"]["imageId"]["imageDigest"]
    for uri in (f"{REGISTRY}/darkroom:1", f"{REGISTRY}/darkroom@{digest}"):
        assert levels(check_image(uri, region=REGION, ecr=account.ecr)) == ["ok", "ok"]


def test_an_image_of_another_region_is_named(account: Clients) -> None:
    uri = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/darkroom:1"
    text = problem(check_image(uri, region=REGION, ecr=account.ecr))
    assert "lies in us-east-1, the jobs would run in eu-west-1" in text


@pytest.mark.parametrize("uri", ["docker.io/darkroom:1", "darkroom", f"{REGISTRY}/UPPER:1"])
def test_an_image_outside_ecr_is_refused(account: Clients, uri: str) -> None:
    assert "is not in Amazon ECR" in problem(check_image(uri, region=REGION, ecr=account.ecr))


def test_an_image_that_is_too_large_for_serverless_is_named() -> None:
    ecr, stubber = stubbed("ecr")
    uri = f"{REGISTRY}/darkroom:1"
    for _ in range(2):
        stubber.add_response("describe_repositories", {"repositories": []})
        stubber.add_response(
            "describe_images", {"imageDetails": [{"imageSizeInBytes": 11 * 10**9}]}
        )
    text = problem(check_image(uri, region=REGION, ecr=ecr, serverless=True))
    assert "11.0 GB compressed; serverless endpoints take at most 10 GB" in text
    assert levels(check_image(uri, region=REGION, ecr=ecr)) == ["ok", "ok"]


@pytest.mark.slow
def test_an_image_whose_name_zenml_chooses_is_a_note(account: Clients) -> None:
    assert levels(check_image("", region=REGION, ecr=account.ecr)) == ["note"]
