"""What is sent for endpoints with a queue, without instances, and with several models."""

from typing import Any

import pytest
from pydantic import ValidationError

from darkroom.backends.sagemaker.account.preflight import check_hosting, demands_of
from darkroom.backends.sagemaker.costs.estimate import estimate_lines, estimate_run
from darkroom.backends.sagemaker.costs.throughput import DataSize
from darkroom.backends.sagemaker.hosting import request as hosting
from darkroom.backends.sagemaker.hosting import request as scaling
from darkroom.backends.sagemaker.hosting.request import invoke_asynchronously_request
from darkroom.backends.sagemaker.hosting.several_models import archive_of, prefix_of_models
from darkroom.backends.sagemaker.resources import tags_of
from darkroom.backends.sagemaker.session import SageMakerContext
from darkroom.config import Config
from darkroom.config.consistency import managed_problems
from darkroom.config.sagemaker import (
    HostingConfig,
    SageMakerConfig,
    kind_problems,
    several_models_problems,
)
from golden_requests import assert_golden, problems

TOPIC = "arn:aws:sns:eu-west-1:123456789012"
ASYNCHRONOUS = {
    "kind": "asynchronous",
    "asynchronous": {
        "max_concurrent_invocations": 4,
        "backlog_per_instance": 2.5,
        "success_topic": f"{TOPIC}:done",
        "error_topic": f"{TOPIC}:failed",
    },
    "autoscaling": {"min_instances": 0, "max_instances": 3},
}


def site(**config: Any) -> SageMakerContext:
    return SageMakerContext(
        region="eu-west-1",
        role="arn:aws:iam::123456789012:role/jobs",
        image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/darkroom:1",
        root="s3://bucket/prefix",
        config=SageMakerConfig.model_validate(config),
        run="digits-1",
    )


def configuration(place: SageMakerContext) -> dict[str, Any]:
    return hosting.configuration_request(
        "pets-c",
        model="pets-m",
        endpoint="pets",
        site=place,
        tags=tags_of(place, endpoint="pets"),
        start_timeout_seconds=120,
    )


def test_an_asynchronous_configuration_says_where_answers_go() -> None:
    request = configuration(site(hosting=ASYNCHRONOUS, kms_key="key"))
    assert_golden(
        request,
        operation="sagemaker:CreateEndpointConfig",
        name="create_endpoint_config_asynchronous",
    )


def test_an_asynchronous_configuration_without_wishes_leaves_them_to_sagemaker() -> None:
    request = configuration(site(hosting={"kind": "asynchronous"}))
    output = request["AsyncInferenceConfig"]["OutputConfig"]
    assert set(request["AsyncInferenceConfig"]) == {"OutputConfig"}
    assert set(output) == {"S3OutputPath", "S3FailurePath"}
    assert request["ProductionVariants"][0]["InitialInstanceCount"] == 1


def test_the_server_behind_a_queue_takes_larger_images() -> None:
    place = site(hosting={"kind": "asynchronous"})
    request = hosting.model_request(
        "pets-m", archive="s3://bucket/m/model.tar.gz", site=place, tags=[]
    )
    assert_golden(request, operation="sagemaker:CreateModel", name="create_model_asynchronous")


def test_an_asynchronous_invocation_names_the_image_on_s3() -> None:
    request = invoke_asynchronously_request(
        "pets",
        location="s3://bucket/prefix/asynchronous/pets/images/1",
        content_type="image/jpeg",
        top_k=3,
        inference_id="1",
        wait_seconds=1800,
    )
    assert_golden(
        request, operation="sagemaker-runtime:InvokeEndpointAsync", name="invoke_endpoint_async"
    )


@pytest.mark.parametrize(("wanted", "sent"), [(1, 60), (900.4, 900), (10**6, 21600)])
def test_how_long_a_request_may_wait_stays_within_awss_bounds(wanted: float, sent: int) -> None:
    request = invoke_asynchronously_request(
        "e", location="s3://b/i", content_type="a/b", top_k=1, inference_id="1", wait_seconds=wanted
    )
    assert request["RequestTTLSeconds"] == sent
    assert problems(request, service="sagemaker-runtime", operation="InvokeEndpointAsync") == []


def test_a_queue_scales_by_what_waits_and_wakes_up_by_an_alarm() -> None:
    place = site(hosting=ASYNCHRONOUS)
    hosted = place.config.hosting
    service = "application-autoscaling"
    assert scaling.target_request("pets", scaling=hosted.autoscaling)["MinCapacity"] == 0
    assert_golden(
        scaling.policy_request("pets", hosting=hosted),
        operation=f"{service}:PutScalingPolicy",
        name="scaling_policy_backlog",
    )
    assert_golden(
        scaling.waking_policy_request("pets", scaling=hosted.autoscaling),
        operation=f"{service}:PutScalingPolicy",
        name="scaling_policy_waking",
    )
    assert_golden(
        scaling.waking_alarm_request("pets", policy="arn:policy", tags=tags_of(place)),
        operation="cloudwatch:PutMetricAlarm",
        name="alarm_waiting",
    )


def test_an_update_of_an_endpoint_that_may_sleep_starts_an_instance_to_check() -> None:
    hosted = site(hosting=ASYNCHRONOUS).config.hosting
    request = hosting.update_request("pets", configuration="d", hosting=hosted)
    assert "RetainAllVariantProperties" not in request
    assert "BlueGreenUpdatePolicy" in request["DeploymentConfig"]


