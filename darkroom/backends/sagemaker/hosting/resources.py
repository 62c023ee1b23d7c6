"""Names of what hosts a model, such that a deployment is found again; and its deletion."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from botocore.exceptions import ClientError

from darkroom.backends.sagemaker.hosting.request import (
    alarm_names,
    environment,
    scalable,
    waking_alarm_name,
)
from darkroom.backends.sagemaker.hosting.state import first_variant, wait_until_steady
from darkroom.backends.sagemaker.retry import Pause, Retrier, sleep
from darkroom.backends.sagemaker.session import Clients, SageMakerContext, is_missing
from darkroom.backends.storage.access import error_code
from darkroom.base.progress import SILENT, Progress
from darkroom.base.values import digest_of
from darkroom.models.bundle import BundleMetadata

# --- hosting names ---

_LONGEST = 63
_DIGITS = 16
_OTHERS = re.compile(r"[^a-zA-Z0-9]+")
_ELSEWHERE = {"name", "rollout", "time_to_live_hours", "approve"}
"""Of the hosting section: what is no part of an endpoint configuration."""


@dataclass(frozen=True)
class HostingNames:
    """Of one deployment."""

    endpoint: str
    model: str
    configuration: str


def hosting_names(
    metadata: BundleMetadata,
    *,
    name: str,
    keep: bool,
    site: SageMakerContext,
    start_timeout_seconds: float,
) -> HostingNames:
    """The names for a bundle.

    Args:
        name: of the model; the endpoint's where the configuration names none.
        keep: whether the endpoint stays; else it gets a name of its own.
        start_timeout_seconds: which the endpoint configuration states.
    """
    if keep:
        endpoint = clean(site.config.hosting.name or name)
    else:
        suffix = f"-check-{metadata.version}"
        endpoint = clean(name, longest=_LONGEST - len(suffix)) + suffix
    content: list[object] = [endpoint, _hosted(metadata, site=site)]
    return HostingNames(
        endpoint=endpoint,
        model=_digested(endpoint, content=content),
        configuration=_digested(
            endpoint, content=[*content, *_variant(site, start_timeout_seconds)]
        ),
    )


def names_of_several(
    *, name: str, site: SageMakerContext, start_timeout_seconds: float
) -> HostingNames:
    """The names of an endpoint with several models, whichever they are: more may be added."""
    endpoint = clean(site.config.hosting.name or name)
    content: list[object] = [endpoint, "several", *_place(site)]
    cache = site.config.hosting.multi_model.model_dump()
    return HostingNames(
        endpoint=endpoint,
        model=_digested(endpoint, content=[*content, cache]),
        configuration=_digested(
            endpoint, content=[*content, *_variant(site, start_timeout_seconds)]
        ),
    )


def clean(name: str, *, longest: int = _LONGEST) -> str:
    """Letters, digits and single hyphens, as SageMaker's names want it."""
    return _OTHERS.sub("-", name).strip("-")[:longest].strip("-")


def prefix_of(endpoint: str) -> str:
    """What the names of an endpoint's models and configurations begin with."""
    return clean(endpoint, longest=_LONGEST - 1 - _DIGITS)


def _hosted(metadata: BundleMetadata, *, site: SageMakerContext) -> list[object]:
    return [metadata.files, *metadata.compiled_for, *_place(site)]


def _place(site: SageMakerContext) -> list[object]:
    """What else AWS cannot change in a model."""
    variables = environment(site.config.hosting)
    network = site.config.network.model_dump()
    return [site.image, site.hosting_role, network, *([variables] if variables else [])]


def _variant(site: SageMakerContext, start_timeout_seconds: float) -> list[object]:
    """What else AWS cannot change in an endpoint configuration."""
    settings = site.config.hosting.model_dump(exclude=_ELSEWHERE)
    timed = [] if site.config.hosting.kind == "serverless" else [start_timeout_seconds]
    return [settings, site.config.kms_key, *timed]


def _digested(name: str, *, content: list[object]) -> str:
    return f"{prefix_of(name)}-{digest_of(content)[:_DIGITS]}"


