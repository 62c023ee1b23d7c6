"""Instance types, quotas and requests, before a run."""

from dataclasses import replace

import pytest

from darkroom.backends.sagemaker.account.preflight import (
    Finding,
    check_instance_types,
    check_quotas,
    check_requests,
    demands_of,
    model_problems,
)
from darkroom.config import Config
from preflight_account import (
    ENOUGH,
    REGION,
    config_with,
    isolate,
    levels,
    problem,
    quota,
    site,
    stubbed,
)


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path) -> None:
    """Nothing of the user's AWS configuration is seen."""
    isolate(monkeypatch, tmp_path)


def test_an_unknown_instance_type_is_named_with_its_setting_and_the_nearest() -> None:
    config = config_with(training={"instance_type": "ml.m5.xxlarge"})
    text = problem(check_instance_types(demands_of(config)))
    assert text.startswith("sagemaker.training.instance_type: 'ml.m5.xxlarge' is no instance type")
    assert "'ml.m5.xlarge'" in text


def test_an_instance_type_of_another_use_is_refused() -> None:
    config = config_with(training={"instance_type": "ml.c5.large"})
    assert "no instance type for a training job" in problem(
        check_instance_types(demands_of(config))
    )


def quotas_found(quotas: dict[str, float], *, config: Config) -> list[Finding]:
    client, stubber = stubbed("service-quotas")
    records = [quota(name, value) for name, value in quotas.items()]
    half = len(records) // 2
    stubber.add_response("list_service_quotas", {"Quotas": records[:half], "NextToken": "more"})
    stubber.add_response(
        "list_service_quotas",
        {"Quotas": records[half:]},
        {"ServiceCode": "sagemaker", "NextToken": "more"},
    )
    return check_quotas(demands_of(config), region=REGION, client=client)


def test_quotas_that_are_large_enough_are_fine() -> None:
    found = quotas_found(ENOUGH, config=Config())
    assert levels(found) == ["ok"]
    assert "ml.m5.xlarge for training job usage: 3 of 3." in found[0].text


def test_the_orchestration_job_and_parallel_trials_share_a_quota() -> None:
    config = config_with(tuning={"parallel_jobs": 4})
    text = problem(quotas_found(ENOUGH, config=config))
    assert (
        "'ml.m5.xlarge for training job usage' is 3 in eu-west-1, the run wants 5 at once" in text
    )
    assert "--quota-code L-611FA074 --desired-value 5" in text


def test_a_quota_of_zero_is_a_problem_for_each_use() -> None:
    config = config_with(
        training={"instance_type": "ml.g5.xlarge", "spot": True},
        hosting={"instance_type": "ml.g5.xlarge"},
    )
    quotas = {
        **ENOUGH,
        "ml.g5.xlarge for spot training job usage": 0,
        "ml.g5.xlarge for endpoint usage": 0,
    }
    found = quotas_found(quotas, config=config)
    assert levels(found) == ["problem", "problem"]


def test_a_warm_pool_has_a_quota_of_its_own() -> None:
    config = config_with(training={"keep_alive_seconds": 600})
    names = [demand.quota_name for demand in demands_of(config)]
    assert "ml.m5.xlarge for training warm pool usage" in names


def test_a_quota_that_is_not_listed_is_a_note() -> None:
    found = quotas_found({"ml.m5.large for endpoint usage": 1}, config=Config())
    assert levels(found) == ["note"]


def test_without_permission_quotas_are_a_note() -> None:
    client, stubber = stubbed("service-quotas")
    stubber.add_client_error("list_service_quotas", "AccessDeniedException", "no")
    found = check_quotas(demands_of(Config()), region=REGION, client=client)
    assert levels(found) == ["note"]
    assert "servicequotas:ListServiceQuotas" in found[0].text


def test_the_requests_of_the_default_configuration_break_no_rule() -> None:
    assert levels(check_requests(site(), config=Config())) == ["ok"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kms_key": "key with spaces?" * 200}, "characters is more than 2048"),
        ({"tags": {"a": "x" * 300}}, "CreateTrainingJob"),
        ({"environment": {"LONG": "x" * 600}}, "600 characters is more than 512"),
        ({"tuning": {"warm_start_from": ["not a name"]}}, "'not a name' does not match"),
        (
            {"network": {"subnets": ["a/b"], "security_group_ids": ["sg-1"]}},
            "Subnets: 'a/b' does not match",
        ),
    ],
)
def test_what_aws_would_refuse_is_found_before_it_is_sent(settings: dict, sentence: str) -> None:
    config = config_with(**settings)
    found = check_requests(replace(site(), config=config.sagemaker), config=config)
    texts = [finding.text for finding in found if finding.level == "problem"]
    assert any(sentence in text for text in texts)
    assert all(text.startswith("AWS would refuse ") for text in texts)


def test_a_wrong_bucket_or_role_is_left_to_the_checks_of_their_own() -> None:
    wrong = replace(site(), role="nobody", root="s3://b/p", image="")
    assert levels(check_requests(wrong, config=Config())) == ["ok"]


def test_a_request_for_more_than_aws_allows_is_found() -> None:
    request = {"EndpointName": "-", "EndpointConfigName": "fine", "Colour": "red"}
    (unknown,) = model_problems(request, service="sagemaker", operation="CreateEndpoint")
    assert "Colour" in unknown
    del request["Colour"]
    (pattern,) = model_problems(request, service="sagemaker", operation="CreateEndpoint")
    assert "CreateEndpoint.EndpointName: '-' does not match" in pattern
