"""Which operations of AWS our code calls, read from its syntax tree; and who reaches which code."""

import ast
from functools import cache

import botocore.session
from botocore import xform_name

from checkout import CHECKOUT

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


def called_actions(tree: ast.AST) -> set[frozenset[str]]:
    """The IAM actions that the calls below a node need.

    Where the name of the client does not tell the service, the actions of all services
    that have such an operation, of which one is meant.
    """
    return {actions for node in ast.walk(tree) if (actions := _actions_of(node))}


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


Definition = tuple[str, str]
"""A module and the name that it gives to a function, class or value."""


class Code:
    """The definitions of a folder's modules, and what each of them uses of the others."""

    def __init__(self, folder: str) -> None:
        modules = {
            ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__"): (
                ast.parse(path.read_text(encoding="utf-8"))
            )
            for path in (CHECKOUT / folder).rglob("*.py")
        }
        self._modules = set(modules)
        self.definitions: dict[Definition, list[ast.stmt]] = {}
        for module, tree in modules.items():
            for statement in tree.body:
                for name in _defined(statement):
                    self.definitions.setdefault((module, name), []).append(statement)
        self._imported = {module: self.imported_by(tree) for module, tree in modules.items()}

    def imported_by(self, tree: ast.AST) -> dict[str, Definition]:
        """What a module's imports, in functions too, name; a module as a whole has no name."""
        found = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    is_module = whole in self._modules
                    name = (whole, "") if is_module else (node.module, alias.name)
                    if name[0] in self._modules:
                        found[alias.asname or alias.name] = name
        return found

    def reached_from(self, *folders: str) -> set[Definition]:
        """What the files of other folders use, directly or not."""
        paths = [path for folder in folders for path in (CHECKOUT / folder).rglob("*.py")]
        trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
        waiting = {name for t in trees for name in self._used(t, names=self.imported_by(t))}
        found: set[Definition] = set()
        while waiting:
            definition = waiting.pop()
            found.add(definition)
            module = definition[0]
            own = {name: (where, name) for where, name in self.definitions if where == module}
            for statement in self.definitions[definition]:
                waiting |= self._used(statement, names=own | self._imported[module]) - found
        return found

    def _used(self, tree: ast.AST, *, names: dict[str, Definition]) -> set[Definition]:
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in names:
                found.add(names[node.id])
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found.add((names.get(node.value.id, ("", ""))[0], node.attr))
        return found & self.definitions.keys()


def _defined(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        return [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and _is_set(n)]
    return []


def _is_set(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)
