"""Endpoints on SageMaker, in a stand-in that really serves: created, updated, taken back."""

from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from darkroom.backends.endpoint import Endpoint, EndpointError
from darkroom.backends.sagemaker.hosting.client import SageMakerEndpoint
from darkroom.backends.sagemaker.hosting.endpoint import deploy
from darkroom.backends.sagemaker.hosting.rollback import remove_endpoint
from darkroom.backends.sagemaker.hosting.state import ACCEPTED, describe
from darkroom.backends.sagemaker.retry import JobInterrupted
from darkroom.base.errors import UserError
from darkroom.models.bundle import ONNX_FILE
from rehearsed_hosting import Rehearsed, briefly, enter, rehearsed

pytestmark = pytest.mark.slow

CANARY = {"strategy": "canary", "wait_seconds": 0, "termination_wait_seconds": 0}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsed]:
    with rehearsed(tmp_path_factory.mktemp("hosting")) as opened:
        yield opened


@pytest.fixture
def aws(opened: Rehearsed, monkeypatch: pytest.MonkeyPatch) -> Rehearsed:
    return enter(opened, monkeypatch)


def served(aws: Rehearsed, name: str) -> str:
    """The configuration that an endpoint serves."""
    state = describe(name, clients=aws.clients)
    assert state is not None
    assert state.serves
    return state.configuration


def test_an_endpoint_answers_as_evaluated_and_is_noted_as_checked(aws: Rehearsed) -> None:
    bundle = aws.bundle("noted")
    site = aws.site(hosting={"time_to_live_hours": 2, "name": "noted-live"})
    endpoint = aws.deploy(bundle, site=site, name="noted")
    assert (endpoint.name, endpoint.backend, endpoint.previous) == ("noted-live", "sagemaker", None)
    assert ACCEPTED not in aws.tags("noted-live")
    check = aws.verify(endpoint, bundle=bundle)
    assert (check.agreement, check.images, check.url) == (1, 6, endpoint.url)
    tags = aws.tags("noted-live")
    assert tags[ACCEPTED] == endpoint.configuration
    assert tags["darkroom:run"] == "run-1"
    assert tags["darkroom:version"] == bundle.metadata.version
    assert tags["darkroom:expires"].endswith("+00:00")
    again = aws.deploy(bundle, site=site, name="noted")
    assert again.configuration == endpoint.configuration
    remove_endpoint(endpoint, clients=aws.clients, pause=briefly)
    remove_endpoint(endpoint, clients=aws.clients, pause=briefly)
    assert not [name for name in aws.names() if "noted" in name]


def test_an_update_is_watched_and_leaves_nothing_of_the_model_before(aws: Rehearsed) -> None:
    first = aws.kept("updated")
    bundle = aws.bundle("updated-2")
    scaled = {"min_instances": 1, "max_instances": 3}
    site = aws.site(run="run-2", hosting={"rollout": CANARY, "autoscaling": scaled})
    second = aws.deploy(bundle, site=site, name="updated")
    assert second.previous == first.configuration
    assert served(aws, "updated") == second.configuration
    assert first.configuration in aws.names()
    aws.verify(second, bundle=bundle)
    assert first.configuration not in aws.names()
    assert "darkroom-updated-5xx" in aws.names()
    assert aws.tags("updated")["darkroom:run"] == "run-2"
    targets = aws.clients.autoscaling.describe_scalable_targets(ServiceNamespace="sagemaker")
    assert [t["MaxCapacity"] for t in targets["ScalableTargets"]] == [3]
    remove_endpoint(second, clients=aws.clients, pause=briefly)
    assert not [name for name in aws.names() if "updated" in name]
    targets = aws.clients.autoscaling.describe_scalable_targets(ServiceNamespace="sagemaker")
    assert targets["ScalableTargets"] == []


