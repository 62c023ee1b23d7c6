"""Region and roles, before a run: each mistake with its sentence."""

from collections.abc import Iterator

import pytest
from moto import mock_aws

from darkroom.backends.sagemaker.account.findings import Caller, check_region
from darkroom.backends.sagemaker.account.preflight import Finding
from darkroom.backends.sagemaker.account.services import (
    check_execution_role,
    check_passing,
    check_role,
)
from darkroom.backends.sagemaker.session import Clients
from preflight_account import (
    ACCOUNT,
    CALLER,
    REGION,
    ROLE,
    Account,
    Simulator,
    create_role,
    isolate,
    levels,
    problem,
    site,
    stubbed,
)


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path) -> None:
    """Nothing of the user's AWS configuration is seen."""
    isolate(monkeypatch, tmp_path)


@pytest.fixture
def account() -> Iterator[Account]:
    with mock_aws():
        yield Account(REGION)


def test_a_region_with_sagemaker_is_fine() -> None:
    assert levels(check_region("eu-west-1")) == ["ok"]


@pytest.mark.parametrize(
    ("region", "sentence"),
    [
        ("", "no region is set. Set AWS_REGION"),
        ("europe", "'europe' is no region that has SageMaker. Set AWS_REGION to one such as"),
        (
            "eu-west-9",
            "'eu-west-9' is no region that has SageMaker. Set AWS_REGION to eu-central-1",
        ),
    ],
)
def test_a_wrong_region_is_named(region: str, sentence: str) -> None:
    assert sentence in problem(check_region(region))


@pytest.mark.slow
def test_a_role_that_sagemaker_may_assume_is_fine(account: Clients) -> None:
    arn = create_role(account)
    found = check_role(arn, subject="execution role", caller=CALLER, iam=account.iam)
    assert found[0] == Finding(
        "execution role", "ok", "darkroom-execution exists, and SageMaker may assume it."
    )


def test_a_role_in_a_path_is_found(account: Clients) -> None:
    arn = create_role(account, path="/teams/photo/")
    found = check_role(arn, subject="execution role", caller=CALLER, iam=account.iam)
    assert found[0].level == "ok"


def test_a_missing_role_says_how_to_get_one(account: Clients) -> None:
    found = check_role(ROLE, subject="execution role", caller=CALLER, iam=account.iam)
    assert problem(found) == (
        "the role 'darkroom-execution' does not exist. Deploy infrastructure/darkroom.yaml."
    )


def test_a_role_that_sagemaker_may_not_assume_is_named(account: Clients) -> None:
    arn = create_role(account, service="ec2.amazonaws.com")
    found = check_role(arn, subject="execution role", caller=CALLER, iam=account.iam)
    assert "SageMaker may not assume 'darkroom-execution'" in problem(found)
    assert "sagemaker.amazonaws.com" in problem(found)


def test_a_role_of_another_account_is_named(account: Clients) -> None:
    arn = "arn:aws:iam::999999999999:role/darkroom"
    found = check_role(arn, subject="execution role", caller=CALLER, iam=account.iam)
    assert "belongs to another account than the credentials (123456789012)" in problem(found)


def test_what_is_no_role_is_named(account: Clients) -> None:
    found = check_role("darkroom", subject="endpoint role", caller=CALLER, iam=account.iam)
    assert "'darkroom' is no role's ARN" in problem(found)


def test_a_caller_who_may_not_look_at_roles_gets_a_note() -> None:
    iam, stubber = stubbed("iam")
    stubber.add_client_error("get_role", "AccessDenied", "no")
    stubber.add_client_error("simulate_principal_policy", "AccessDenied", "no")
    found = check_role(ROLE, subject="execution role", caller=CALLER, iam=iam)
    found += check_passing(ROLE, subject="execution role", caller=CALLER, iam=iam)
    assert levels(found) == ["note", "note"]
    assert "may not call iam:GetRole" in found[0].text


def decisions(**by_action: str) -> dict:
    results = [
        {"EvalActionName": name.replace("_", ":"), "EvalDecision": decision}
        for name, decision in by_action.items()
    ]
    return {"EvaluationResults": results}


def test_a_caller_who_may_not_pass_the_role_is_told_which_permission_lacks() -> None:
    iam, stubber = stubbed("iam")
    stubber.add_response("simulate_principal_policy", decisions(iam_PassRole="implicitDeny"))
    text = problem(check_passing(ROLE, subject="execution role", caller=CALLER, iam=iam))
    assert text == (
        f"{CALLER.arn!r} may not pass {ROLE!r} to SageMaker: allow it iam:PassRole on that role "
        "(infrastructure/iam/client.json)."
    )


def test_a_session_of_a_role_is_asked_about_as_that_role() -> None:
    iam, stubber = stubbed("iam")
    session = Caller(account=ACCOUNT, arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/dev/ann")
    request = {
        "PolicySourceArn": f"arn:aws:iam::{ACCOUNT}:role/dev",
        "ActionNames": ["iam:PassRole"],
        "ResourceArns": [ROLE],
        "ContextEntries": [
            {
                "ContextKeyName": "iam:PassedToService",
                "ContextKeyValues": ["sagemaker.amazonaws.com"],
                "ContextKeyType": "string",
            }
        ],
    }
    stubber.add_response("simulate_principal_policy", decisions(iam_PassRole="allowed"), request)
    assert levels(check_passing(ROLE, subject="role", caller=session, iam=iam)) == ["ok"]


def test_the_root_user_needs_no_permission() -> None:
    iam, _ = stubbed("iam")
    root = Caller(account=ACCOUNT, arn=f"arn:aws:iam::{ACCOUNT}:root")
    assert check_passing(ROLE, subject="role", caller=root, iam=iam) == []


def test_an_execution_role_that_lacks_permissions_hears_of_all_of_them() -> None:
    iam = Simulator(denied=("s3:PutObject", "sagemaker:CreateEndpoint"))
    text = problem(check_execution_role(site(), caller=CALLER, iam=iam))
    assert "s3:PutObject on arn:aws:s3:::photos/darkroom/probe" in text
    assert f"sagemaker:CreateEndpoint on arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/" in text
    assert "infrastructure/iam/execution-role.json" in text


def test_an_execution_role_that_may_everything_is_fine() -> None:
    assert levels(check_execution_role(site(), caller=CALLER, iam=Simulator())) == ["ok"]
