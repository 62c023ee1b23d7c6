"""Check an account before a run: quotas, instance types, endpoints, requests, all the rest."""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

import botocore.session
from botocore.exceptions import BotoCoreError, ClientError
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StringShape, StructureShape
from botocore.parsers import ResponseParserError
from botocore.validate import ParamValidator

from darkroom.backends.sagemaker.account.findings import (
    UNREADABLE,
    Caller,
    Check,
    Finding,
    check_region,
    find_caller,
    survive,
)
from darkroom.backends.sagemaker.account.services import (
    check_bucket,
    check_execution_role,
    check_image,
    check_managed_mlflow,
    check_mlflow_url,
    check_passing,
    check_role,
    check_zenml,
)
from darkroom.backends.sagemaker.hosting.request import (
    configuration_request,
    endpoint_request,
    model_request,
)
from darkroom.backends.sagemaker.request_rules import problems as broken_rules
from darkroom.backends.sagemaker.resources import JobIdentity, tags_of
from darkroom.backends.sagemaker.session import SageMakerContext, explained
from darkroom.backends.sagemaker.training.job import training_request
from darkroom.backends.sagemaker.transform import transform_request
from darkroom.backends.sagemaker.tuning.job import tuning_request
from darkroom.base.errors import DarkroomError, UserError
from darkroom.config import Config
from darkroom.config.sagemaker import AsynchronousConfig, HostingConfig
from darkroom.config.tuning import trials_wanted

if TYPE_CHECKING:
    from mypy_boto3_service_quotas import ServiceQuotasClient

    from darkroom.backends.sagemaker.session import Clients

__all__ = ["Finding", "check_account"]


# --- service model ---
# What botocore's model of a service says against a request.
#
# botocore itself, before it sends one, looks at names, types and lower bounds; patterns,
# choices and upper bounds are left to the service, and looked at here.

_NOT_PYTHONS = re.compile(r"\\p\{|\\u[0-9A-F]{4}|\[:")
"""Character classes of Java's that Python's patterns lack."""


@cache
def service_model(service: str) -> ServiceModel:
    """All operations and shapes of a service; reading them takes a while."""
    return botocore.session.get_session().get_service_model(service)


def model_problems(request: dict[str, Any], *, service: str, operation: str) -> list[str]:
    """Members that are unknown, missing, of a wrong type or of a value that is not allowed."""
    shape = service_model(service).operation_model(operation).input_shape
    if shape is None:
        return []
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        return [f"{operation}: {line}" for line in report.generate_report().splitlines()]
    return list(_shape_problems(request, shape=shape, path=operation))


def _shape_problems(value: Any, *, shape: Shape, path: str) -> Iterator[str]:  # noqa: ANN401
    if isinstance(shape, StructureShape):
        for name, item in value.items():
            yield from _shape_problems(item, shape=shape.members[name], path=f"{path}.{name}")
    elif isinstance(shape, ListShape):
        yield from _too_much(len(value), unit=" items", shape=shape, path=path)
        for item in value:
            yield from _shape_problems(item, shape=shape.member, path=path)
    elif isinstance(shape, MapShape):
        yield from _too_much(len(value), unit=" entries", shape=shape, path=path)
        for name, item in value.items():
            yield from _shape_problems(name, shape=shape.key, path=path)
            yield from _shape_problems(item, shape=shape.value, path=f"{path}.{name}")
    elif isinstance(shape, StringShape):
        yield from _text_problems(value, shape=shape, path=path)
    elif shape.type_name in ("integer", "long"):
        yield from _too_much(value, unit="", shape=shape, path=path)


def _too_much(value: int, *, unit: str, shape: Shape, path: str) -> Iterator[str]:
    most = shape.metadata.get("max")
    if most is not None and value > most:
        yield f"{path}: {value}{unit} is more than {most}"


def _text_problems(value: str, *, shape: StringShape, path: str) -> Iterator[str]:
    yield from _too_much(len(value), unit=" characters", shape=shape, path=path)
    if shape.enum and value not in shape.enum:
        yield f"{path}: {value!r} is not among the {len(shape.enum)} values that AWS knows"
    pattern = str(shape.metadata.get("pattern", ""))
    if pattern and not _NOT_PYTHONS.search(pattern) and not re.fullmatch(pattern, value):
        yield f"{path}: {value!r} does not match {pattern}"


# --- demand ---
# Which instances a run wants at once: what quotas and instance types are checked against.

Use = Literal[
    "training job", "spot training job", "training warm pool", "endpoint", "transform job"
]
"""As Service Quotas words it: 'ml.m5.xlarge for endpoint usage'."""


