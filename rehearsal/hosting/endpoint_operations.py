"""The API of endpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil
from typing import Any

from rehearsal.emulator.errors import invalid, own_mistake
from rehearsal.emulator.operations import Answer, Request, operation, page
from rehearsal.emulator.state import State, now
from rehearsal.emulator.tags import keep_tags
from rehearsal.hosting import endpoints
from rehearsal.hosting.endpoints import Endpoint, endpoint_named, refuse_failed, refuse_in_progress
from rehearsal.hosting.models import EndpointConfig, endpoint_config_named
from rehearsal.hosting.servers import INVOCATION_SECONDS, StartupError
from rehearsal.hosting.variants import Fleet, start_fleet

# --- scaling ---
# Endpoints that Application Auto Scaling scales; moto keeps what is registered there.


def scaled_to_others(
    endpoint: str, *, before: EndpointConfig, after: EndpointConfig, state: State
) -> list[str]:
    """Variants that scale and would get other machines, which AWS refuses."""
    machines = {v["VariantName"]: v.get("InstanceType") for v in before.variants}
    changed = [
        variant["VariantName"]
        for variant in after.variants
        if machines.get(variant["VariantName"], "") not in ("", variant.get("InstanceType"))
    ]
    return [name for name in changed if _is_scaled(f"endpoint/{endpoint}/variant/{name}", state)]


def _is_scaled(resource: str, state: State) -> bool:
    service = state.clients["application-autoscaling"]
    found = service.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[resource])
    return bool(found["ScalableTargets"])


# --- alarms ---
# CloudWatch alarms as an update watches them.
#
# moto keeps alarms and never judges one. Here an alarm rings when somebody set its state to
# ALARM, or when its metric, over the time that the update has been watching, crosses its
# threshold: time is compressed, so the alarm's own periods would never be full.

_COMPARISONS = {
    "GreaterThanOrEqualToThreshold": lambda value, bound: value >= bound,
    "GreaterThanThreshold": lambda value, bound: value > bound,
    "LessThanThreshold": lambda value, bound: value < bound,
    "LessThanOrEqualToThreshold": lambda value, bound: value <= bound,
}


def missing_alarms(names: list[str], *, state: State) -> list[str]:
    """Those that CloudWatch does not know."""
    known = {alarm["AlarmName"] for alarm in _described(names, state=state)}
    return [name for name in names if name not in known]


def ringing_alarm(names: list[str], *, since: datetime, state: State) -> str | None:
    """The first alarm that rings; its state becomes ALARM. None: all is well."""
    for alarm in _described(names, state=state):
        if alarm["StateValue"] == "ALARM":
            return str(alarm["AlarmName"])
        if _is_crossed(alarm, since=since, state=state):
            _ring(alarm["AlarmName"], state=state)
            return str(alarm["AlarmName"])
    return None


def _described(names: list[str], *, state: State) -> list[dict[str, Any]]:
    if not names:
        return []
    answer = state.clients["cloudwatch"].describe_alarms(AlarmNames=names)
    return list(answer["MetricAlarms"])


def _ring(name: str, *, state: State) -> None:
    state.clients["cloudwatch"].set_alarm_state(
        AlarmName=name, StateValue="ALARM", StateReason="Threshold crossed (rehearsal)."
    )


def _is_crossed(alarm: Mapping[str, Any], *, since: datetime, state: State) -> bool:
    statistic = alarm.get("Statistic")
    compare = _COMPARISONS.get(alarm["ComparisonOperator"])
    if not statistic or compare is None:
        return False
    points = state.clients["cloudwatch"].get_metric_statistics(
        Namespace=alarm["Namespace"],
        MetricName=alarm["MetricName"],
        Dimensions=alarm.get("Dimensions", []),
        StartTime=since,
        EndTime=now() + timedelta(seconds=1),
        Period=86400,
        Statistics=[statistic],
    )["Datapoints"]
    return any(compare(point[statistic], alarm["Threshold"]) for point in points)


# --- traffic ---
# How an update moves an endpoint's traffic to its new fleet: which share, and for how long.
#
# The guardrails of SageMaker's developer guide, "Blue/Green Deployments" and "Rolling
# Deployments", as a list of stages, which updates walk through.

_WHOLE = Fraction(1)


@dataclass(frozen=True)
class Stage:
    """A share of the traffic goes to the new fleet while alarms are watched."""

    share: Fraction
    wait_seconds: int
    """On AWS: the baking period before the next stage."""


def stages(deployment: Mapping[str, Any], *, instances: int) -> list[Stage]:
    """The stages of a DeploymentConfig; the last one's share is 1.

    instances: of the new fleet, by which sizes given as INSTANCE_COUNT are measured.
    Without a configuration everything moves at once and nothing is waited for, as AWS does.
    """
    rolling = deployment.get("RollingUpdatePolicy")
    if rolling:
        return _even_steps(
            _share(rolling["MaximumBatchSize"], instances=instances),
            wait_seconds=rolling["WaitIntervalInSeconds"],
        )
    routing = deployment.get("BlueGreenUpdatePolicy", {}).get("TrafficRoutingConfiguration")
    if not routing:
        return [Stage(_WHOLE, wait_seconds=0)]
    return _blue_green(routing, instances=instances)


def _blue_green(routing: Mapping[str, Any], *, instances: int) -> list[Stage]:
    wait = int(routing["WaitIntervalInSeconds"])
    if routing["Type"] == "CANARY":
        canary = _share(routing["CanarySize"], instances=instances)
        return [Stage(canary, wait_seconds=wait), Stage(_WHOLE, wait_seconds=wait)]
    if routing["Type"] == "LINEAR":
        step = _share(routing["LinearStepSize"], instances=instances)
        return _even_steps(step, wait_seconds=wait)
    return [Stage(_WHOLE, wait_seconds=wait)]


def _even_steps(step: Fraction, *, wait_seconds: int) -> list[Stage]:
    count = ceil(1 / step)
    return [Stage(min(step * (i + 1), _WHOLE), wait_seconds=wait_seconds) for i in range(count)]


def _share(size: Mapping[str, Any], *, instances: int) -> Fraction:
    whole = 100 if size["Type"] == "CAPACITY_PERCENT" else max(instances, 1)
    return min(Fraction(int(size["Value"]), whole), _WHOLE)


# --- updates ---
# Blue/green and rolling updates: the new fleet beside the old, traffic moved, alarms watched.
#
# On AWS a rolling update replaces instances in batches; one process stands for all instances
# of a variant here, so that its batches are shares of the traffic.

_SECONDS_BETWEEN_LOOKS = 0.1


@dataclass(frozen=True)
class Update:
    """What UpdateEndpoint asks for."""

    config: EndpointConfig
    deployment: Mapping[str, Any]
    retain: bool
    """RetainAllVariantProperties."""
    except_for: tuple[str, ...]
    """ExcludeRetainedVariantProperties."""

    @property
    def alarms(self) -> list[str]:
        """The names of those that roll it back."""
        configured = self.deployment.get("AutoRollbackConfiguration", {}).get("Alarms", [])
        return [alarm["AlarmName"] for alarm in configured]


def read_update(request: Mapping[str, Any], *, endpoint: Endpoint, state: State) -> Update:
    """Check what UpdateEndpoint asks for. Raises AwsError."""
    # AWS asks for the configuration that is being left, too.
    endpoint_config_named(endpoint.config.name, state=state)
    retained = endpoint.deployment if request.get("RetainDeploymentConfig") else {}
    exclude = request.get("ExcludeRetainedVariantProperties", [])
    update = Update(
        config=endpoint_config_named(request["EndpointConfigName"], state=state),
        deployment=request.get("DeploymentConfig") or retained,
        retain=request.get("RetainAllVariantProperties", False),
        except_for=tuple(each["VariantPropertyType"] for each in exclude),
    )
    if missing := missing_alarms(update.alarms, state=state):
        raise invalid(f"Could not find CloudWatch alarms {missing} of AutoRollbackConfiguration.")
    if scaled := scaled_to_others(
        endpoint.name, before=endpoint.config, after=update.config, state=state
    ):
        raise invalid(
            f"The variants {scaled} are scaled by Application Auto Scaling: deregister them as "
            "scalable targets before an update that changes their instance type."
        )
    return update


def start_update(endpoint: Endpoint, *, update: Update, state: State) -> None:
    """Begin an update beside the requests. Raises AwsError while another is in progress."""
    with state.lock:
        refuse_in_progress(endpoint)
        refuse_failed(endpoint)
        endpoint.change("Updating")
        endpoint.deployment = update.deployment
    state.start(lambda: _run(endpoint, update=update, state=state), name=f"update {endpoint.name}")


def _run(endpoint: Endpoint, *, update: Update, state: State) -> None:
    try:
        incoming = start_fleet(update.config, endpoint=endpoint.name, state=state)
    except StartupError as error:
        _roll_back(endpoint, reason=str(error), state=state)
        return
    except Exception as error:
        _roll_back(endpoint, reason=own_mistake(error), state=state)
        raise
    if update.retain and endpoint.fleet is not None:
        incoming.keep_settings_of(endpoint.fleet, except_for=update.except_for)
    with state.lock:
        endpoint.incoming = incoming
    alarm = _move_traffic(endpoint, incoming=incoming, update=update, state=state)
    if alarm is not None:
        reason = f"Deployment was rolled back: CloudWatch alarm {alarm!r} went into ALARM."
        _roll_back(endpoint, reason=reason, state=state)
    else:
        _finish(endpoint, incoming=incoming, update=update, state=state)


def _move_traffic(
    endpoint: Endpoint, *, incoming: Fleet, update: Update, state: State
) -> str | None:
    """Walk through the stages; the name of the alarm that interrupted them, if any."""
    if endpoint.fleet is None:
        return None
    since = now()
    for stage in stages(update.deployment, instances=incoming.instances):
        with state.lock:
            endpoint.share = stage.share
        alarm = _bake(stage, alarms=update.alarms, since=since, state=state)
        if alarm is not None:
            return alarm
    return None


def _bake(stage: Stage, *, alarms: list[str], since: datetime, state: State) -> str | None:
    """Wait for the stage's compressed time while the alarms are watched, at least once."""
    left = stage.wait_seconds * state.settings.time_scale
    while True:
        alarm = ringing_alarm(alarms, since=since, state=state)
        if alarm is not None or left <= 0 or state.ending.is_set():
            return alarm
        state.ending.wait(min(left, _SECONDS_BETWEEN_LOOKS))
        left -= _SECONDS_BETWEEN_LOOKS


