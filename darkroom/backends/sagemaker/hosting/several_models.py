"""Several bundles behind one SageMaker endpoint: deployed, joined by others, verified, removed.

A model is an archive below the endpoint's prefix, and is added by its upload alone. What lies
there is never replaced while the endpoint serves: an instance that has a model in memory goes
on answering with it.
https://docs.aws.amazon.com/sagemaker/latest/dg/add-models-to-endpoint.html
"""

from collections.abc import Collection, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from darkroom.backends.endpoint import (
    Endpoint,
    EndpointCheck,
    EndpointError,
    Expectation,
    InferenceClient,
    compare_answers,
    require_agreement,
    require_one_of,
)
from darkroom.backends.sagemaker.archives import content_of, publish_at, stored_content
from darkroom.backends.sagemaker.hosting.client import client_of
from darkroom.backends.sagemaker.hosting.deployment import Deployment
from darkroom.backends.sagemaker.hosting.endpoint import bring
from darkroom.backends.sagemaker.hosting.resources import names_of_several
from darkroom.backends.sagemaker.hosting.rollback import accept, undo
from darkroom.backends.sagemaker.hosting.state import describe, first_variant
from darkroom.backends.sagemaker.retry import Pause, Retrier, sleep
from darkroom.backends.sagemaker.session import (
    Clients,
    SageMakerContext,
    aws_errors_explained,
    is_missing,
)
from darkroom.backends.storage.listing import S3Address
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.progress import SILENT, Progress
from darkroom.config import START_TIMEOUT_SECONDS
from darkroom.config.sagemaker import several_models_problems
from darkroom.models.bundle import Bundle

# --- model prefix ---
# The archives of an endpoint with several models: what lies below its prefix is what it serves.
#
# <root>/models/several/<endpoint>/<name>.tar.gz      asked for by TargetModel=<name>.tar.gz
#
# https://docs.aws.amazon.com/sagemaker/latest/dg/multi-model-endpoints.html

ENDING = ".tar.gz"


def prefix_of_models(endpoint: str, *, site: SageMakerContext) -> str:
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


# --- several models ---


def deploy_several(
    bundles: Mapping[str, Bundle],
    *,
    name: str,
    site: SageMakerContext,
    clients: Clients,
    start_timeout_seconds: float = START_TIMEOUT_SECONDS,
    progress: Progress = SILENT,
    pause: Pause = sleep,
) -> Endpoint:
    """Serve bundles under their names, beside those that the endpoint serves already.

    Args:
        bundles: by the name of each model; a request says `<name>.tar.gz`.
        name: of the endpoint, where the configuration names none.
        start_timeout_seconds: for the download of a model, and again until /ping is answered.

    Raises:
        UserError: the configuration does not allow several models, one of the names stands for
            another bundle, the endpoint is not Darkroom's, or AWS refuses.
        EndpointError: it did not come into service; it was removed, or serves what it did.
    """
    if problems := several_models_problems(site.config):
        raise UserError(problems)
    names = names_of_several(name=name, site=site, start_timeout_seconds=start_timeout_seconds)
    prefix = prefix_of_models(names.endpoint, site=site)
    with aws_errors_explained(f"endpoint {names.endpoint!r}"):
        _make_room(bundles, endpoint=names.endpoint, prefix=prefix, clients=clients)
    for model, bundle in bundles.items():
        uri = archive_of(model, prefix=prefix)
        publish_at(uri, bundle=bundle, site=site, clients=clients, progress=progress)
    deployment = Deployment(
        names,
        version="",
        keep=True,
        start_timeout_seconds=start_timeout_seconds,
        site=site,
        clients=clients,
        pause=pause,
    )
    return bring(deployment, archive=prefix, progress=progress)


def verify_several(
    endpoint: Endpoint,
    *,
    expected: Mapping[str, Expectation],
    tolerance: float,
    clients: Clients,
    progress: Progress = SILENT,
    pause: Pause = sleep,
) -> dict[str, EndpointCheck]:
    """Ask each model, and accept what agrees; a model that does not is removed.

    Raises:
        EndpointError: models disagree, or do not answer. An endpoint that was changed for them
            serves what it did; a new one of which no model agrees was removed.
    """
    checks: dict[str, EndpointCheck] = {}
    wrong: dict[str, str] = {}
    for model, wanted in expected.items():
        try:
            answering = client_of(
                str(endpoint.name), clients=clients, target_model=target_of(model), pause=pause
            )
            checks[model] = _check(answering, wanted=wanted, tolerance=tolerance)
        except DarkroomError as error:
            wrong[model] = str(error)
    if not wrong:
        accept(endpoint, clients=clients, pause=pause)
        return checks
    done = _take_back(
        endpoint, wrong=wrong, right=checks, clients=clients, progress=progress, pause=pause
    )
    reasons = "; ".join(f"model {model!r}: {reason}" for model, reason in wrong.items())
    raise EndpointError(f"endpoint {endpoint.name!r}: {reasons}; {done}")


