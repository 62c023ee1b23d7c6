"""Check what a job talks to and runs under: bucket, image, servers, MLflow, roles, permissions."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from botocore.exceptions import ClientError

from darkroom.backends.sagemaker.account.findings import Caller, Finding, survive
from darkroom.backends.sagemaker.session import SageMakerContext, is_missing
from darkroom.backends.storage.access import error_code

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient
    from mypy_boto3_ecr.type_defs import ImageIdentifierTypeDef
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient


# --- bucket ---

_BUCKET = "bucket"
_ROOT = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")


def check_bucket(root: str, *, region: str, s3: "S3Client") -> list[Finding]:
    """Existence, access and region of the bucket; how it is set up, as notes."""
    parts = _ROOT.fullmatch(root)
    if not parts:
        text = f"{root!r} is no place on S3. Write DARKROOM_S3_ROOT as s3://bucket/prefix."
        return [Finding(_BUCKET, "problem", text)]
    bucket = parts["bucket"]
    found = survive(
        lambda: _reached(bucket, region=region, s3=s3), subject=_BUCKET, action="s3:ListBucket"
    )
    if any(finding.level == "problem" for finding in found):
        return found
    return [
        *found,
        *survive(
            lambda: _public_access(bucket, s3=s3),
            subject=_BUCKET,
            action="s3:GetBucketPublicAccessBlock",
        ),
        *survive(
            lambda: _versioning(bucket, s3=s3), subject=_BUCKET, action="s3:GetBucketVersioning"
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
    return [Finding(_BUCKET, "ok", f"{bucket} is reachable, in {region}.")]


def _missing(bucket: str) -> Finding:
    text = f"the bucket {bucket!r} does not exist. Deploy infrastructure/darkroom.yaml, or fix "
    return Finding(_BUCKET, "problem", text + "DARKROOM_S3_ROOT.")


def _forbidden(bucket: str) -> Finding:
    text = (
        f"the bucket {bucket!r} may not be accessed: it belongs to somebody else, or these "
        "credentials lack s3:ListBucket (infrastructure/iam/client.json)."
    )
    return Finding(_BUCKET, "problem", text)


def _elsewhere(bucket: str, *, found: str, region: str) -> Finding:
    text = (
        f"the bucket {bucket!r} lies in {found}, the jobs would run in {region}; SageMaker needs "
        "both in one region. Set AWS_REGION to that of the bucket, or use another bucket."
    )
    return Finding(_BUCKET, "problem", text)


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
    return [Finding(_BUCKET, "note", text)]


def _versioning(bucket: str, *, s3: "S3Client") -> list[Finding]:
    if s3.get_bucket_versioning(Bucket=bucket).get("Status") != "Enabled":
        return []
    text = f"{bucket} keeps old versions: what `run.py down` removes is still stored and billed."
    return [Finding(_BUCKET, "note", text)]


# --- image ---
# The container image: its repository, and itself where it is not built by the run.

_IMAGE = "image"
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
        return [Finding(_IMAGE, "note", "not checked: ZenML builds it and chooses its name.")]
    image = parse_image(uri)
    if image is None:
        text = (
            f"{uri!r} is not in Amazon ECR, where SageMaker takes images from. Push it there, and "
            "set DARKROOM_IMAGE to ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG."
        )
        return [Finding(_IMAGE, "problem", text)]
    if image.region != region:
        text = (
            f"{uri!r} lies in {image.region}, the jobs would run in {region}. Push it to {region}."
        )
        return [Finding(_IMAGE, "problem", text)]
    repository = survive(
        lambda: _repository(image, ecr=ecr), subject=_IMAGE, action="ecr:DescribeRepositories"
    )
    if image.is_built_by_the_run or any(f.level == "problem" for f in repository):
        return repository
    found = survive(
        lambda: _image(image, uri=uri, ecr=ecr, serverless=serverless),
        subject=_IMAGE,
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
        return [Finding(_IMAGE, "problem", text)]
    return [Finding(_IMAGE, "ok", f"the repository {image.repository} exists.")]


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
        return [Finding(_IMAGE, "problem", text)]
    size = found[0].get("imageSizeInBytes", 0)
    if serverless and size > _SERVERLESS_BYTES:
        text = (
            f"{uri!r} has {size / 1e9:.1f} GB compressed; serverless endpoints take at most 10 GB. "
            "Set sagemaker.hosting.kind to realtime, or build a smaller image."
        )
        return [Finding(_IMAGE, "problem", text)]
    return [Finding(_IMAGE, "ok", f"{uri} is there, {size / 1e9:.1f} GB compressed.")]


# --- servers ---
# Whether the servers that a job talks to answer, and can be reached from where it runs.

_SECONDS_TO_CONNECT = 4
_SECONDS_TO_ANSWER = 10
_ZENML = "ZenML server"
_MLFLOW = "MLflow server"


def check_zenml(url: str) -> list[Finding]:
    """Address, answer and version of the ZenML server."""
    if problem := _unreachable_from_aws(url, subject=_ZENML, setting="ZENML_STORE_URL"):
        return [problem]
    return ask_zenml(url)


def ask_zenml(url: str) -> list[Finding]:
    """Ask the server for its version, which has to be that of the ZenML installed here."""
    answer = _get(f"{url.rstrip('/')}/api/v1/info")
    if isinstance(answer, str):
        text = f"{url!r} does not answer: {answer}. Start it, or fix ZENML_STORE_URL."
        return [Finding(_ZENML, "problem", text)]
    theirs = _json(answer).get("version")
    if answer.status_code != requests.codes.ok or not theirs:
        text = (
            f"{url!r} answers, but not as a ZenML server (HTTP {answer.status_code} to "
            "/api/v1/info). Fix ZENML_STORE_URL: the address without a path."
        )
        return [Finding(_ZENML, "problem", text)]
    ours = _installed("zenml")
    if ours and ours != theirs:
        text = f"{url!r} runs ZenML {theirs}, here it is {ours}. Run the server in {ours}."
        return [Finding(_ZENML, "problem", text)]
    return [Finding(_ZENML, "ok", f"{url} answers, ZenML {theirs}."), *_plain_http(url, _ZENML)]


def check_mlflow_url(url: str) -> list[Finding]:
    """Address and answer of an MLflow server."""
    if problem := _unreachable_from_aws(url, subject=_MLFLOW, setting="DARKROOM_MLFLOW_URI"):
        return [problem]
    return ask_mlflow(url)


def ask_mlflow(url: str) -> list[Finding]:
    """Whether something answers there; without the token, an MLflow behind one says 401."""
    answer = _get(f"{url.rstrip('/')}/health")
    if isinstance(answer, str):
        text = f"{url!r} does not answer: {answer}. Start it, or fix DARKROOM_MLFLOW_URI."
        return [Finding(_MLFLOW, "problem", text)]
    if answer.status_code in (requests.codes.unauthorized, requests.codes.forbidden):
        text = f"{url} answers and asks for a token; whether yours is accepted is not checked."
        return [Finding(_MLFLOW, "ok", text), *_plain_http(url, _MLFLOW)]
    if answer.status_code != requests.codes.ok:
        text = (
            f"{url!r} answers HTTP {answer.status_code} to /health, which MLflow answers with 200. "
            "Fix DARKROOM_MLFLOW_URI: the address without a path."
        )
        return [Finding(_MLFLOW, "problem", text)]
    return [Finding(_MLFLOW, "ok", f"{url} answers."), *_plain_http(url, _MLFLOW)]


def _unreachable_from_aws(url: str, *, subject: str, setting: str) -> Finding | None:
    """The problem that a job could never reach the address; None: it might."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        text = f"{url!r} is no address of a server. Set {setting} to https://HOST[:PORT]."
        return Finding(subject, "problem", text)
    if is_loopback(host):
        text = (
            f"{url!r} is this machine alone: jobs on AWS cannot reach it. Run the server where "
            f"they can, and set {setting} to its address (docs/sagemaker.md)."
        )
        return Finding(subject, "problem", text)
    return None