# --- deletion ---
# Deleting what serves a model: each is fine with what is gone already.

_NO_TARGET = "ObjectNotFoundException"
"""Application Auto Scaling's word for what is not registered."""


def delete_endpoint(
    name: str, *, clients: Clients, progress: Progress = SILENT, pause: Pause = sleep
) -> None:
    """Delete an endpoint with its scaling and its alarms, and wait until it is gone.

    One that is being created or updated is waited for: AWS refuses to delete it before.

    Raises:
        UserError, DarkroomError: AWS refuses, or cannot be asked.
    """
    stop_scaling(name, clients=clients)
    if not _deleted(name, clients=clients):
        wait_until_steady(name, clients=clients, progress=progress, pause=pause)
        _delete(
            f"endpoint {name!r}",
            lambda renewed: renewed.sagemaker.delete_endpoint(EndpointName=name),
            clients=clients,
        )
    wait_until_steady(name, clients=clients, progress=progress, pause=pause)
    delete_alarms(name, clients=clients)


def delete_configuration(name: str, *, clients: Clients) -> None:
    """Delete an endpoint configuration."""
    _delete(
        f"endpoint configuration {name!r}",
        lambda renewed: renewed.sagemaker.delete_endpoint_config(EndpointConfigName=name),
        clients=clients,
    )


def delete_model(name: str, *, clients: Clients) -> None:
    """Delete a model of SageMaker hosting; its archive on S3 stays."""
    _delete(
        f"model {name!r}",
        lambda renewed: renewed.sagemaker.delete_model(ModelName=name),
        clients=clients,
    )


def delete_alarms(endpoint: str, *, clients: Clients) -> None:
    """Delete the alarms of an endpoint."""
    # One by one: AWS may delete none of several if one of them is not there.
    for name in (*alarm_names(endpoint), waking_alarm_name(endpoint)):
        _delete(
            f"alarm {name!r}",
            partial(_delete_alarm, name=name),
            clients=clients,
        )


def stop_scaling(endpoint: str, *, clients: Clients) -> None:
    """Deregister an endpoint from Application Auto Scaling, its policies with it."""
    _delete(
        f"scaling of endpoint {endpoint!r}",
        lambda renewed: renewed.autoscaling.deregister_scalable_target(**scalable(endpoint)),
        clients=clients,
    )


def stop_scaling_between(before: str, after: str, *, endpoint: str, clients: Clients) -> None:
    """Stop it where an update changes the machines: AWS refuses that for what scales.

    https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-update.html

    Args:
        before: the configuration that serves.
        after: the one that is to serve.
    """
    patient = Retrier(clients, what=f"endpoint {endpoint!r}")
    machines = [
        patient.ask(partial(_machine_of, configuration)) for configuration in (before, after)
    ]
    if machines[0] != machines[1]:
        stop_scaling(endpoint, clients=clients)


def _machine_of(configuration: str, clients: Clients) -> str | None:
    return first_variant(configuration, clients=clients).get("InstanceType")


def _delete_alarm(clients: Clients, *, name: str) -> None:
    clients.cloudwatch.delete_alarms(AlarmNames=[name])


def _deleted(name: str, *, clients: Clients) -> bool:
    """Whether the endpoint is gone or going; False: AWS refuses while it changes."""

    def attempt(renewed: Clients) -> bool:
        try:
            renewed.sagemaker.delete_endpoint(EndpointName=name)
        except ClientError as error:
            if is_missing(error):
                return True
            if error_code(error) == "ValidationException":
                return False
            raise
        return True

    return Retrier(clients, what=f"endpoint {name!r}").ask(attempt)


def _delete(what: str, call: Callable[[Clients], object], *, clients: Clients) -> None:
    def attempt(renewed: Clients) -> None:
        try:
            call(renewed)
        except ClientError as error:
            if not (is_missing(error) or error_code(error) == _NO_TARGET):
                raise

    Retrier(clients, what=what).ask(attempt)
