"""SageMaker's own MLflow, named by ARN: does it exist, is it up, is it in reach?"""

import re
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from darkroom.backends.sagemaker.aws_errors import is_missing
from darkroom.backends.sagemaker.preflight.findings import Finding, survive

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient

_SUBJECT = "MLflow server"
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
        return [Finding(_SUBJECT, "problem", text)]
    if parts["region"] != region:
        text = f"{arn!r} lies in {parts['region']}, the jobs would run in {region}. Use one there."
        return [Finding(_SUBJECT, "problem", text)]
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
            return [Finding(_SUBJECT, "problem", text)]

    return survive(check, subject=_SUBJECT, action=f"sagemaker:{action}")


def _state(arn: str, *, status: str) -> Finding:
    if status in _AWAKE:
        return Finding(_SUBJECT, "ok", f"{arn} is {status.lower()}.")
    text = f"{arn!r} is {status!r}. Start it (aws sagemaker start-mlflow-tracking-server) or wait."
    return Finding(_SUBJECT, "problem", text)
