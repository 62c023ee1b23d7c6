"""The bucket that data, models and results lie in."""

import re
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from darkroom.backends.aws_access import error_code
from darkroom.backends.sagemaker.preflight.findings import Finding, survive

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_SUBJECT = "bucket"
_ROOT = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")


def check_bucket(root: str, *, region: str, s3: "S3Client") -> list[Finding]:
    """Existence, access and region of the bucket; how it is set up, as notes."""
    parts = _ROOT.fullmatch(root)
    if not parts:
        text = f"{root!r} is no place on S3. Write DARKROOM_S3_ROOT as s3://bucket/prefix."
        return [Finding(_SUBJECT, "problem", text)]
    bucket = parts["bucket"]
    found = survive(
        lambda: _reached(bucket, region=region, s3=s3), subject=_SUBJECT, action="s3:ListBucket"
    )
    if any(finding.level == "problem" for finding in found):
        return found
    return [
        *found,
        *survive(
            lambda: _public_access(bucket, s3=s3),
            subject=_SUBJECT,
            action="s3:GetBucketPublicAccessBlock",
        ),
        *survive(
            lambda: _versioning(bucket, s3=s3), subject=_SUBJECT, action="s3:GetBucketVersioning"
        ),
    ]


def _reached(bucket: str, *, region: str, s3: "S3Client") -> list[Finding]:
    try:
        answer = s3.head_bucket(Bucket=bucket)
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
    except ClientError as error:
        # HEAD has no body, so S3 says the region of a bucket that lies elsewhere in a header.
        headers = error.response["ResponseMetadata"].get("HTTPHeaders", {})
        if error_code(error) in ("404", "NoSuchBucket"):
            return [_missing(bucket)]
        if error_code(error) in ("403", "AccessDenied"):
            return [_forbidden(bucket)]
        if error_code(error) not in ("301", "PermanentRedirect"):
            raise
    found = headers.get("x-amz-bucket-region", region)
    if found != region:
        return [_elsewhere(bucket, found=found, region=region)]
    return [Finding(_SUBJECT, "ok", f"{bucket} is reachable, in {region}.")]


def _missing(bucket: str) -> Finding:
    text = f"the bucket {bucket!r} does not exist. Deploy infrastructure/darkroom.yaml, or fix "
    return Finding(_SUBJECT, "problem", text + "DARKROOM_S3_ROOT.")


def _forbidden(bucket: str) -> Finding:
    text = (
        f"the bucket {bucket!r} may not be accessed: it belongs to somebody else, or these "
        "credentials lack s3:ListBucket (infrastructure/iam/client.json)."
    )
    return Finding(_SUBJECT, "problem", text)


def _elsewhere(bucket: str, *, found: str, region: str) -> Finding:
    text = (
        f"the bucket {bucket!r} lies in {found}, the jobs would run in {region}; SageMaker needs "
        "both in one region. Set AWS_REGION to that of the bucket, or use another bucket."
    )
    return Finding(_SUBJECT, "problem", text)


def _public_access(bucket: str, *, s3: "S3Client") -> list[Finding]:
    try:
        answer = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    except ClientError as error:
        if error_code(error) != "NoSuchPublicAccessBlockConfiguration":
            raise
        answer = {}
    if answer and all(answer.values()):
        return []
    text = f"{bucket} does not block all public access; switch that on unless it is meant."
    return [Finding(_SUBJECT, "note", text)]


def _versioning(bucket: str, *, s3: "S3Client") -> list[Finding]:
    if s3.get_bucket_versioning(Bucket=bucket).get("Status") != "Enabled":
        return []
    text = f"{bucket} keeps old versions: what `run.py down` removes is still stored and billed."
    return [Finding(_SUBJECT, "note", text)]
