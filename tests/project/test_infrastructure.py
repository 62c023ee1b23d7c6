"""Policies and template: lint, agreement with each other, and with what the code calls."""

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from aws_calls import Code, Definition, called_actions
from checkout import CHECKOUT
from darkroom.backends.sagemaker.hosting.request import ANSWERS, IMAGES, configuration_request
from darkroom.backends.sagemaker.hosting.several_models import archive_of, prefix_of_models
from darkroom.backends.sagemaker.session import SageMakerContext
from darkroom.config.sagemaker import SageMakerConfig

TEMPLATE = CHECKOUT / "infrastructure" / "darkroom.yaml"
POLICIES = CHECKOUT / "infrastructure" / "iam"

PLACEHOLDERS = {
    "<region>": "${AWS::Region}",
    "<account>": "${AWS::AccountId}",
    "<bucket>": "${BucketName}",
    "<prefix>": "${Prefix}",
    "<repository>": "${RepositoryName}",
    "<execution-role>": "${Name}-execution",
    "<endpoint-role>": "${Name}-endpoint",
    "<codebuild-project>": "${Name}-image",
    "<mlflow-server>": "${Name}",
    "<mlflow-app>": "${MlflowApp}",
    "arn:aws:": "arn:${AWS::Partition}:",
}
"""What stands in the JSON files, and what the template says for it."""