def test_an_endpoint_that_may_not_scale_is_not_left_behind_unchecked(aws: Rehearsed) -> None:
    def deny(**_: object) -> None:
        error = {"Code": "AccessDeniedException", "Message": "not you"}
        raise ClientError({"Error": error}, "RegisterScalableTarget")

    call = "before-call.application-autoscaling.RegisterScalableTarget"
    aws.clients.autoscaling.meta.events.register(call, deny)
    try:
        site = aws.site(hosting={"autoscaling": {"min_instances": 1, "max_instances": 3}})
        with pytest.raises(EndpointError, match=r"RegisterScalableTarget.*it was removed"):
            aws.deploy(aws.bundle("denied"), site=site, name="denied")
    finally:
        aws.clients.autoscaling.meta.events.unregister(call, deny)
    assert not [name for name in aws.names() if "denied" in name]


def test_an_endpoint_that_scales_changes_its_machines_and_goes_back(aws: Rehearsed) -> None:
    scaled = {"min_instances": 1, "max_instances": 3}
    first = aws.kept("scaled", hosting={"autoscaling": scaled})
    large = {"autoscaling": scaled, "instance_type": "ml.m5.xlarge"}
    second = aws.deploy(aws.bundle("scaled"), site=aws.site(hosting=large), name="scaled")
    assert served(aws, "scaled") == second.configuration != first.configuration
    targets = aws.clients.autoscaling.describe_scalable_targets(ServiceNamespace="sagemaker")
    assert [t["MaxCapacity"] for t in targets["ScalableTargets"]] == [3]
    with pytest.raises(EndpointError, match="before serves again"):
        aws.verify(second, bundle=aws.bundle("scaled"), wrong=True)
    assert served(aws, "scaled") == first.configuration
    remove_endpoint(first, clients=aws.clients, pause=briefly)


def test_an_update_that_answers_wrongly_is_taken_back(aws: Rehearsed) -> None:
    first = aws.kept("back")
    bundle = aws.bundle("back-2")
    second = aws.deploy(bundle, site=aws.site(run="run-2"), name="back")
    with pytest.raises(EndpointError, match=r"0\.0% of 6 .* before serves again"):
        aws.verify(second, bundle=bundle, wrong=True)
    assert served(aws, "back") == first.configuration
    assert aws.tags("back")["darkroom:run"] == "run-1"
    assert second.configuration not in aws.names()


def test_an_update_that_an_alarm_stops_is_told_and_leaves_the_model_before(
    aws: Rehearsed,
) -> None:
    first = aws.kept("alarm")
    bundle = aws.bundle("alarm-2")
    watched = {"strategy": "canary", "wait_seconds": 3600}

    def alarm(seconds: float) -> None:
        aws.clients.cloudwatch.set_alarm_state(
            AlarmName="darkroom-alarm-5xx", StateValue="ALARM", StateReason="errors"
        )
        briefly(seconds)

    site = aws.site(hosting={"rollout": watched})
    with pytest.raises(EndpointError, match=r"was not updated.*alarm"):
        deploy(bundle, name="alarm", keep=True, site=site, clients=aws.clients, pause=alarm)
    assert served(aws, "alarm") == first.configuration
    assert len([name for name in aws.names() if name.startswith("alarm-")]) == 2


def test_a_new_endpoint_that_answers_wrongly_is_removed(aws: Rehearsed) -> None:
    bundle = aws.bundle("wrong")
    endpoint = aws.deploy(bundle, site=aws.site(), name="wrong")
    with pytest.raises(EndpointError, match="it was removed"):
        aws.verify(endpoint, bundle=bundle, wrong=True)
    assert not [name for name in aws.names() if "wrong" in name]


def test_what_was_checked_before_is_not_removed_when_a_later_check_fails(aws: Rehearsed) -> None:
    aws.kept("again")
    bundle = aws.bundle("again")
    endpoint = aws.deploy(bundle, site=aws.site(), name="again")
    with pytest.raises(EndpointError, match="left as it is"):
        aws.verify(endpoint, bundle=bundle, wrong=True)
    assert served(aws, "again") == endpoint.configuration


def test_a_check_never_touches_the_endpoint_that_is_kept(aws: Rehearsed) -> None:
    kept = aws.kept("beside")
    bundle = aws.bundle("beside-2")
    endpoint = aws.deploy(bundle, site=aws.site(), name="beside", keep=False)
    assert endpoint.temporary
    assert "darkroom:expires" in aws.tags(str(endpoint.name))
    assert endpoint.name == f"beside-check-{bundle.metadata.version}"
    assert aws.verify(endpoint, bundle=bundle).url is None
    remove_endpoint(endpoint, clients=aws.clients, pause=briefly)
    assert served(aws, "beside") == kept.configuration
    assert not [name for name in aws.names() if "beside-check" in name]


