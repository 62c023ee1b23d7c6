"""Deleting what serves a model: each is fine with what is gone already."""

from collections.abc import Callable
from functools import partial

from botocore.exceptions import ClientError

from darkroom.backends.aws_access import error_code
from darkroom.backends.sagemaker.aws_errors import is_missing
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.endpoint_state import first_variant, wait_until_steady
from darkroom.backends.sagemaker.following import Patient, Pause, sleep
from darkroom.backends.sagemaker.requests.hosting import alarm_names
from darkroom.backends.sagemaker.requests.scaling import scalable, waking_alarm_name
from darkroom.progress import SILENT, Progress

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
    patient = Patient(clients, what=f"endpoint {endpoint!r}")
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

    return Patient(clients, what=f"endpoint {name!r}").ask(attempt)


def _delete(what: str, call: Callable[[Clients], object], *, clients: Clients) -> None:
    def attempt(renewed: Clients) -> None:
        try:
            call(renewed)
        except ClientError as error:
            if not (is_missing(error) or error_code(error) == _NO_TARGET):
                raise

    Patient(clients, what=what).ask(attempt)