ROLES = {
    "ExecutionRole": "execution-role",
    "EndpointRole": "endpoint-role",
    "MlflowRole": "mlflow-role",
    "BuildRole": "codebuild-role",
}
S3 = "arn:aws:s3:::"
FREE = {"sts:GetCallerIdentity"}  # needs no permission
LARGEST_MANAGED, LARGEST_INLINE = 6144, 10240  # IAM's quotas, in characters without blanks


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms: `!Sub text` as the text, others as [name, value]."""


def _short_form(loader: _Loader, suffix: str, node: yaml.Node) -> object:
    if suffix == "Sub":
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return [suffix, loader.construct_sequence(node)]
    return [suffix, loader.construct_scalar(node)]


_Loader.add_multi_constructor("!", _short_form)


def template() -> dict[str, Any]:
    return yaml.load(TEMPLATE.read_text(), Loader=_Loader)


def policy(name: str) -> dict[str, Any]:
    return json.loads((POLICIES / f"{name}.json").read_text())


def filled_in(name: str) -> dict[str, Any]:
    """A policy as the template has to say it."""
    text = (POLICIES / f"{name}.json").read_text()
    for placeholder, value in PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    return json.loads(text)


def listed(value: object) -> list:
    return value if isinstance(value, list) else [value]


def allowed(name: str) -> set[str]:
    return {
        action
        for statement in policy(name)["Statement"]
        if statement["Effect"] == "Allow"
        for action in listed(statement["Action"])
    }


@pytest.mark.slow
def test_the_linter_finds_nothing_in_the_template() -> None:
    linter = Path(sys.executable).with_name("cfn-lint")
    checks = ["--include-checks", "I3042", "W", "--", str(TEMPLATE)]
    done = subprocess.run([linter, *checks], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("role", "name"), ROLES.items())
def test_roles_of_the_template_have_the_policies_of_the_files(role: str, name: str) -> None:
    (inline,) = template()["Resources"][role]["Properties"]["Policies"]
    assert inline["PolicyDocument"] == filled_in(name)


def test_the_clients_policy_in_the_template_is_that_of_the_file() -> None:
    document = template()["Resources"]["ClientPolicy"]["Properties"]["PolicyDocument"]
    assert document == filled_in("client")


@pytest.mark.parametrize("role", ["ExecutionRole", "EndpointRole", "MlflowRole"])
def test_sagemaker_of_this_account_alone_may_assume_the_roles(role: str) -> None:
    document = template()["Resources"][role]["Properties"]["AssumeRolePolicyDocument"]
    assert document == filled_in("trust")


def test_the_names_of_the_template_are_those_that_the_policies_mean() -> None:
    resources = template()["Resources"]
    assert resources["ExecutionRole"]["Properties"]["RoleName"] == "${Name}-execution"
    assert resources["EndpointRole"]["Properties"]["RoleName"] == "${Name}-endpoint"
    assert resources["Build"]["Properties"]["Name"] == "${Name}-image"


def test_the_outputs_name_the_values_that_the_stack_needs() -> None:
    described = " ".join(output["Description"] for output in template()["Outputs"].values())
    text = (CHECKOUT / "stacks" / "values.py").read_text()
    asked_for = set(re.findall(r"DARKROOM_[A-Z0-9_]*(?:ARN|ROOT|REGISTRY|PROJECT)", text))
    assert len(asked_for) >= 4
    assert {name for name in asked_for if name not in described} == set()


@pytest.mark.parametrize("name", ["execution-role", "endpoint-role", "client", "codebuild-role"])
def test_policies_fit_into_iams_quotas(name: str) -> None:
    longest = {"<bucket>": "b" * 63, "<prefix>": "p" * 20, "<region>": "ap-southeast-2"}
    text = json.dumps(policy(name), separators=(",", ":"))
    for placeholder, value in {**longest, "<account>": "1" * 12}.items():
        text = text.replace(placeholder, value)
    assert len(text) < (LARGEST_MANAGED if name == "client" else LARGEST_INLINE)


@pytest.mark.parametrize("path", sorted(POLICIES.glob("*.json")), ids=lambda path: path.stem)
def test_no_policy_allows_everything(path: Path) -> None:
    for statement in policy(path.stem)["Statement"]:
        actions = listed(statement["Action"])
        assert "*" not in actions
        wide = [action for action in actions if action.endswith(":*")]
        assert wide in ([], ["sagemaker-mlflow:*"])
        assert not (wide and statement["Resource"] == "*")


@pytest.mark.parametrize("name", ["execution-role", "client"])
def test_roles_are_passed_to_sagemaker_alone_and_by_name(name: str) -> None:
    (statement,) = [s for s in policy(name)["Statement"] if "iam:PassRole" in listed(s["Action"])]
    condition = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    assert statement["Condition"] == condition
    assert not any(resource.endswith("*") for resource in listed(statement["Resource"]))


def test_endpoints_and_transforms_may_reach_what_their_requests_name() -> None:
    """A transform job reads and writes under the role of its model (CreateModel's reference)."""

    def request(**hosting: object) -> dict[str, Any]:
        config = SageMakerConfig.model_validate({"hosting": hosting})
        with_it = replace(site, config=config)
        return configuration_request(
            "name", model="m", endpoint="e", site=with_it, tags=[], start_timeout_seconds=60
        )

    site = SageMakerContext(region="", role="", image="", root="s3://<bucket>/<prefix>")
    capture = request(capture_percent=1)["DataCaptureConfig"]["DestinationS3Uri"]
    output = request(kind="asynchronous")["AsyncInferenceConfig"]["OutputConfig"]
    answers = output["S3OutputPath"]
    written = [capture, answers, output["S3FailurePath"], site.uri("transform", "name", "output")]
    read = [
        site.uri("models", "version", "model.tar.gz"),
        archive_of("dogs", prefix=prefix_of_models("pets", site=site)),
        answers.replace(ANSWERS, IMAGES),
        site.uri("transform", "name", "input"),
    ]
    for uris, action in ((written, "s3:PutObject"), (read, "s3:GetObject")):
        for uri in uris:
            assert may("endpoint-role", action=action, arn=f"{uri.replace('s3://', S3)}/part")


def may(name: str, *, action: str, arn: str) -> bool:
    return any(
        action in listed(statement["Action"]) and fnmatchcase(arn, resource)
        for statement in policy(name)["Statement"]
        for resource in listed(statement["Resource"])
    )


FOREIGN = {
    "sagemaker:DeleteEndpoint": "endpoint",
    "sagemaker:DeleteEndpointConfig": "endpoint-config",
    "sagemaker:DeleteModel": "model",
    "sagemaker:DeleteTags": "endpoint",
    "sagemaker:InvokeEndpoint": "endpoint",
    "sagemaker:UpdateEndpoint": "endpoint",
    "sagemaker:AddTags": "endpoint",
    "sagemaker:StopTrainingJob": "training-job",
    "sagemaker:StopHyperParameterTuningJob": "hyper-parameter-tuning-job",
    "sagemaker:StopTransformJob": "transform-job",
    "cloudwatch:DeleteAlarms": "alarm",
    "application-autoscaling:DeregisterScalableTarget": "scalable-target",
    "sagemaker-mlflow:GetRun": "mlflow-tracking-server",
    "s3:ListBucket": "",
}
"""What could touch somebody else's, and the kind of thing that it touches."""


@pytest.mark.parametrize("action", FOREIGN)
def test_the_execution_role_may_not_touch_what_is_somebody_elses(action: str) -> None:
    service, kind = action.partition(":")[0].removesuffix("-mlflow"), FOREIGN[action]
    separator = ":" if kind == "alarm" else "/"
    theirs = f"arn:aws:{service}:<region>:<account>:{kind}{separator}theirs"
    if service == "s3":
        theirs = "arn:aws:s3:::<bucket>"
    giving = [
        statement
        for statement in policy("execution-role")["Statement"]
        if any(fnmatchcase(action, one) for one in listed(statement["Action"]))
    ]
    assert giving
    touching = [
        statement
        for statement in giving
        if any(fnmatchcase(theirs, resource) for resource in listed(statement["Resource"]))
    ]
    for statement in touching:
        conditions = {key for each in statement["Condition"].values() for key in each}
        assert conditions <= {
            "aws:ResourceTag/darkroom:run",
            "sagemaker:TaggingAction",
            "application-autoscaling:service-namespace",
            "s3:prefix",
        }


def test_endpoints_may_neither_write_models_nor_start_anything() -> None:
    assert not {a for a in allowed("endpoint-role") if a.startswith(("sagemaker:", "iam:"))}
    (writing,) = [s for s in policy("endpoint-role")["Statement"] if "s3:PutObject" in s["Action"]]
    root = "arn:aws:s3:::<bucket>/<prefix>"
    written = ("asynchronous", "capture", "transform")
    assert writing["Resource"] == [f"{root}/{folder}/*" for folder in written]


# What the code calls


BACKENDS = Code("darkroom/backends")


def lacking(definitions: set[Definition], *, name: str) -> list[str]:
    """Calls that a policy does not allow, each with where it stands."""
    patterns = allowed(name) | FREE
    return sorted(
        f"{'.'.join(definition)}: {' or '.join(sorted(actions))}"
        for definition in definitions
        for statement in BACKENDS.definitions[definition]
        for actions in called_actions(statement)
        if not any(fnmatchcase(action, pattern) for action in actions for pattern in patterns)
    )


def test_the_execution_role_may_do_what_the_pipelines_components_call() -> None:
    reached = BACKENDS.reached_from("steps", "materializers")
    assert "CreateTrainingJob" in str(calls(reached))
    assert lacking(reached, name="execution-role") == []


def test_the_client_may_do_what_the_commands_call() -> None:
    """And what no component calls, so that nothing is left out."""
    rest = BACKENDS.definitions.keys() - BACKENDS.reached_from("steps", "materializers")
    reached = BACKENDS.reached_from("commands") | rest
    assert "DescribeEndpoint" in str(calls(reached))
    assert lacking(reached, name="client") == []


def calls(definitions: set[Definition]) -> set[frozenset[str]]:
    statements = [s for definition in definitions for s in BACKENDS.definitions[definition]]
    return {actions for statement in statements for actions in called_actions(statement)}


@pytest.mark.parametrize(
    ("source", "actions"),
    [
        ("clients.sagemaker.create_endpoint(**r)", {"sagemaker:CreateEndpoint"}),
        ("self.clients.s3.upload_file(a, b, c)", {"s3:PutObject"}),
        ("client.get_paginator('list_pipelines')", {"sagemaker:ListPipelines"}),
        ("clients.runtime.invoke_endpoint()", {"sagemaker:InvokeEndpoint"}),
        ("clients.runtime.invoke_endpoint_async()", {"sagemaker:InvokeEndpointAsync"}),
        ("retry(clients.autoscaling.deregister_scalable_target)", {
            "application-autoscaling:DeregisterScalableTarget"
        }),
        ("pattern.search('a')", set()),
    ],
)  # fmt: skip
def test_calls_are_found_in_the_source(source: str, actions: set[str]) -> None:
    assert set().union(*called_actions(ast.parse(source))) == actions


def test_actions_of_others_are_named_by_commit() -> None:
    text = (CHECKOUT / ".github" / "workflows" / "ci.yml").read_text()
    used = re.findall(r"uses: (.+)", text)
    assert used
    unpinned = [one for one in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", one)]
    assert unpinned == []
