"""Taking a deployment back: the model before serves again, or the endpoint is removed."""

from darkroom.backends.endpoint import Endpoint, EndpointError
from darkroom.backends.sagemaker.hosting.request import return_request
from darkroom.backends.sagemaker.hosting.resources import (
    delete_configuration,
    delete_endpoint,
    delete_model,
    prefix_of,
    stop_scaling_between,
)
from darkroom.backends.sagemaker.hosting.state import (
    ACCEPTED,
    failure,
    poll_endpoint,
    wait_until_steady,
)
from darkroom.backends.sagemaker.resources import Resource, Tag, tagged, tags_at
from darkroom.backends.sagemaker.retry import Pause, Retrier, sleep
from darkroom.backends.sagemaker.session import Clients, aws_errors_explained
from darkroom.base.progress import SILENT, Progress

# --- what an endpoint leaves behind ---
# What an endpoint leaves behind as it changes: configurations and models of its own.


def delete_dependents(endpoint: str, *, clients: Clients, keep: str | None = None) -> None:
    """Delete the configurations and models that were created for an endpoint.

    Args:
        keep: the configuration that serves; it stays, and so does its model.
    """
    prefix = prefix_of(endpoint)
    what = f"endpoint {endpoint!r}"
    found = Retrier(clients, what=what).ask(
        lambda c: [
            *tagged("endpoint configuration", clients=c, named=prefix),
            *tagged("model", clients=c, named=prefix),
        ]
    )
    kept = {keep, *_models_of(keep, clients=clients)}
    for thing in found:
        if thing.tag("endpoint") == endpoint and thing.name not in kept:
            _delete(thing, clients=clients)


def _models_of(configuration: str | None, *, clients: Clients) -> list[str]:
    if configuration is None:
        return []
    found = Retrier(clients, what=f"endpoint configuration {configuration!r}").ask(
        lambda c: c.sagemaker.describe_endpoint_config(EndpointConfigName=configuration)
    )
    return [variant.get("ModelName", "") for variant in found["ProductionVariants"]]


def _delete(thing: Resource, *, clients: Clients) -> None:
    delete = delete_model if thing.kind == "model" else delete_configuration
    delete(thing.name, clients=clients)


# --- rollback ---

_OF_THE_MODEL = ("darkroom:run", "darkroom:version")


def undo(
    endpoint: Endpoint, *, clients: Clients, progress: Progress = SILENT, pause: Pause = sleep
) -> str:
    """Take a deployment back that answers wrongly.

    An endpoint that was checked before with the same configuration stays: there is nothing
    to go back to, and somebody may rely on it.

    Returns:
        What was done, for a message.
    """
    name, wrong = _name(endpoint), endpoint.configuration
    if endpoint.temporary or endpoint.previous is None:
        remove_endpoint(endpoint, clients=clients, progress=progress, pause=pause)
        return "it was removed"
    if endpoint.previous == wrong:
        return "it was left as it is: this very configuration was checked before"
    return_to(endpoint.previous, endpoint=name, clients=clients, progress=progress, pause=pause)
    _take_over_tags(name, configuration=endpoint.previous, clients=clients)
    delete_dependents(name, keep=endpoint.previous, clients=clients)
    return "the model before serves again"


def return_to(
    configuration: str,
    *,
    endpoint: str,
    clients: Clients,
    progress: Progress = SILENT,
    pause: Pause = sleep,
) -> None:
    """Serve an earlier configuration again, unless AWS has gone back by itself.

    Raises:
        EndpointError: the endpoint does not come back into service.
    """
    state = poll_endpoint(endpoint, clients=clients, pause=pause)
    if state and state.serves and state.configuration == configuration:
        return
    if state:
        stop_scaling_between(state.configuration, configuration, endpoint=endpoint, clients=clients)
    request = return_request(endpoint, configuration=configuration)
    patient = Retrier(clients, what=f"endpoint {endpoint!r}", pause=pause)
    patient.ask(lambda renewed: renewed.sagemaker.update_endpoint(**request))
    state = wait_until_steady(endpoint, clients=clients, progress=progress, pause=pause)
    if state is None or not state.serves:
        reason = state.reason if state else "it is gone"
        what = f"did not return to the configuration {configuration!r}"
        raise failure(endpoint, what=what, reason=reason, clients=clients)


def accept(endpoint: Endpoint, *, clients: Clients, pause: Pause = sleep) -> None:
    """Note that an endpoint was checked, and delete what it served before."""
    name, configuration = _name(endpoint), str(endpoint.configuration)
    state = poll_endpoint(name, clients=clients, pause=pause)
    if state is None:
        raise EndpointError(f"the endpoint {name!r} is gone")
    arn, tag = state.arn, Tag(Key=ACCEPTED, Value=configuration)
    patient = Retrier(clients, what=f"endpoint {name!r}", pause=pause)
    patient.ask(lambda renewed: renewed.sagemaker.add_tags(ResourceArn=arn, Tags=[tag]))
    delete_dependents(name, keep=configuration, clients=clients)


def remove_endpoint(
    endpoint: Endpoint, *, clients: Clients, progress: Progress = SILENT, pause: Pause = sleep
) -> None:
    """Delete an endpoint and all that belongs to it; fine if it is gone."""
    name = _name(endpoint)
    delete_endpoint(name, clients=clients, progress=progress, pause=pause)
    delete_dependents(name, clients=clients)


def _take_over_tags(name: str, *, configuration: str, clients: Clients) -> None:
    """Say again which run and version it is that serves."""
    with aws_errors_explained(f"endpoint {name!r}"):
        service = clients.sagemaker
        arn = service.describe_endpoint(EndpointName=name)["EndpointArn"]
        found = service.describe_endpoint_config(EndpointConfigName=configuration)
        tags = tags_at(found["EndpointConfigArn"], clients=clients)
        ours = [Tag(Key=key, Value=tags[key]) for key in _OF_THE_MODEL if key in tags]
        service.add_tags(ResourceArn=arn, Tags=ours)


def _name(endpoint: Endpoint) -> str:
    if endpoint.name is None:
        raise EndpointError("this is a local endpoint, not one of SageMaker")
    return endpoint.name
