"""Whether the execution role may do what the jobs do, by IAM's policy simulator."""

from typing import TYPE_CHECKING

from darkroom.backends.sagemaker.preflight.account import Caller
from darkroom.backends.sagemaker.preflight.findings import Finding, survive
from darkroom.backends.sagemaker.preflight.roles import SERVICE, denied_actions
from darkroom.backends.sagemaker.site import Site

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient

_SUBJECT = "permissions of the execution role"
_JOBS = {
    "training-job": ["sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob"],
    "hyper-parameter-tuning-job": ["sagemaker:CreateHyperParameterTuningJob"],
    "transform-job": ["sagemaker:CreateTransformJob"],
    "endpoint": ["sagemaker:CreateEndpoint", "sagemaker:InvokeEndpoint"],
}
"""A sample of what the orchestration job starts; its policy allows more."""


def check_execution_role(site: Site, *, caller: Caller, iam: "IAMClient") -> list[Finding]:
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


def _context(site: Site) -> dict[str, str]:
    """What a request carries: listing is below our prefix, what is changed has our tag."""
    prefix = site.root.removeprefix("s3://").partition("/")[2]
    return {
        "s3:prefix": f"{prefix}/probe" if prefix else "probe",
        "aws:ResourceTag/darkroom:run": "probe",
    }


def _needed(site: Site, *, account: str) -> dict[str, list[str]]:
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