def test_a_model_that_does_not_start_is_told_by_its_last_words_and_removed(
    aws: Rehearsed,
) -> None:
    bundle = aws.bundle("broken")
    (bundle.folder / ONNX_FILE).write_bytes(b"changed")
    with pytest.raises(EndpointError, match=r"(?s)did not start.*SHA-256 differs"):
        aws.deploy(bundle, site=aws.site(), name="broken")
    assert not [name for name in aws.names() if "broken" in name]


def test_an_update_that_does_not_start_leaves_the_model_before(aws: Rehearsed) -> None:
    first = aws.kept("stays")
    bundle = aws.bundle("stays-2")
    (bundle.folder / ONNX_FILE).write_bytes(b"changed")
    with pytest.raises(EndpointError, match=r"(?s)was not updated.*SHA-256 differs"):
        aws.deploy(bundle, site=aws.site(), name="stays")
    assert served(aws, "stays") == first.configuration
    assert [name for name in aws.names() if "stays" in name and "darkroom" not in name]
    aws.verify(first, bundle=aws.bundle("stays"))


def test_an_interrupted_deployment_goes_on(aws: Rehearsed) -> None:
    bundle = aws.bundle("on")

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(JobInterrupted) as caught:
        deploy(bundle, name="on", keep=True, site=aws.site(), clients=aws.clients, pause=interrupt)
    assert (caught.value.kind, caught.value.name) == ("endpoint", "on")
    endpoint = aws.deploy(bundle, site=aws.site(), name="on")
    aws.verify(endpoint, bundle=bundle)
    assert len([name for name in aws.names() if name.startswith("on-")]) == 2


def test_an_update_that_was_never_checked_is_not_what_one_goes_back_to(aws: Rehearsed) -> None:
    first = aws.kept("skip")
    aws.deploy(aws.bundle("skip-2"), site=aws.site(), name="skip")
    third = aws.deploy(aws.bundle("skip-3"), site=aws.site(), name="skip")
    assert third.previous == first.configuration


def test_an_endpoint_of_somebody_else_is_left_alone(aws: Rehearsed) -> None:
    endpoint = aws.kept("theirs")
    arn = aws.clients.sagemaker.describe_endpoint(EndpointName="theirs")["EndpointArn"]
    aws.clients.sagemaker.delete_tags(ResourceArn=arn, TagKeys=list(aws.tags("theirs")))
    with pytest.raises(UserError, match="not Darkroom's"):
        aws.deploy(aws.bundle("theirs-2"), site=aws.site(), name="theirs")
    assert served(aws, "theirs") == endpoint.configuration


def test_serverless_serves_too(aws: Rehearsed) -> None:
    bundle = aws.bundle("less")
    site = aws.site(hosting={"kind": "serverless"})
    aws.verify(aws.deploy(bundle, site=site, name="less"), bundle=bundle)


@pytest.mark.parametrize(
    "network", [{"isolation": True}, {"subnets": ["s-1"], "security_group_ids": ["sg-1"]}]
)
def test_serverless_with_a_network_is_refused_before_anything_is_sent(
    network: dict[str, object],
) -> None:
    site = Rehearsed.site(hosting={"kind": "serverless"}, network=network)
    with pytest.raises(UserError, match=r"allows neither .*isolation"):
        deploy(None, name="x", keep=True, site=site, clients=None)  # type: ignore[arg-type]


def test_the_containers_own_words_are_the_error(aws: Rehearsed) -> None:
    aws.kept("words")
    answering = SageMakerEndpoint("words", clients=aws.clients, pause=briefly)
    with pytest.raises(EndpointError, match=r"answers 400: .*not an image"):
        answering.invoke(b"no picture", content_type="image/png")


def test_a_local_endpoint_is_none_of_sagemakers() -> None:
    with pytest.raises(EndpointError, match="local"):
        remove_endpoint(Endpoint(url="http://127.0.0.1:1", pid=1), clients=None)  # type: ignore[arg-type]
