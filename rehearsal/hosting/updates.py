"""Blue/green and rolling updates: the new fleet beside the old, traffic moved, alarms watched.

On AWS a rolling update replaces instances in batches; one process stands for all instances
of a variant here, so that its batches are shares of the traffic.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from rehearsal.emulator.errors import invalid, own_mistake
from rehearsal.emulator.state import State, now
from rehearsal.hosting.alarms import missing_alarms, ringing_alarm
from rehearsal.hosting.endpoints import Endpoint, refuse_failed, refuse_in_progress
from rehearsal.hosting.fleets import Fleet
from rehearsal.hosting.models import EndpointConfig, endpoint_config_named
from rehearsal.hosting.scaling import scaled_to_others
from rehearsal.hosting.servers import INVOCATION_SECONDS, StartupError
from rehearsal.hosting.starting import start_fleet
from rehearsal.hosting.traffic import Stage, stages

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