def _finish(endpoint: Endpoint, *, incoming: Fleet, update: Update, state: State) -> None:
    policy = update.deployment.get("BlueGreenUpdatePolicy", {})
    state.ending.wait(policy.get("TerminationWaitInSeconds", 0) * state.settings.time_scale)
    with state.lock:
        outgoing, endpoint.fleet = endpoint.fleet, incoming
        endpoint.incoming, endpoint.share = None, Fraction(0)
        endpoint.config = update.config
        endpoint.change("InService")
    if outgoing is not None:
        outgoing.drain(seconds=INVOCATION_SECONDS)
        outgoing.stop()


def _roll_back(endpoint: Endpoint, *, reason: str, state: State) -> None:
    """The old fleet takes all traffic again; without one that lives, the update has failed."""
    with state.lock:
        failed, endpoint.incoming, endpoint.share = endpoint.incoming, None, Fraction(0)
        endpoint.change("RollingBack", failure=reason)
    if failed is not None:
        failed.drain(seconds=INVOCATION_SECONDS)
        failed.stop()
    survivors = endpoint.fleet is not None and all(
        container.is_healthy() for container in endpoint.fleet.containers
    )
    with state.lock:
        endpoint.change("InService" if survivors else "UpdateRollbackFailed", failure=reason)


# --- endpoint operations ---


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
    update = read_update(request, endpoint=endpoint, state=state)
    start_update(endpoint, update=update, state=state)
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
