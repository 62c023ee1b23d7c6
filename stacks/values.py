"""The values that a remote stack needs, and where they come from.

For the SageMaker stack: the environment, or stacks/sagemaker.env, a file of NAME=value lines
that git ignores. For the rehearsal: the stand-in that runs, see rehearsal/session.py.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from darkroom.base.errors import UserError

SAGEMAKER_FILE = Path(__file__).resolve().parent / "sagemaker.env"
MANAGED_MLFLOW = "darkroom_managed_mlflow"
"""The flavor of a tracker that is named by its ARN: stacks/managed_mlflow.py."""

_REQUIRED = {
    "AWS_REGION": "the region, such as eu-west-1",
    "DARKROOM_ROLE_ARN": "ARN of the execution role",
    "DARKROOM_S3_ROOT": "s3://bucket/prefix that everything lies under",
    "DARKROOM_ECR_REGISTRY": "ACCOUNT.dkr.ecr.REGION.amazonaws.com",
    "DARKROOM_MLFLOW_URI": "http(s) address of an MLflow server, or ARN of a managed one",
    "ZENML_STORE_URL": "https address of the ZenML server, reachable from SageMaker",
}
_OPTIONAL = ("DARKROOM_MLFLOW_TOKEN", "DARKROOM_ENDPOINT_ROLE_ARN", "DARKROOM_IMAGE")


@dataclass(frozen=True)
class Addresses:
    """Servers that a remote stack needs."""

    zenml: str
    mlflow: str


def load_values(stack: str, *, file: Path = SAGEMAKER_FILE) -> Addresses:
    """Put the values of the SageMaker stack into this process's environment, and check them.

    What the environment says goes before the file.

    Raises:
        UserError: naming every value that is missing, unknown or malformed.
    """
    if stack == "sagemaker":
        for name, value in _read(file).items():
            os.environ.setdefault(name, value)
    _check()
    _derive()
    return Addresses(zenml=os.environ["ZENML_STORE_URL"], mlflow=os.environ["DARKROOM_MLFLOW_URI"])


def _read(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    problems, values = [], {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip().removeprefix("export ")
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            problems.append(f"line {number} of {file.name} is {line!r}; write NAME=value")
        values[name] = value.strip().strip("'\"")
    if problems:
        raise UserError(problems)
    return values


def _check() -> None:
    """All that is missing at once."""
    problems = [
        f"{name} is not set ({meaning}): set it in the environment or in stacks/sagemaker.env; "
        "docs/sagemaker.md says where it comes from"
        for name, meaning in _REQUIRED.items()
        if not os.environ.get(name)
    ]
    root, mlflow = os.environ.get("DARKROOM_S3_ROOT", ""), os.environ.get("DARKROOM_MLFLOW_URI", "")
    if root and not root.startswith("s3://"):
        problems.append(f"DARKROOM_S3_ROOT is {root!r}; it must be s3://bucket/prefix")
    if mlflow and not mlflow.startswith(("http://", "https://", "arn:")):
        problems.append(f"DARKROOM_MLFLOW_URI is {mlflow!r}; it must be http(s):// or an ARN")
    if mlflow.startswith("http") and not os.environ.get("DARKROOM_MLFLOW_TOKEN"):
        problems.append("DARKROOM_MLFLOW_TOKEN is not set; a server by http(s) needs a token")
    if problems:
        raise UserError(problems)


def _derive() -> None:
    """What follows from the values that a person gives."""
    for name in _OPTIONAL:
        os.environ.setdefault(name, "")
    root = os.environ["DARKROOM_S3_ROOT"].rstrip("/")
    managed = os.environ["DARKROOM_MLFLOW_URI"].startswith("arn:")
    project = os.environ.setdefault("DARKROOM_CODEBUILD_PROJECT", "")
    os.environ |= {
        "DARKROOM_S3_ROOT": root,
        "DARKROOM_BUCKET": root.removeprefix("s3://").split("/")[0],
        "DARKROOM_MLFLOW_FLAVOR": MANAGED_MLFLOW if managed else "mlflow",
        "DARKROOM_IMAGE_BUILDER": "aws" if project else "local",
        "AWS_DEFAULT_REGION": os.environ["AWS_REGION"],
        "ZENML_STORE_TYPE": "rest",
        # ZenML's SDK and ours say nothing of their own on the terminal.
        "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
    }
