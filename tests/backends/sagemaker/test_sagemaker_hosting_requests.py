"""What is sent to host, watch and scale a model."""

from typing import Any

import pytest

from darkroom.backends.sagemaker.hosting import request as hosting
from darkroom.backends.sagemaker.hosting import request as scaling
from darkroom.backends.sagemaker.hosting.resources import HostingNames, clean, hosting_names
from darkroom.backends.sagemaker.requests import volume_key
from darkroom.backends.sagemaker.resources import tags_of
from darkroom.backends.sagemaker.session import SageMakerContext
from darkroom.config.sagemaker import SageMakerConfig
from darkroom.images import Preprocessing
from darkroom.models.bundle import BundleMetadata, ExportCheck
from golden_requests import assert_golden, problems

FULL = {
    "hosting": {
        "instance_type": "ml.m5.xlarge",
        "autoscaling": {"min_instances": 2, "max_instances": 6},
        "rollout": {"strategy": "canary", "step_percent": 20, "max_latency_ms": 150},
        "capture_percent": 25,
    },
    "network": {"subnets": ["subnet-1a2b"], "security_group_ids": ["sg-1a2b"], "isolation": True},
    "kms_key": "arn:aws:kms:eu-west-1:123456789012:key/one",
    "tags": {"team": "photos"},
}
ROLE = "arn:aws:iam::123456789012:role"


def site(**config: object) -> SageMakerContext:
    return SageMakerContext(
        region="eu-west-1",
        role=f"{ROLE}/jobs",
        endpoint_role=f"{ROLE}/endpoints",
        image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/darkroom:1",
        root="s3://bucket/prefix",
        config=SageMakerConfig.model_validate(config),
        run="digits-1",
    )


def metadata(**files: str) -> BundleMetadata:
    return BundleMetadata(
        architecture="resnet18",
        classes=("cat", "dog"),
        preprocessing=Preprocessing(resize_size=16, image_size=16),
        hyperparameters={},
        metrics={},
        data_fingerprint="0" * 64,
        versions={},
        export_check=ExportCheck(images=1, maximum_probability_difference=0, top1_agreement=1),
        files={"model.onnx": "a" * 64, "model.safetensors": "b" * 64, **files},
    )


def configuration(place: SageMakerContext, *, seconds: float = 120) -> dict[str, Any]:
    return hosting.configuration_request(
        "pets-c",
        model="pets-m",
        endpoint="pets",
        site=place,
        tags=tags_of(place, endpoint="pets"),
        start_timeout_seconds=seconds,
    )


def names_of(
    bundle: BundleMetadata,
    *,
    keep: bool,
    place: SageMakerContext,
    name: str = "pets",
    seconds: float = 120,
) -> HostingNames:
    return hosting_names(bundle, name=name, keep=keep, site=place, start_timeout_seconds=seconds)


def test_a_model_of_the_full_configuration() -> None:
    place = site(**FULL)
    request = hosting.model_request(
        "pets-1",
        archive=place.uri("models", "b", "model.tar.gz"),
        site=place,
        tags=tags_of(place, endpoint="pets"),
    )
    assert_golden(request, operation="sagemaker:CreateModel", name="create_model")


def test_a_model_outside_of_a_vpc_names_none() -> None:
    place = site()
    request = hosting.model_request("m", archive="s3://b/m.tar.gz", site=place, tags=[])
    assert "VpcConfig" not in request
    assert request["ExecutionRoleArn"] == f"{ROLE}/endpoints"


def test_a_real_time_configuration() -> None:
    request = configuration(site(**FULL))
    assert_golden(
        request, operation="sagemaker:CreateEndpointConfig", name="create_endpoint_config"
    )


def test_a_serverless_configuration_has_neither_instances_nor_key() -> None:
    request = configuration(site(hosting={"kind": "serverless"}, kms_key="key"))
    assert_golden(
        request,
        operation="sagemaker:CreateEndpointConfig",
        name="create_endpoint_config_serverless",
    )


@pytest.mark.parametrize(
    ("instance_type", "has_key"),
    [
        ("ml.m5.large", True),
        ("ml.m5d.large", False),
        ("ml.g4dn.xlarge", False),
        ("ml.g5.xlarge", False),
    ],
)
def test_instances_with_disks_of_their_own_take_no_key(instance_type: str, has_key: bool) -> None:
    place = site(hosting={"instance_type": instance_type}, kms_key="key")
    request = configuration(place)
    assert ("KmsKeyId" in request) == has_key
    assert volume_key(instance_type, key="key") == ("key" if has_key else "")


def test_a_start_takes_as_long_as_it_is_given_and_another_time_is_another_configuration() -> None:
    variant = configuration(site(), seconds=599.5)["ProductionVariants"][0]
    assert variant["ModelDataDownloadTimeoutInSeconds"] == 600
    assert variant["ContainerStartupHealthCheckTimeoutInSeconds"] == 600
    usual, longer = (names_of(metadata(), keep=True, place=site(), seconds=n) for n in (300, 600))
    assert usual.model == longer.model
    assert usual.configuration != longer.configuration


def test_an_endpoint() -> None:
    request = hosting.endpoint_request("pets", configuration="pets-c", tags=tags_of(site()))
    assert_golden(request, operation="sagemaker:CreateEndpoint", name="create_endpoint")


@pytest.mark.parametrize("strategy", ["all_at_once", "canary", "linear"])
def test_an_update_by_each_rollout(strategy: str) -> None:
    config = site(hosting={"rollout": {"strategy": strategy, "step_percent": 25}}).config.hosting
    request = hosting.update_request(
        "pets", configuration="pets-d", hosting=config, alarms=hosting.alarm_names("pets")
    )
    assert_golden(request, operation="sagemaker:UpdateEndpoint", name=f"update_endpoint_{strategy}")


