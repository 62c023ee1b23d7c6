"""What an endpoint leaves behind as it changes: configurations and models of its own."""

from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.following import Patient
from darkroom.backends.sagemaker.hosting_names import prefix_of
from darkroom.backends.sagemaker.removal import delete_configuration, delete_model
from darkroom.backends.sagemaker.tagged import Thing, tagged


def delete_belongings(endpoint: str, *, clients: Clients, keep: str | None = None) -> None:
    """Delete the configurations and models that were created for an endpoint.

    Args:
        keep: the configuration that serves; it stays, and so does its model.
    """
    prefix = prefix_of(endpoint)
    what = f"endpoint {endpoint!r}"
    found = Patient(clients, what=what).ask(
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
    found = Patient(clients, what=f"endpoint configuration {configuration!r}").ask(
        lambda c: c.sagemaker.describe_endpoint_config(EndpointConfigName=configuration)
    )
    return [variant.get("ModelName", "") for variant in found["ProductionVariants"]]


def _delete(thing: Thing, *, clients: Clients) -> None:
    delete = delete_model if thing.kind == "model" else delete_configuration
    delete(thing.name, clients=clients)
