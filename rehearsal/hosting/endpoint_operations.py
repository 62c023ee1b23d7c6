"""The API of endpoints."""

from rehearsal.emulator.errors import invalid
from rehearsal.emulator.listing import page
from rehearsal.emulator.operations import Answer, Request, operation
from rehearsal.emulator.state import State
from rehearsal.emulator.tags import keep_tags
from rehearsal.hosting import endpoints, updates
from rehearsal.hosting.endpoints import Endpoint, endpoint_named
from rehearsal.hosting.fleets import Fleet


@operation("CreateEndpoint")
def create_endpoint(request: Request, *, state: State) -> Answer:
    """Start an endpoint."""
    endpoint = endpoints.create_endpoint(
        request["EndpointName"], config_name=request["EndpointConfigName"], state=state
    )
    keep_tags(endpoint.arn, request.get("Tags", []), state=state)
    return {"EndpointArn": endpoint.arn}


@operation("DescribeEndpoint")
def describe_endpoint(request: Request, *, state: State) -> Answer:
    """Show an endpoint."""
    with state.lock:
        return endpoint_named(request["EndpointName"], state=state).description()


@operation("ListEndpoints")
def list_endpoints(request: Request, *, state: State) -> Answer:
    """Show all endpoints."""
    with state.lock:
        rows = [endpoint.summary() for endpoint in state.kept(Endpoint).values()]
    return page(rows, request=request, key="Endpoints", kind="Endpoint")


@operation("DeleteEndpoint")
def delete_endpoint(request: Request, *, state: State) -> Answer:
    """End an endpoint."""
    endpoint = endpoint_named(request["EndpointName"], state=state)
    endpoints.delete_endpoint(endpoint, state=state)
    return {}


@operation("UpdateEndpoint")
def update_endpoint(request: Request, *, state: State) -> Answer:
    """Replace what an endpoint serves."""
    endpoint = endpoint_named(request["EndpointName"], state=state)
    update = updates.read_update(request, endpoint=endpoint, state=state)
    updates.start_update(endpoint, update=update, state=state)
    return {"EndpointArn": endpoint.arn}


@operation("UpdateEndpointWeightsAndCapacities")
def update_weights_and_capacities(request: Request, *, state: State) -> Answer:
    """Change the weights, instance counts or concurrency of variants that serve."""
    with state.lock:
        endpoint = endpoint_named(request["EndpointName"], state=state)
        endpoints.refuse_in_progress(endpoint)
        endpoints.refuse_failed(endpoint)
        for wanted in request["DesiredWeightsAndCapacities"]:
            _apply(wanted, fleet=endpoint.fleet or Fleet(endpoint.config))
        endpoint.change("InService")
    return {"EndpointArn": endpoint.arn}


def _apply(wanted: Request, *, fleet: Fleet) -> None:
    for variant in fleet.variants:
        if variant.name == wanted["VariantName"]:
            variant.weight = wanted.get("DesiredWeight", variant.weight)
            variant.instances = wanted.get("DesiredInstanceCount", variant.instances)
            variant.serverless |= wanted.get("ServerlessUpdateConfig", {})
            return
    raise invalid(f"Could not find variant {wanted['VariantName']!r}.")