def is_loopback(host: str) -> bool:
    """Whether a host name or address means the machine itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _plain_http(url: str, subject: str) -> list[Finding]:
    host = urlsplit(url).hostname or ""
    if not url.startswith("http://") or is_loopback(host):
        return []
    text = f"{url} is not encrypted: tokens travel in clear text. Use https://."
    return [Finding(subject, "note", text)]


def _get(url: str) -> "requests.Response | str":
    """The answer, or why there is none."""
    try:
        return requests.get(url, timeout=(_SECONDS_TO_CONNECT, _SECONDS_TO_ANSWER))
    except requests.exceptions.SSLError:
        return "its TLS certificate is not accepted"
    except requests.exceptions.Timeout:
        return f"nothing within {_SECONDS_TO_CONNECT} to {_SECONDS_TO_ANSWER} s"
    except requests.exceptions.ConnectionError:
        return "the connection fails"
    except requests.exceptions.RequestException as error:
        return f"{type(error).__name__}: {error}"


def _json(answer: requests.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except requests.exceptions.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


# --- managed mlflow ---
# SageMaker's own MLflow, named by ARN: does it exist, is it up, is it in reach?

_MLFLOW_SERVER = "MLflow server"
_ARN = re.compile(
    r"arn:aws[a-z-]*:sagemaker:(?P<region>[a-z0-9-]+):\d{12}:"
    r"(?P<kind>mlflow-tracking-server|mlflow-app)/(?P<name>[A-Za-z0-9-]+)"
)
_AWAKE = frozenset({"Created", "Started", "Updated", "MaintenanceComplete"})


def check_managed_mlflow(arn: str, *, region: str, sagemaker: "SageMakerClient") -> list[Finding]:
    """Form, region and state of a tracking server or app."""
    parts = _ARN.fullmatch(arn)
    if not parts:
        text = (
            f"{arn!r} is no ARN of a managed MLflow. It looks like "
            "arn:aws:sagemaker:REGION:ACCOUNT:mlflow-tracking-server/NAME."
        )
        return [Finding(_MLFLOW_SERVER, "problem", text)]
    if parts["region"] != region:
        text = f"{arn!r} lies in {parts['region']}, the jobs would run in {region}. Use one there."
        return [Finding(_MLFLOW_SERVER, "problem", text)]
    is_server = parts["kind"] == "mlflow-tracking-server"
    action = "DescribeMlflowTrackingServer" if is_server else "DescribeMlflowApp"

    def check() -> list[Finding]:
        try:
            if is_server:
                name = parts["name"]
                answer = sagemaker.describe_mlflow_tracking_server(TrackingServerName=name)
                return [_state(arn, status=answer["TrackingServerStatus"])]
            return [_state(arn, status=sagemaker.describe_mlflow_app(Arn=arn)["Status"])]
        except ClientError as error:
            if not is_missing(error):
                raise
            text = f"{arn!r} does not exist. Create it, or fix DARKROOM_MLFLOW_URI."
            return [Finding(_MLFLOW_SERVER, "problem", text)]

    return survive(check, subject=_MLFLOW_SERVER, action=f"sagemaker:{action}")


def _state(arn: str, *, status: str) -> Finding:
    if status in _AWAKE:
        return Finding(_MLFLOW_SERVER, "ok", f"{arn} is {status.lower()}.")
    text = f"{arn!r} is {status!r}. Start it (aws sagemaker start-mlflow-tracking-server) or wait."
    return Finding(_MLFLOW_SERVER, "problem", text)


# --- roles ---
# The roles that jobs and endpoints run under: do they exist, and may SageMaker take them?

SERVICE = "sagemaker.amazonaws.com"
_ROLE = re.compile(r"arn:(aws[a-z-]*):iam::(?P<account>\d{12}):role/(?:.+/)?(?P<name>[\w+=,.@-]+)")


def check_role(arn: str, *, subject: str, caller: Caller, iam: "IAMClient") -> list[Finding]:
    """Check the form, account, existence and trust of a role.

    Args:
        subject: what the findings are headed with.
        caller: whose account the role must belong to.
    """
    parts = _ROLE.fullmatch(arn)
    if not parts:
        text = f"{arn!r} is no role's ARN. It looks like arn:aws:iam::123456789012:role/NAME."
        return [Finding(subject, "problem", text)]
    if parts["account"] != caller.account:
        text = (
            f"{arn!r} belongs to another account than the credentials ({caller.account}). "
            "Name a role of that account, or use its credentials (AWS_PROFILE)."
        )
        return [Finding(subject, "problem", text)]
    name = parts["name"]
    return survive(
        lambda: _existence(name, arn=arn, subject=subject, iam=iam),
        subject=subject,
        action="iam:GetRole",
    )


def _existence(name: str, *, arn: str, subject: str, iam: "IAMClient") -> list[Finding]:
    try:
        role = iam.get_role(RoleName=name)["Role"]
    except iam.exceptions.NoSuchEntityException:
        text = f"the role {name!r} does not exist. Deploy infrastructure/darkroom.yaml."
        return [Finding(subject, "problem", text)]
    if role["Arn"] != arn:
        text = f"{arn!r} does not exist; the role of that name is {role['Arn']!r}. Use that ARN."
        return [Finding(subject, "problem", text)]
    if not trusts(role.get("AssumeRolePolicyDocument", {}), service=SERVICE):
        text = (
            f"SageMaker may not assume {name!r}: let its trust policy allow sts:AssumeRole to the "
            f"service {SERVICE} (infrastructure/iam/trust.json)."
        )
        return [Finding(subject, "problem", text)]
    return [Finding(subject, "ok", f"{name} exists, and SageMaker may assume it.")]


def trusts(policy: object, *, service: str) -> bool:
    """Whether a trust policy, as a dict, lets a service assume the role."""
    statements = policy.get("Statement", []) if isinstance(policy, dict) else []
    return any(_allows(statement, service=service) for statement in _listed(statements))


def _allows(statement: dict[str, Any], *, service: str) -> bool:
    principal = statement.get("Principal", {})
    services = _listed(principal.get("Service", []) if isinstance(principal, dict) else principal)
    actions = {str(action).lower() for action in _listed(statement.get("Action", []))}
    return (
        statement.get("Effect") == "Allow"
        and bool({service, "*"} & set(services))
        and bool({"sts:assumerole", "sts:*", "*"} & actions)
    )


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def check_passing(arn: str, *, subject: str, caller: Caller, iam: "IAMClient") -> list[Finding]:
    """Whether the caller may hand the role to SageMaker (iam:PassRole), by IAM's simulator.

    Args:
        arn: of the role.
        subject: what the role is called in the finding.
        caller: whose policies are simulated; the root user is not checked.
    """
    if caller.is_root:
        return []
    subject = f"passing of the {subject}"

    def check() -> list[Finding]:
        denied = denied_actions(
            ["iam:PassRole"], source=caller.principal, resource=arn, service=SERVICE, iam=iam
        )
        if denied:
            text = (
                f"{caller.arn!r} may not pass {arn!r} to SageMaker: allow it iam:PassRole on that "
                "role (infrastructure/iam/client.json)."
            )
            return [Finding(subject, "problem", text)]
        return [Finding(subject, "ok", "allowed by the caller's policies (iam:PassRole).")]

    return survive(check, subject=subject, action="iam:SimulatePrincipalPolicy")


def denied_actions(
    actions: Sequence[str],
    *,
    source: str,
    resource: str,
    iam: "IAMClient",
    service: str = "",
    context: Mapping[str, str] | None = None,
) -> list[str]:
    """Those that the policies of `source` (a user's or role's ARN) do not allow.

    Args:
        service: that a role is passed to; empty: none is.
        context: what else a real request would carry, by the name of its condition key.

    Raises:
        botocore.exceptions.ClientError: the simulator may not be used, or knows no `source`.
    """
    known = ({"iam:PassedToService": service} if service else {}) | dict(context or {})
    answer = iam.simulate_principal_policy(
        PolicySourceArn=source,
        ActionNames=list(actions),
        ResourceArns=[resource],
        ContextEntries=[
            {"ContextKeyName": name, "ContextKeyValues": [value], "ContextKeyType": "string"}
            for name, value in known.items()
        ],
    )
    results = answer["EvaluationResults"]
    return [r["EvalActionName"] for r in results if r["EvalDecision"] != "allowed"]


# --- permissions ---
# Whether the execution role may do what the jobs do, by IAM's policy simulator.

_SUBJECT = "permissions of the execution role"
_JOBS = {
    "training-job": ["sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob"],
    "hyper-parameter-tuning-job": ["sagemaker:CreateHyperParameterTuningJob"],
    "transform-job": ["sagemaker:CreateTransformJob"],
    "endpoint": ["sagemaker:CreateEndpoint", "sagemaker:InvokeEndpoint"],
}
"""A sample of what the orchestration job starts; its policy allows more."""


def check_execution_role(
    site: SageMakerContext, *, caller: Caller, iam: "IAMClient"
) -> list[Finding]:
    """Storage, jobs and the roles that it hands on: what it lacks, each with the resource."""

    def check() -> list[Finding]:
        lacking = [
            f"{action} on {resource}"
            for resource, actions in _needed(site, account=caller.account).items()
            for action in denied_actions(
                actions,
                source=site.role,
                resource=resource,
                iam=iam,
                service=SERVICE if "iam:PassRole" in actions else "",
                context=_context(site),
            )
        ]
        if lacking:
            text = (
                f"the execution role lacks {'; '.join(lacking)}. Give it the policy "
                "infrastructure/iam/execution-role.json."
            )
            return [Finding(_SUBJECT, "problem", text)]
        return [Finding(_SUBJECT, "ok", "a sample of what it needs is allowed.")]

    return survive(check, subject=_SUBJECT, action="iam:SimulatePrincipalPolicy")


def _context(site: SageMakerContext) -> dict[str, str]:
    """What a request carries: listing is below our prefix, what is changed has our tag."""
    prefix = site.root.removeprefix("s3://").partition("/")[2]
    return {
        "s3:prefix": f"{prefix}/probe" if prefix else "probe",
        "aws:ResourceTag/darkroom:run": "probe",
    }


def _needed(site: SageMakerContext, *, account: str) -> dict[str, list[str]]:
    """Actions by the ARN that they are asked about."""
    partition = site.role.split(":")[1]
    sagemaker = f"arn:{partition}:sagemaker:{site.region}:{account}"
    place = site.root.removeprefix("s3://")
    return {
        f"arn:{partition}:s3:::{place}/probe": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
        f"arn:{partition}:s3:::{place.split('/')[0]}": ["s3:ListBucket"],
        **{f"{sagemaker}:{kind}/darkroom-probe": actions for kind, actions in _JOBS.items()},
        **{role: ["iam:PassRole"] for role in (site.role, site.hosting_role)},
    }
