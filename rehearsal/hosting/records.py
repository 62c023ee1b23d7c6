"""What models and endpoints leave in the emulator's records."""

from collections.abc import Iterable, Iterator, Mapping

from rehearsal.emulator.records import STARTUP_SECONDS, Record, recorded
from rehearsal.emulator.state import State, now
from rehearsal.hosting.endpoints import DeletedEndpoint, Endpoint
from rehearsal.hosting.models import EndpointConfig, Model


@recorded
def endpoint_records(state: State) -> Iterable[Record]:
    """A record a variant, of endpoints that exist and of those that are deleted."""
    for deleted in state.kept(DeletedEndpoint).values():
        yield from _variants(deleted.endpoint, tags=deleted.tags)
    for endpoint in state.kept(Endpoint).values():
        yield from _variants(endpoint, tags=state.tags(endpoint.arn))


@recorded
def model_records(state: State) -> Iterable[Record]:
    """Models and endpoint configurations that exist."""
    kinds: dict[str, Iterable[Model | EndpointConfig]] = {
        "model": state.kept(Model).values(),
        "endpoint-config": state.kept(EndpointConfig).values(),
    }
    for kind, things in kinds.items():
        for each in things:
            yield Record(
                kind=kind,
                name=each.name,
                arn=each.arn,
                created=each.created,
                tags=dict(state.tags(each.arn)),
            )


def _variants(endpoint: Endpoint, *, tags: Mapping[str, str]) -> Iterator[Record]:
    since = endpoint.in_service_since
    seconds = ((endpoint.ended or now()) - since).total_seconds() if since else 0
    for variant in endpoint.config.variants:
        serverless = "ServerlessConfig" in variant
        yield Record(
            kind="endpoint",
            name=endpoint.name,
            arn=endpoint.arn,
            status=endpoint.status,
            created=endpoint.created,
            started=since,
            ended=endpoint.ended,
            instance_type=variant.get("InstanceType", ""),
            instance_count=variant.get("InitialInstanceCount", 0),
            startup_seconds=STARTUP_SECONDS["serverless-endpoint" if serverless else "endpoint"],
            executed_seconds=seconds,
            failure=endpoint.failure,
            tags=dict(tags),
            details={"variant": variant["VariantName"], "config": endpoint.config.name},
        )