@dataclass(frozen=True)
class Demand:
    """Instances of one type for one use."""

    instance_type: str
    use: Use
    count: int
    """At once, at most."""
    setting: str
    """Where the configuration says so."""

    @property
    def quota_name(self) -> str:
        """What Service Quotas calls it."""
        return f"{self.instance_type} for {self.use} usage"


def demands_of(config: Config) -> list[Demand]:
    """What a run wants at once, demands of one quota added up."""
    added: dict[str, Demand] = {}
    for demand in _demands(config):
        before = added.get(demand.quota_name)
        added[demand.quota_name] = Demand(
            instance_type=demand.instance_type,
            use=demand.use,
            count=demand.count + (before.count if before else 0),
            setting=f"{before.setting} and {demand.setting}" if before else demand.setting,
        )
    return list(added.values())


def _demands(config: Config) -> Iterator[Demand]:
    settings = config.sagemaker
    orchestration, training = settings.orchestration, settings.training
    yield Demand(
        orchestration.instance_type, "training job", 1, "sagemaker.orchestration.instance_type"
    )
    tuning = config.tuning
    parallel = min(settings.tuning.parallel_jobs, trials_wanted(tuning)) if tuning.enabled else 1
    at_once = training.instance_count * parallel
    use: Use = "spot training job" if training.spot else "training job"
    yield Demand(training.instance_type, use, at_once, "sagemaker.training.instance_type")
    if training.keep_alive_seconds:
        yield Demand(training.instance_type, "training warm pool", at_once, "sagemaker.training")
    if config.deployment.enabled:
        yield from _serving(config)


def _serving(config: Config) -> Iterator[Demand]:
    hosting, transform = config.sagemaker.hosting, config.sagemaker.transform
    if hosting.kind != "serverless":
        yield Demand(
            hosting.instance_type,
            "endpoint",
            max(1, hosting.autoscaling.min_instances),
            "sagemaker.hosting.instance_type",
        )
    if config.batch.split != "none":
        yield Demand(
            transform.instance_type,
            "transform job",
            transform.instance_count,
            "sagemaker.transform.instance_type",
        )


# --- quotas ---
# Whether the account may use as many instances at once as the run wants.

_QUOTAS = "quotas"


def check_quotas(
    demands: Sequence[Demand], *, region: str, client: "ServiceQuotasClient"
) -> list[Finding]:
    """Compare the demands with the quotas that apply to the account.

    What other jobs of the account use meanwhile is not known.
    """

    def check() -> list[Finding]:
        quotas = _applied(client)
        found = [_compare(demand, quotas=quotas, region=region) for demand in demands]
        if all(finding.level == "ok" for finding in found):
            return [Finding(_QUOTAS, "ok", " ".join(finding.text for finding in found))]
        return [finding for finding in found if finding.level != "ok"]

    return survive(check, subject=_QUOTAS, action="servicequotas:ListServiceQuotas")


def _applied(client: "ServiceQuotasClient") -> dict[str, tuple[float, str]]:
    """Value and code of each of SageMaker's quotas, by name."""
    pages = client.get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
    return {
        quota["QuotaName"]: (quota["Value"], quota["QuotaCode"])
        for page in pages
        for quota in page["Quotas"]
    }


def _compare(demand: Demand, *, quotas: dict[str, tuple[float, str]], region: str) -> Finding:
    if demand.quota_name not in quotas:
        text = f"Service Quotas lists no {demand.quota_name!r}; {demand.count} is wanted."
        return Finding(_QUOTAS, "note", text)
    value, code = quotas[demand.quota_name]
    if demand.count <= value:
        return Finding(_QUOTAS, "ok", f"{demand.quota_name}: {demand.count} of {value:g}.")
    text = (
        f"{demand.quota_name!r} is {value:g} in {region}, the run wants {demand.count} at once "
        f"({demand.setting}). Ask for more (aws service-quotas request-service-quota-increase "
        f"--service-code sagemaker --quota-code {code} --desired-value {demand.count} "
        f"--region {region}; it may take days), or configure fewer or other instances."
    )
    return Finding(_QUOTAS, "problem", text)


# --- instances ---
# Whether SageMaker has the instance types, by the service model that botocore carries.

_INSTANCE_TYPES = "instance types"
_SHAPES: dict[Use, str] = {
    "training job": "TrainingInstanceType",
    "spot training job": "TrainingInstanceType",
    "training warm pool": "TrainingInstanceType",
    "endpoint": "ProductionVariantInstanceType",
    "transform job": "TransformInstanceType",
}


def check_instance_types(demands: Sequence[Demand]) -> list[Finding]:
    """The types that SageMaker does not have for that use, with the nearest that it has."""
    problems = [
        Finding(_INSTANCE_TYPES, "problem", _unknown(demand))
        for demand in demands
        if demand.instance_type not in known_types(demand.use)
    ]
    if problems:
        return problems
    names = ", ".join(dict.fromkeys(demand.instance_type for demand in demands))
    return [Finding(_INSTANCE_TYPES, "ok", f"SageMaker knows {names}.")]


