"""The endpoints that Darkroom has in an account: what they run on, cost, and until when."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from darkroom.backends.sagemaker.aws_errors import aws_errors_explained
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.endpoint_state import describe, describe_configuration
from darkroom.backends.sagemaker.model_prefix import models_behind
from darkroom.backends.sagemaker.prices import hourly_price
from darkroom.backends.sagemaker.tagged import Thing, tagged

Price: TypeAlias = Callable[[str, str], float | None]
"""USD for one instance and hour of hosting, from instance type and region; None: unknown."""
Kind: TypeAlias = Literal["realtime", "serverless", "asynchronous", "multi-model", "unknown"]


class EndpointRow(BaseModel):
    """One endpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    status: str
    kind: Kind
    instance_type: str | None = None
    instances: int | None = None
    """As many as run now."""
    cost_per_hour: float | None = None
    """USD on demand; None: no table knows the price. Serverless costs by request: 0 idle,
    unless concurrency is provisioned."""
    created: datetime | None = None
    expires: datetime | None = None
    """Afterwards `run.py down --expired` removes it."""
    run: str = ""
    model_version: str = ""
    models: tuple[str, ...] = ()
    """The names of several; one alone has none."""

    @property
    def has_expired(self) -> bool:
        """Whether its time to live is over."""
        return self.expires is not None and self.expires <= datetime.now(UTC)


def hosting_price(instance_type: str, region: str) -> float | None:
    """As the dated price table has it."""
    return hourly_price(instance_type, region=region, kind="hosting")


def list_endpoints(
    *, clients: Clients, region: str, price: Price = hosting_price
) -> list[EndpointRow]:
    """All endpoints that carry a tag of Darkroom's, by name.

    Raises:
        UserError, DarkroomError: AWS refuses, or cannot be asked.
    """
    with aws_errors_explained("the list of endpoints"):
        found = tagged("endpoint", clients=clients)
        return [_row(thing, clients=clients, region=region, price=price) for thing in found]


def _row(thing: Thing, *, clients: Clients, region: str, price: Price) -> EndpointRow:
    state = describe(thing.name, clients=clients)
    configuration = describe_configuration(state.configuration, clients=clients) if state else {}
    variant: dict[str, Any] = configuration.get("ProductionVariants", [{}])[0]
    instance_type = variant.get("InstanceType")
    is_queue = "AsyncInferenceConfig" in configuration
    instances = _instances(thing.name, clients=clients, none=is_queue) if instance_type else None
    rate = price(instance_type, region) if instance_type else None
    models = models_behind(variant.get("ModelName", ""), clients=clients)
    return EndpointRow(
        name=thing.name,
        status=state.status if state else "Deleted",
        kind="multi-model" if models is not None else _kind(configuration, variant=variant),
        instance_type=instance_type,
        instances=instances,
        cost_per_hour=_cost(variant, rate=rate, instances=instances),
        created=thing.created,
        expires=_moment(thing.tag("expires")),
        run=thing.tag("run"),
        model_version=thing.tag("version"),
        models=tuple(models[0]) if models else (),
    )


def _instances(name: str, *, clients: Clients, none: bool) -> int | None:
    """As many as run; None: it is not known yet.

    Args:
        none: whether it may be in service without any.
    """
    found = clients.sagemaker.describe_endpoint(EndpointName=name)
    counts = [v.get("CurrentInstanceCount", 0) for v in found.get("ProductionVariants", [])]
    return sum(counts) or (0 if none and counts else None)


def _kind(configuration: dict[str, Any], *, variant: dict[str, Any]) -> Kind:
    if "AsyncInferenceConfig" in configuration:
        return "asynchronous"
    if "ServerlessConfig" in variant:
        return "serverless"
    return "realtime" if variant else "unknown"


def _cost(variant: dict[str, Any], *, rate: float | None, instances: int | None) -> float | None:
    if "ServerlessConfig" in variant:
        return None if variant["ServerlessConfig"].get("ProvisionedConcurrency") else 0.0
    # Instances that are on their way are paid too: as many as were asked for.
    wanted = int(variant.get("InitialInstanceCount", 1))
    return None if rate is None else rate * (wanted if instances is None else instances)


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