def test_a_serverless_configuration_with_copies_that_are_kept_warm() -> None:
    serverless = {"max_concurrency": 8, "provisioned_concurrency": 2, "memory_mb": 3072}
    request = configuration(site(hosting={"kind": "serverless", "serverless": serverless}))
    assert_golden(
        request,
        operation="sagemaker:CreateEndpointConfig",
        name="create_endpoint_config_serverless_provisioned",
    )


@pytest.mark.parametrize("cache", [True, False])
def test_a_model_that_stands_for_several(cache: bool) -> None:
    place = site(hosting={"multi_model": {"cache": cache}}, network={"isolation": True})
    request = hosting.model_request(
        "pets-m",
        archive=prefix_of_models("pets", site=place),
        site=place,
        tags=tags_of(place, endpoint="pets"),
    )
    name = "create_model_several" if cache else "create_model_several_uncached"
    assert_golden(request, operation="sagemaker:CreateModel", name=name)


def test_one_of_several_models_is_named_by_its_archive() -> None:
    request = hosting.invoke_request(
        "pets", image=b"jpeg", content_type="image/jpeg", top_k=3, target_model="dogs.tar.gz"
    )
    assert problems(request, service="sagemaker-runtime", operation="InvokeEndpoint") == []
    assert request["TargetModel"] == "dogs.tar.gz"
    prefix = prefix_of_models("pets", site=site())
    assert archive_of("dogs", prefix=prefix) == f"{prefix}dogs.tar.gz"


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"autoscaling": {"min_instances": 0}}, "only asynchronous endpoints scale to zero"),
        ({"kind": "serverless", "capture_percent": 1}, "serverless endpoints capture no data"),
        ({"kind": "asynchronous", "capture_percent": 1}, "asynchronous endpoints capture no"),
        ({"kind": "serverless", "autoscaling": {"max_instances": 2}}, "scale alone"),
        ({"serverless": {"max_concurrency": 2, "provisioned_concurrency": 3}}, "at most"),
        ({"asynchronous": {"success_topic": "done"}}, "pattern"),
        ({"asynchronous": {"max_concurrent_invocations": 1001}}, "1000"),
    ],
)
def test_what_a_kind_excludes_is_refused(section: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        HostingConfig.model_validate(section)


def test_serverless_endpoints_have_no_network_of_their_own() -> None:
    isolated = {"hosting": {"kind": "serverless"}, "network": {"isolation": True}}
    (problem,) = kind_problems(SageMakerConfig.model_validate(isolated))
    assert "'serverless' allows neither" in problem
    assert kind_problems(SageMakerConfig.model_validate({"network": {"isolation": True}})) == []
    whole = Config.model_validate({"sagemaker": isolated, "model": {"weights": "none"}})
    assert managed_problems(whole) == [problem]


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"kind": "serverless"}, "'serverless' endpoints hold one model"),
        ({"kind": "asynchronous"}, "'asynchronous' endpoints hold one model"),
        ({"instance_type": "ml.g5.xlarge"}, "through Triton alone"),
        ({"instance_type": "ml.inf2.xlarge"}, "has an accelerator"),
    ],
)
def test_what_several_models_exclude_is_named(section: dict[str, Any], told: str) -> None:
    (problem,) = several_models_problems(SageMakerConfig.model_validate({"hosting": section}))
    assert told in problem


def test_several_models_on_ordinary_machines_are_fine() -> None:
    for machine in ("ml.m5.large", "ml.c7i.large", "ml.r5.large"):
        config = SageMakerConfig.model_validate({"hosting": {"instance_type": machine}})
        assert several_models_problems(config) == []


@pytest.mark.parametrize(
    ("hosting_", "told"),
    [
        ({"kind": "serverless"}, "more than 4 MB"),
        ({"kind": "serverless"}, "waits until a copy has started"),
        ({"kind": "asynchronous"}, "answers on S3"),
        (ASYNCHRONOUS, "an answer takes minutes"),
        (ASYNCHRONOUS, f"sns:Publish on {TOPIC}:done and {TOPIC}:failed"),
    ],
)
def test_a_check_says_what_a_kind_means_to_whoever_asks(
    hosting_: dict[str, Any], told: str
) -> None:
    found = check_hosting(Config.model_validate({"sagemaker": {"hosting": hosting_}}))
    assert {finding.level for finding in found} == {"note"}
    assert any(told in finding.text for finding in found)


def test_of_endpoints_that_answer_at_once_there_is_nothing_to_say() -> None:
    assert check_hosting(Config()) == []
    nothing = {"deployment": {"enabled": False}, "sagemaker": {"hosting": {"kind": "serverless"}}}
    assert check_hosting(Config.model_validate(nothing)) == []


def test_an_asynchronous_endpoint_takes_instances_of_the_quota_and_may_cost_nothing_idle() -> None:
    config = Config.model_validate({"sagemaker": {"hosting": ASYNCHRONOUS}})
    assert [d.count for d in demands_of(config) if d.use == "endpoint"] == [1]
    text = "\n".join(
        estimate_lines(
            estimate_run(config, data=DataSize.of(images=100, size=None), region="us-east-1")
        )
    )
    assert "nothing while it has scaled to zero, $2.76 a day and instance else" in text