def remove_model(model: str, *, endpoint: str, clients: Clients, pause: Pause = sleep) -> None:
    """Take one model from an endpoint with several.

    An instance that has it in memory may go on answering until it needs the room.

    Raises:
        UserError: no such endpoint or model, or it is the only one.
        DarkroomError: AWS cannot be asked.
    """
    patient = Retrier(clients, what=f"endpoint {endpoint!r}", pause=pause)
    found = patient.ask(lambda renewed: _models_of(endpoint, clients=renewed))
    if found is None:
        raise UserError(f"the endpoint {endpoint!r} does not exist, or has one model alone")
    names, prefix = found
    require_one_of(model, models=names, endpoint=endpoint)
    patient.ask(lambda renewed: _delete([model], prefix=prefix, clients=renewed))


def target_problem(target: str, *, endpoint: str, clients: Clients) -> str:
    """Why no model of an endpoint is called by `target`; '': one is, or nobody can tell.

    Args:
        target: what requests name, such as "dogs.tar.gz"; '': nothing.
    """
    try:
        found = _models_of(endpoint, clients=clients)
    except (ClientError, BotoCoreError):  # may not be asked: SageMaker's own words will do
        return ""
    if found is None:
        alone = f"the endpoint {endpoint!r} has one model alone: leave out --target-model"
        return f"{alone} {target!r}" if target else ""
    known = ", ".join(map(target_of, found[0])) or "none"
    if not target:
        return f"the endpoint {endpoint!r} needs --target-model, one of: {known}"
    has_it = target in map(target_of, found[0])
    return "" if has_it else f"the endpoint {endpoint!r} has no model {target!r}; it has {known}"


def _make_room(
    bundles: Mapping[str, Bundle], *, endpoint: str, prefix: str, clients: Clients
) -> None:
    """Refuse to replace what is served; clear away what an endpoint of this name once left."""
    if _models_of(endpoint, clients=clients) is None:
        left = [name for name in list_models(prefix, clients=clients) if name not in bundles]
        _delete(left, prefix=prefix, clients=clients)
        return
    taken = [
        f"the endpoint {endpoint!r} has another model {name!r}, and instances may go on answering "
        f"with it: give the new one another name, then remove the old one "
        f"(run.py down {endpoint} --model {name} --stack sagemaker)"
        for name, bundle in bundles.items()
        if stored_content(archive_of(name, prefix=prefix), clients=clients)
        not in (None, content_of(bundle))
    ]
    if taken:
        raise UserError(taken)


def _models_of(endpoint: str, *, clients: Clients) -> tuple[list[str], str] | None:
    """Names of the models that an endpoint serves, and their prefix; None: it serves not several.

    Raises:
        botocore.exceptions.ClientError: AWS refuses.
    """
    state = describe(endpoint, clients=clients)
    if state is None:
        return None
    model = first_variant(state.configuration, clients=clients).get("ModelName", "")
    return models_behind(model, clients=clients)


def _check(answering: InferenceClient, *, wanted: Expectation, tolerance: float) -> EndpointCheck:
    check = compare_answers(
        answering,
        images=wanted.images,
        expected=wanted.probabilities,
        classes=wanted.classes,
        tolerance=tolerance,
    )
    require_agreement(check, tolerance=tolerance)
    return check


def _take_back(
    endpoint: Endpoint,
    *,
    wrong: Collection[str],
    right: Collection[str],
    clients: Clients,
    progress: Progress,
    pause: Pause,
) -> str:
    """Undo as little as will do; what was done, for a message."""
    was_changed = endpoint.previous not in (None, endpoint.configuration)
    if was_changed or (endpoint.previous is None and not right):
        return undo(endpoint, clients=clients, progress=progress, pause=pause)
    found = _models_of(str(endpoint.name), clients=clients)
    if found:
        _delete(wrong, prefix=found[1], clients=clients)
    accept(endpoint, clients=clients, pause=pause)
    return "they were removed, the others serve"


def _delete(names: Collection[str], *, prefix: str, clients: Clients) -> None:
    for name in names:
        place = S3Address.parse(archive_of(name, prefix=prefix))
        clients.s3.delete_object(Bucket=place.bucket, Key=place.key)
