"""One bundle on its way to one endpoint: what is sent to AWS, each call as often as it needs."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

from botocore.exceptions import ClientError

from darkroom.backends.sagemaker.hosting import request as hosting
from darkroom.backends.sagemaker.hosting import request as scaling
from darkroom.backends.sagemaker.hosting.resources import (
    HostingNames,
    delete_configuration,
    delete_model,
    stop_scaling,
    stop_scaling_between,
)
from darkroom.backends.sagemaker.resources import Tag, is_ours, tags_at, tags_of
from darkroom.backends.sagemaker.retry import Pause, Retrier
from darkroom.backends.sagemaker.session import Clients, SageMakerContext, is_taken
from darkroom.base.errors import UserError
from darkroom.config.sagemaker import HostingConfig

T = TypeVar("T")

EXPIRES = "darkroom:expires"
"""Tag of an endpoint: ISO time after which `run.py down --expired` removes it."""

VERSION = "darkroom:version"
"""Tag of an endpoint: version of its bundle; one with several models has none."""

_PROVISION_SECONDS = 3600.0
"""In which SageMaker has found machines, or says that there are none."""

_HOURS_OF_A_CHECK = 6
"""An endpoint that lives for its check is left behind where the run is killed meanwhile."""


@dataclass(frozen=True)
class Deployment:
    """Sends what brings a bundle to an endpoint, and what takes it away again."""

    names: HostingNames
    version: str
    """Of the bundle; empty: there are several."""
    keep: bool
    """Whether the endpoint stays; else it lives for the time of its check."""
    start_timeout_seconds: float
    """For the download of the model, and again until the container answers /ping."""
    site: SageMakerContext
    clients: Clients
    pause: Pause

    @property
    def longest_start_seconds(self) -> float:
        """Of a new endpoint, machines included; SageMaker itself gives up before."""
        return _PROVISION_SECONDS + 2 * self.start_timeout_seconds

    def prepare(self, archive: str) -> None:
        """Create model and endpoint configuration, unless they are there.

        Args:
            archive: s3:// URI of the bundle, or of the prefix that several lie below.
        """
        names, tags = self.names, self._tags
        model = hosting.model_request(names.model, archive=archive, site=self.site, tags=tags)
        configuration = hosting.configuration_request(
            names.configuration,
            model=names.model,
            endpoint=names.endpoint,
            site=self.site,
            tags=tags,
            start_timeout_seconds=self.start_timeout_seconds,
        )
        self._ask(lambda c: once(lambda: c.sagemaker.create_model(**model)))
        self._ask(
            lambda c: once(lambda: c.sagemaker.create_endpoint_config(**configuration)),
            may_appear=True,
        )

    def create(self) -> None:
        """Create the endpoint."""
        request = hosting.endpoint_request(
            self.names.endpoint, configuration=self.names.configuration, tags=self._endpoint_tags
        )
        self._ask(lambda c: once(lambda: c.sagemaker.create_endpoint(**request)), may_appear=True)

    def update(self, serving: str) -> None:
        """Change the endpoint to the new configuration, by the configured rollout.

        Args:
            serving: name of the configuration until now.
        """
        endpoint, configuration = self.names.endpoint, self.names.configuration
        if self._scales:
            stop_scaling_between(serving, configuration, endpoint=endpoint, clients=self.clients)
        else:
            stop_scaling(endpoint, clients=self.clients)
        is_watched = self.keep and self._config.kind != "serverless"
        request = hosting.update_request(
            endpoint,
            configuration=configuration,
            hosting=self._config,
            alarms=self._put_alarms() if is_watched else (),
        )
        self._ask(lambda c: c.sagemaker.update_endpoint(**request), may_appear=True)

    def scale(self) -> None:
        """Let the number of instances follow the requests, where that is configured."""
        if not self._scales:
            return
        name, bounds = self.names.endpoint, self._config.autoscaling
        target = scaling.target_request(name, scaling=bounds)
        policy = scaling.policy_request(name, hosting=self._config)
        self._ask(lambda c: c.autoscaling.register_scalable_target(**target))
        self._ask(lambda c: c.autoscaling.put_scaling_policy(**policy))
        if not bounds.min_instances:
            self._wake()

    def _wake(self) -> None:
        """Have a first instance started as soon as something waits."""
        name = self.names.endpoint
        policy = scaling.waking_policy_request(name, scaling=self._config.autoscaling)
        arn = self._ask(lambda c: c.autoscaling.put_scaling_policy(**policy)["PolicyARN"])
        alarm = scaling.waking_alarm_request(name, policy=arn, tags=self._tags)
        self._ask(partial(_put_alarm, request=alarm))

    def read_tags(self, arn: str) -> dict[str, str]:
        """Tags of the endpoint.

        Raises:
            UserError: somebody else created it.
        """
        tags = self._ask(lambda c: tags_at(arn, clients=c))
        if not is_ours(tags):
            raise UserError(
                f"the endpoint {self.names.endpoint!r} exists and is not Darkroom's: it carries "
                "no tag darkroom:*. Choose another name (sagemaker.hosting.name), or remove it."
            )
        return tags

    def mark(self, arn: str) -> None:
        """Write run, version and time to live to an endpoint that was there before."""
        tags = self._endpoint_tags
        self._ask(lambda c: c.sagemaker.add_tags(ResourceArn=arn, Tags=tags))
        written = {tag["Key"] for tag in tags}
        stale = [key for key in (EXPIRES, VERSION) if key not in written]
        if stale:
            self._ask(lambda c: c.sagemaker.delete_tags(ResourceArn=arn, TagKeys=stale))

    def forget(self) -> None:
        """Delete configuration and model, which no endpoint serves any more."""
        delete_configuration(self.names.configuration, clients=self.clients)
        delete_model(self.names.model, clients=self.clients)

    def _put_alarms(self) -> list[str]:
        """The names of those that roll an update back."""
        requests = hosting.alarm_requests(
            self.names.endpoint, rollout=self._config.rollout, tags=self._tags
        )
        for request in requests:
            self._ask(partial(_put_alarm, request=request))
        return [request["AlarmName"] for request in requests]

    def _ask(self, question: Callable[[Clients], T], *, may_appear: bool = False) -> T:
        """The answer, patiently.

        Args:
            may_appear: it names what was created a moment ago, as CreateEndpoint does:
                https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpoint.html
        """
        what = f"endpoint {self.names.endpoint!r}"
        patient = Retrier(self.clients, what=what, pause=self.pause, may_appear=may_appear)
        return patient.ask(question)

    @property
    def _config(self) -> HostingConfig:
        return self.site.config.hosting

    @property
    def _scales(self) -> bool:
        return self.keep and self._config.scales

    @property
    def _tags(self) -> list[Tag]:
        return tags_of(self.site, endpoint=self.names.endpoint, version=self.version)

    @property
    def _endpoint_tags(self) -> list[Tag]:
        expires = [Tag(Key=EXPIRES, Value=self._expires)] if self._expires else []
        return [*self._tags, *expires]

    @property
    def _expires(self) -> str:
        """ISO time in UTC; empty: never."""
        hours = self._config.time_to_live_hours if self.keep else _HOURS_OF_A_CHECK
        if not hours:
            return ""
        return (datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="seconds")


def _put_alarm(clients: Clients, *, request: hosting.Request) -> None:
    clients.cloudwatch.put_metric_alarm(**request)


def once(create: Callable[[], object]) -> None:
    """Create what has a name of its own, unless an earlier attempt has."""
    try:
        create()
    except ClientError as error:
        if not is_taken(error):
            raise
