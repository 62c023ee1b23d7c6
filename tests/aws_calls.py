"""Which operations of AWS a source file calls, read from its syntax tree."""

import ast
from functools import cache
from pathlib import Path

import botocore.session
from botocore import xform_name

SERVICES = {
    "application-autoscaling": "application-autoscaling",
    "cloudwatch": "cloudwatch",
    "ecr": "ecr",
    "iam": "iam",
    "logs": "logs",
    "pricing": "pricing",
    "s3": "s3",
    "sagemaker": "sagemaker",
    "sagemaker-runtime": "sagemaker",
    "service-quotas": "servicequotas",
    "sts": "sts",
}
"""boto3's name of a service, and its prefix in IAM's actions."""

CLIENT_NAMES = {
    "autoscaling": "application-autoscaling",
    "runtime": "sagemaker-runtime",
    "quotas": "service-quotas",
    **{name: name for name in SERVICES},
}
"""What our code calls a client."""

ACTIONS = {
    "s3:HeadObject": "s3:GetObject",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:CopyObject": "s3:PutObject",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
}
"""Operations that an action of another name allows (service authorization reference)."""

TRANSFERS = {
    "upload_file": "s3:PutObject",
    "upload_fileobj": "s3:PutObject",
    "download_file": "s3:GetObject",
    "download_fileobj": "s3:GetObject",
}
"""boto3's own methods of S3's client."""


@cache
def _operations() -> dict[str, dict[str, str]]:
    """Method name to service and action."""
    found: dict[str, dict[str, str]] = {}
    session = botocore.session.get_session()
    for service, prefix in SERVICES.items():
        for operation in session.get_service_model(service).operation_names:
            action = f"{prefix}:{operation}"
            found.setdefault(xform_name(operation), {})[service] = ACTIONS.get(action, action)
    for method, action in TRANSFERS.items():
        found.setdefault(method, {})["s3"] = action
    return found


def called_actions(path: Path) -> set[frozenset[str]]:
    """The IAM actions that a file's calls need.

    Where the name of the client does not tell the service, the actions of all services
    that have such an operation, of which one is meant.
    """
    return {
        actions
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (actions := _actions_of(node))
    }


def _actions_of(node: ast.AST) -> frozenset[str]:
    if isinstance(node, ast.Attribute):
        return _possible(node.attr, client=_name(node.value))
    if isinstance(node, ast.Call):  # client.get_paginator("list_tags"), call(client, "stop_job")
        client = _name(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        for argument in node.args:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                return _possible(argument.value, client=client)
    return frozenset()


def _possible(method: str, *, client: str) -> frozenset[str]:
    services = _operations().get(method, {})
    if (service := CLIENT_NAMES.get(client)) in services:
        return frozenset({services[service]})
    # A plain word, such as `search`, is a method of much else.
    return frozenset(services.values() if "_" in method else ())


def _name(node: ast.AST) -> str:
    """`sagemaker` of both sagemaker.… and self.clients.sagemaker.…"""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
