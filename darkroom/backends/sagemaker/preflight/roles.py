"""The roles that jobs and endpoints run under: do they exist, and may SageMaker take them?"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from darkroom.backends.sagemaker.preflight.account import Caller
from darkroom.backends.sagemaker.preflight.findings import Finding, survive

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient

SERVICE = "sagemaker.amazonaws.com"
_ROLE = re.compile(r"arn:(aws[a-z-]*):iam::(?P<account>\d{12}):role/(?:.+/)?(?P<name>[\w+=,.@-]+)")


def check_role(arn: str, *, subject: str, caller: Caller, iam: "IAMClient") -> list[Finding]:
    """Form, account, existence and trust of a role."""
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
    """Whether the caller may hand the role to SageMaker (iam:PassRole), by IAM's simulator."""
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
