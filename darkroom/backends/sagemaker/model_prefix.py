"""The archives of an endpoint with several models: what lies below its prefix is what it serves.

    <root>/models/several/<endpoint>/<name>.tar.gz      asked for by TargetModel=<name>.tar.gz

https://docs.aws.amazon.com/sagemaker/latest/dg/multi-model-endpoints.html
"""

from typing import Any

from botocore.exceptions import ClientError

from darkroom.backends.s3_listing import S3Address
from darkroom.backends.sagemaker.aws_errors import is_missing
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.site import Site

ENDING = ".tar.gz"


def prefix_of_models(endpoint: str, *, site: Site) -> str:
    """s3:// URI, with a slash at its end."""
    return site.uri("models", "several", endpoint, "")


def archive_of(name: str, *, prefix: str) -> str:
    """s3:// URI of a model's archive."""
    return f"{prefix}{target_of(name)}"


def target_of(name: str) -> str:
    """What a request names as its TargetModel."""
    return f"{name}{ENDING}"


def list_models(prefix: str, *, clients: Clients) -> list[str]:
    """Names of the models below a prefix.

    Raises:
        botocore.exceptions.ClientError: S3 refuses.
    """
    place = S3Address.parse(prefix)
    pages = clients.s3.get_paginator("list_objects_v2").paginate(
        Bucket=place.bucket, Prefix=place.prefix
    )
    keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
    return sorted(
        key.removeprefix(place.prefix).removesuffix(ENDING) for key in keys if key.endswith(ENDING)
    )


def models_behind(model: str, *, clients: Clients) -> tuple[list[str], str] | None:
    """Names of the models that a model of SageMaker's stands for, and their prefix.

    None: it stands for itself alone.

    Raises:
        botocore.exceptions.ClientError: AWS refuses.
    """
    container = _container(model, clients=clients) if model else {}
    if container.get("Mode") != "MultiModel":
        return None
    prefix = f"{container['ModelDataUrl'].rstrip('/')}/"
    return list_models(prefix, clients=clients), prefix


def _container(model: str, *, clients: Clients) -> dict[str, Any]:
    try:
        found = clients.sagemaker.describe_model(ModelName=model)
    except ClientError as error:
        if not is_missing(error):
            raise
        return {}
    return dict(found.get("PrimaryContainer", {}))
