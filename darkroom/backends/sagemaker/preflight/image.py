"""The container image: its repository, and itself where it is not built by the run."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from darkroom.backends.sagemaker.preflight.findings import Finding, survive

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient
    from mypy_boto3_ecr.type_defs import ImageIdentifierTypeDef

_SUBJECT = "image"
_URI = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?"
    r"/(?P<repository>[a-z0-9._/-]+?)(?:@(?P<digest>sha256:[0-9a-f]{64})|:(?P<tag>[\w.-]+))?"
)
_SERVERLESS_BYTES = 10 * 10**9  # of an image; ECR reports the compressed size, which is less


@dataclass(frozen=True)
class ImageUri:
    """An image in ECR, taken apart."""

    account: str
    region: str
    repository: str
    digest: str | None
    tag: str | None

    @property
    def is_built_by_the_run(self) -> bool:
        """A repository alone: which image of it is known only once it is built."""
        return not (self.digest or self.tag)


def parse_image(uri: str) -> ImageUri | None:
    """Take the URI of an image in ECR apart; None: it is none."""
    parts = _URI.fullmatch(uri)
    return ImageUri(**parts.groupdict()) if parts else None


def check_image(
    uri: str, *, region: str, ecr: "ECRClient", serverless: bool = False
) -> list[Finding]:
    """Region, repository and image; of an image that the run builds, the repository.

    Args:
        uri: REGISTRY/REPOSITORY, with :TAG or @DIGEST where the image is there already.
        serverless: whether it will host a serverless endpoint, for which it may be too large.
    """
    if not uri:
        return [Finding(_SUBJECT, "note", "not checked: ZenML builds it and chooses its name.")]
    image = parse_image(uri)
    if image is None:
        text = (
            f"{uri!r} is not in Amazon ECR, where SageMaker takes images from. Push it there, and "
            "set DARKROOM_IMAGE to ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG."
        )
        return [Finding(_SUBJECT, "problem", text)]
    if image.region != region:
        text = (
            f"{uri!r} lies in {image.region}, the jobs would run in {region}. Push it to {region}."
        )
        return [Finding(_SUBJECT, "problem", text)]
    repository = survive(
        lambda: _repository(image, ecr=ecr), subject=_SUBJECT, action="ecr:DescribeRepositories"
    )
    if image.is_built_by_the_run or any(f.level == "problem" for f in repository):
        return repository
    found = survive(
        lambda: _image(image, uri=uri, ecr=ecr, serverless=serverless),
        subject=_SUBJECT,
        action="ecr:DescribeImages",
    )
    return [*repository, *found]


def _repository(image: ImageUri, *, ecr: "ECRClient") -> list[Finding]:
    try:
        ecr.describe_repositories(registryId=image.account, repositoryNames=[image.repository])
    except ecr.exceptions.RepositoryNotFoundException:
        text = (
            f"the repository {image.repository!r} does not exist in ECR. Deploy "
            f"infrastructure/darkroom.yaml, or: aws ecr create-repository --region {image.region} "
            f"--repository-name {image.repository}"
        )
        return [Finding(_SUBJECT, "problem", text)]
    return [Finding(_SUBJECT, "ok", f"the repository {image.repository} exists.")]


def _image(image: ImageUri, *, uri: str, ecr: "ECRClient", serverless: bool) -> list[Finding]:
    wanted: ImageIdentifierTypeDef = (
        {"imageDigest": image.digest} if image.digest else {"imageTag": image.tag or "latest"}
    )
    try:
        found = ecr.describe_images(
            registryId=image.account, repositoryName=image.repository, imageIds=[wanted]
        )["imageDetails"]
    except ecr.exceptions.ImageNotFoundException:
        text = (
            f"there is no image {uri!r}. Build and push it (make image; docs/sagemaker.md), or "
            "leave DARKROOM_IMAGE empty and have ZenML build one."
        )
        return [Finding(_SUBJECT, "problem", text)]
    size = found[0].get("imageSizeInBytes", 0)
    if serverless and size > _SERVERLESS_BYTES:
        text = (
            f"{uri!r} has {size / 1e9:.1f} GB compressed; serverless endpoints take at most 10 GB. "
            "Set sagemaker.hosting.kind to realtime, or build a smaller image."
        )
        return [Finding(_SUBJECT, "problem", text)]
    return [Finding(_SUBJECT, "ok", f"{uri} is there, {size / 1e9:.1f} GB compressed.")]