def known_types(use: Use) -> frozenset[str]:
    """All instance types for a use, as of the installed botocore."""
    model = service_model("sagemaker")
    # botocore's shapes have `enum` only where they are strings, which its types do not say.
    return frozenset(getattr(model.shape_for(_SHAPES[use]), "enum", ()))


def _unknown(demand: Demand) -> str:
    near = get_close_matches(demand.instance_type, sorted(known_types(demand.use)), n=3)
    choice = f"Near it are {near}" if near else "Usual are 'ml.m5.xlarge' and 'ml.g5.xlarge'"
    return (
        f"{demand.setting}: {demand.instance_type!r} is no instance type for a {demand.use}. "
        f"{choice}."
    )


# --- hosting ---
# What is worth knowing of the kind of endpoint before anybody relies on it.
#
# Limits are those of the developer guide: serverless-endpoints.html, async-inference.html.

_ENDPOINT = "endpoint"


def check_hosting(config: Config) -> list[Finding]:
    """Notes on what the kind of endpoint does to whoever asks it."""
    if not config.deployment.enabled:
        return []
    return [Finding(_ENDPOINT, "note", text) for text in _notes(config.sagemaker.hosting)]


def _notes(hosting: HostingConfig) -> Iterator[str]:
    if hosting.kind == "serverless":
        yield "serverless endpoints refuse images of more than 4 MB; others take 6 MB."
        if not hosting.serverless.provisioned_concurrency:
            yield (
                "the first request after a pause waits until a copy has started; "
                "sagemaker.hosting.serverless.provisioned_concurrency keeps some warm, at a price."
            )
    if hosting.kind == "asynchronous":
        yield (
            "an asynchronous endpoint answers on S3, not at once; images may have 25 MB, others "
            "take 6 MB."
        )
        yield from _queue_notes(hosting.asynchronous)
        if not hosting.autoscaling.min_instances:
            yield (
                "without an instance (autoscaling.min_instances: 0) an answer takes minutes: an "
                "alarm starts one after two minutes, and it has to come up."
            )


def _queue_notes(queue: AsynchronousConfig) -> Iterator[str]:
    if topics := [topic for topic in (queue.success_topic, queue.error_topic) if topic]:
        yield (
            f"the endpoint role needs sns:Publish on {' and '.join(topics)}, which the policy "
            "infrastructure/iam/endpoint-role.json does not give."
        )


# --- requests ---
# Whether AWS would accept what a run is going to send, as far as its rules are known.

_REQUESTS = "requests"
_NAME = "darkroom-check"
"""Stands for names that are known once the data and the model are."""
_DIGEST = "0" * 12

_ROLE = "arn:aws:iam::123456789012:role/darkroom-check"
_ROOT = "s3://darkroom-check/darkroom"
_IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/darkroom:check"

Build = Callable[[], dict[str, Any]]


def check_requests(site: SageMakerContext, *, config: Config) -> list[Finding]:
    """Build every request that starts something, with stand-ins for what is not known yet.

    Each is held against the service model and the rules between its members; a problem
    that several share is named once. Role, bucket and image have checks of their own.
    """
    site = replace(site, role=_ROLE, endpoint_role="", root=_ROOT, image=_IMAGE)
    found = [
        text
        for operation, build in _requests(site, config=config)
        for text in _problems(operation, build=build)
    ]
    if not found:
        return [Finding(_REQUESTS, "ok", "AWS's rules, as far as they are known, allow them all.")]
    return [
        Finding(_REQUESTS, "problem", f"AWS would refuse {text}. Change the configuration.")
        for text in dict.fromkeys(found)
    ]


def _problems(operation: str, *, build: Build) -> list[str]:
    try:
        request = build()
    except UserError as error:
        return [f"{operation}: {problem}" for problem in error.problems]
    against_model = model_problems(request, service="sagemaker", operation=operation)
    rules = broken_rules(operation, request)
    return [*against_model, *(f"{operation}: {rule.message.rstrip('.')}" for rule in rules)]


def _requests(site: SageMakerContext, *, config: Config) -> Iterator[tuple[str, Build]]:
    yield "CreateTrainingJob", lambda: _training(site, config=config)
    if config.tuning.enabled:
        yield "CreateHyperParameterTuningJob", lambda: _tuning(site, config=config)
    if config.deployment.enabled:
        yield from _hosting(site, start_timeout_seconds=config.deployment.start_timeout_seconds)
    if config.deployment.enabled and config.batch.split != "none":
        yield "CreateTransformJob", lambda: _transform(site)


