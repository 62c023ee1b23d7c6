"""The endpoints that Darkroom has in an account: what they run on, cost, and until when."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from darkroom.backends.sagemaker.aws_errors import aws_errors_explained
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.endpoint_state import describe, first_variant
from darkroom.backends.sagemaker.prices import hourly_price
from darkroom.backends.sagemaker.tagged import Thing, tagged

Price: TypeAlias = Callable[[str, str], float | None]
"""USD for one instance and hour of hosting, from instance type and region; None: unknown."""


class EndpointRow(BaseModel):
    """One endpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    status: str
    kind: Literal["realtime", "serverless", "unknown"]
    instance_type: str | None = None
    instances: int | None = None
    """As many as run now."""
    cost_per_hour: float | None = None
    """USD on demand; None: no table knows the price. Serverless costs by request: 0 idle."""
    created: datetime | None = None
    expires: datetime | None = None
    """Afterwards `run.py down --expired` removes it."""
    run: str = ""
    model_version: str = ""

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
    variant = first_variant(state.configuration, clients=clients) if state else {}
    instance_type = variant.get("InstanceType")
    instances = _instances(thing.name, clients=clients) if instance_type else None
    rate = price(instance_type, region) if instance_type else None
    return EndpointRow(
        name=thing.name,
        status=state.status if state else "Deleted",
        kind=_kind(variant),
        instance_type=instance_type,
        instances=instances,
        cost_per_hour=_cost(variant, rate=rate, instances=instances),
        created=thing.created,
        expires=_moment(thing.tag("expires")),
        run=thing.tag("run"),
        model_version=thing.tag("version"),
    )


def _instances(name: str, *, clients: Clients) -> int | None:
    found = clients.sagemaker.describe_endpoint(EndpointName=name)
    variants = found.get("ProductionVariants", [])
    return sum(variant.get("CurrentInstanceCount", 0) for variant in variants) or None


def _kind(variant: dict[str, str]) -> Literal["realtime", "serverless", "unknown"]:
    if "ServerlessConfig" in variant:
        return "serverless"
    return "realtime" if variant else "unknown"


def _cost(variant: dict[str, str], *, rate: float | None, instances: int | None) -> float | None:
    if "ServerlessConfig" in variant:
        return 0.0
    # Instances that are on their way are paid too: as many as were asked for.
    wanted = int(variant.get("InitialInstanceCount", 1))
    return None if rate is None else rate * (instances or wanted)


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