def test_an_update_keeps_the_instances_that_scaling_has_reached() -> None:
    scaled, fixed = site(**FULL).config.hosting, site().config.hosting
    request = hosting.update_request("pets", configuration="d", hosting=scaled)
    assert request["RetainAllVariantProperties"]
    assert problems(request, service="sagemaker", operation="UpdateEndpoint") == []
    request = hosting.update_request("pets", configuration="d", hosting=fixed)
    assert "RetainAllVariantProperties" not in request


def test_a_serverless_endpoint_is_updated_without_a_rollout() -> None:
    config = site(hosting={"kind": "serverless"}).config.hosting
    request = hosting.update_request("pets", configuration="d", hosting=config)
    assert request == {"EndpointName": "pets", "EndpointConfigName": "d"}


def test_a_slow_rollout_asks_for_no_more_than_aws_allows() -> None:
    slow = {"strategy": "linear", "step_percent": 10, "wait_seconds": 3600}
    config = site(hosting={"rollout": slow}).config.hosting
    request = hosting.update_request("pets", configuration="d", hosting=config)
    policy = request["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert policy["MaximumExecutionTimeoutInSeconds"] == 28800


def test_alarms_of_errors_and_latency() -> None:
    place = site(**FULL)
    errors, latency = hosting.alarm_requests(
        "pets", rollout=place.config.hosting.rollout, tags=tags_of(place, endpoint="pets")
    )
    assert_golden(errors, operation="cloudwatch:PutMetricAlarm", name="alarm_errors")
    assert_golden(latency, operation="cloudwatch:PutMetricAlarm", name="alarm_latency")
    assert (errors["AlarmName"], latency["AlarmName"]) == hosting.alarm_names("pets")


def test_without_a_limit_of_latency_there_is_no_alarm_for_it() -> None:
    rollout = site().config.hosting.rollout
    assert len(hosting.alarm_requests("pets", rollout=rollout, tags=[])) == 1


def test_scaling() -> None:
    place = site(**FULL)
    hosted = place.config.hosting
    target = scaling.target_request("pets", scaling=hosted.autoscaling)
    policy = scaling.policy_request("pets", hosting=hosted)
    service = "application-autoscaling"
    assert_golden(target, operation=f"{service}:RegisterScalableTarget", name="scalable_target")
    assert_golden(policy, operation=f"{service}:PutScalingPolicy", name="scaling_policy")
    assert_golden(
        scaling.scalable("pets"),
        operation=f"{service}:DeregisterScalableTarget",
        name="deregister_scalable_target",
    )


def test_an_invocation_asks_for_all_classes() -> None:
    request = hosting.invoke_request("pets", image=b"jpeg", content_type="image/jpeg", top_k=10)
    assert problems(request, service="sagemaker-runtime", operation="InvokeEndpoint") == []
    assert request["CustomAttributes"] == "top_k=10"


def test_names_are_the_same_for_the_same_and_others_for_others() -> None:
    def names(place: SageMakerContext, keep: bool = True, **files: str) -> object:
        return names_of(metadata(**files), keep=keep, place=place)

    first = names(site())
    assert first == names(site()) == names(site(tags={"a": "b"}))
    others = [
        names(site(), **{"model.onnx": "c" * 64}),
        names(site(hosting={"instance_type": "ml.m5.4xlarge"})),
        names(site(network={"isolation": True})),
        names(site(), keep=False),
    ]
    assert len({first, *others}) == 5


def test_how_an_endpoint_is_updated_does_not_change_its_configuration() -> None:
    changed = site(hosting={"rollout": {"strategy": "canary"}, "time_to_live_hours": 3})
    names = [names_of(metadata(), keep=True, place=place) for place in (site(), changed)]
    assert names[0] == names[1]


@pytest.mark.parametrize("keep", [True, False])
def test_long_and_odd_names_become_names_that_aws_takes(keep: bool) -> None:
    names = names_of(metadata(), name=f"pet_shop..{'x' * 80}-", keep=keep, place=site())
    assert names.endpoint.startswith("pet-shop-xxx")
    requests = [
        (
            "CreateEndpoint",
            hosting.endpoint_request(names.endpoint, configuration=names.configuration, tags=[]),
        ),
        (
            "CreateModel",
            hosting.model_request(
                names.model, archive="s3://bucket/m.tar.gz", site=site(), tags=[]
            ),
        ),
    ]
    for operation, request in requests:
        assert problems(request, service="sagemaker", operation=operation) == []


def test_a_check_is_made_beside_the_endpoint_that_is_kept() -> None:
    place = site(hosting={"name": "live"})
    assert names_of(metadata(), keep=True, place=place).endpoint == "live"
    names = names_of(metadata(), keep=False, place=place)
    assert names.endpoint == f"pets-check-{'b' * 12}"
    assert clean("--a__b--") == "a-b"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"EndpointName": "no_name"}, "does not match"),
        ({"EndpointConfigName": "c" * 64}, "more than 63"),
        ({"Tags": [{"Key": "a", "Value": "b"}] * 51}, "more than 50"),
        ({"EndpointName": None}, "Invalid type"),
        ({"Size": 1}, "Unknown parameter"),
        ({"Tags": [{"Key": "aws:a", "Value": "b"}]}, "aws:"),
    ],
)
def test_the_golden_comparison_sees_what_aws_would_refuse(
    change: dict[str, object], complaint: str
) -> None:
    request = hosting.endpoint_request("pets", configuration="c", tags=[]) | change
    found = problems(request, service="sagemaker", operation="CreateEndpoint")
    assert any(complaint in problem for problem in found)