def _training(site: SageMakerContext, *, config: Config) -> dict[str, Any]:
    identity = JobIdentity("training", _DIGEST)
    return training_request(
        identity.name(1),
        identity=identity,
        dataset=site.uri("datasets", _NAME),
        hyperparameters=config.hyperparameters,
        debugging=config.debugging,
        site=site,
    )


def _tuning(site: SageMakerContext, *, config: Config) -> dict[str, Any]:
    identity = JobIdentity("tuning", _DIGEST)
    return tuning_request(
        identity.name(1),
        identity=identity,
        dataset=site.uri("datasets", _NAME),
        hyperparameters=config.hyperparameters,
        debugging=config.debugging,
        tuning=config.tuning,
        site=site,
    )


def _hosting(
    site: SageMakerContext, *, start_timeout_seconds: float
) -> Iterator[tuple[str, Build]]:
    tags, name = tags_of(site), site.config.hosting.name or _NAME
    archive = site.uri("models", _NAME, "model.tar.gz")
    yield "CreateModel", lambda: model_request(name, archive=archive, site=site, tags=tags)
    yield (
        "CreateEndpointConfig",
        lambda: configuration_request(
            name,
            model=name,
            endpoint=name,
            site=site,
            tags=tags,
            start_timeout_seconds=start_timeout_seconds,
        ),
    )
    yield "CreateEndpoint", lambda: endpoint_request(name, configuration=name, tags=tags)


def _transform(site: SageMakerContext) -> dict[str, Any]:
    return transform_request(
        _NAME,
        model=_NAME,
        images=site.uri("transform", _NAME, "input"),
        output=site.uri("transform", _NAME, "output"),
        site=site,
        tags=tags_of(site),
    )


# --- the whole check ---

_THREADS = 8


def check_account(
    site: SageMakerContext, *, config: Config, zenml_url: str, mlflow_uri: str, clients: "Clients"
) -> list[Finding]:
    """Look at all that a run on SageMaker needs; nothing is created or changed.

    Args:
        zenml_url: of the ZenML server, as jobs will use it.
        mlflow_uri: http(s) address of an MLflow server, or ARN of a managed one.
        clients: of `site.region`.

    Returns:
        What was found, problems with what to do; in the order in which it is needed.
    """
    found = [
        *check_region(site.region),
        *check_instance_types(demands_of(config)),
        *check_requests(site, config=config),
        *check_hosting(config),
    ]
    checks: list[Check] = [partial(check_zenml, zenml_url)]
    if not mlflow_uri.startswith("arn:"):
        checks.append(partial(check_mlflow_url, mlflow_uri))
    caller = _caller(clients)
    if isinstance(caller, Finding):
        return [caller, *found, *_together(checks)]
    welcome = Finding("credentials", "ok", f"{caller.arn} of account {caller.account}.")
    account = _account_checks(
        site, config=config, mlflow_uri=mlflow_uri, caller=caller, clients=clients
    )
    return [welcome, *found, *_together([*account, *checks])]


def _caller(clients: "Clients") -> Caller | Finding:
    """Who we are; where AWS will not say, nothing else of the account can be asked."""
    try:
        return find_caller(clients.sts)
    except (ClientError, BotoCoreError) as error:
        text = str(explained(error, what="the account"))
    except ResponseParserError:
        text = UNREADABLE
    except DarkroomError as error:
        text = str(error)
    return Finding("credentials", "problem", f"{text} What lies in the account was not checked.")


def _account_checks(
    site: SageMakerContext, *, config: Config, mlflow_uri: str, caller: Caller, clients: "Clients"
) -> list[Check]:
    iam, region, role = clients.iam, site.region, "execution role"
    serverless = config.sagemaker.hosting.kind == "serverless"
    checks: list[Check] = [
        partial(check_role, site.role, subject=role, caller=caller, iam=iam),
        partial(check_passing, site.role, subject=role, caller=caller, iam=iam),
        partial(check_execution_role, site, caller=caller, iam=iam),
        partial(check_bucket, site.root, region=region, s3=clients.s3),
        partial(check_image, site.image, region=region, ecr=clients.ecr, serverless=serverless),
        partial(check_quotas, demands_of(config), region=region, client=clients.quotas),
    ]
    if site.endpoint_role:
        hosting = partial(check_role, site.endpoint_role, caller=caller, iam=iam)
        checks.append(partial(hosting, subject="endpoint role"))
    if mlflow_uri.startswith("arn:"):
        checks.append(
            partial(check_managed_mlflow, mlflow_uri, region=region, sagemaker=clients.sagemaker)
        )
    return checks


def _together(checks: Sequence[Check]) -> list[Finding]:
    with ThreadPoolExecutor(max_workers=_THREADS) as threads:
        answers = [threads.submit(check) for check in checks]
        return [finding for answer in answers for finding in answer.result()]
