"""Whether AWS would accept what a run is going to send, as far as its rules are known."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from darkroom.backends.sagemaker.identity import JobIdentity, tags_of
from darkroom.backends.sagemaker.preflight.findings import Finding
from darkroom.backends.sagemaker.preflight.service_model import model_problems
from darkroom.backends.sagemaker.request_rules import problems as broken_rules
from darkroom.backends.sagemaker.requests.hosting import (
    configuration_request,
    endpoint_request,
    model_request,
)
from darkroom.backends.sagemaker.requests.training import training_request
from darkroom.backends.sagemaker.requests.transform import transform_request
from darkroom.backends.sagemaker.requests.tuning import tuning_request
from darkroom.backends.sagemaker.site import Site
from darkroom.config import Config
from darkroom.errors import UserError

_SUBJECT = "requests"
_NAME = "darkroom-check"
"""Stands for names that are known once the data and the model are."""
_DIGEST = "0" * 12

_ROLE = "arn:aws:iam::123456789012:role/darkroom-check"
_ROOT = "s3://darkroom-check/darkroom"
_IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/darkroom:check"

Build = Callable[[], dict[str, Any]]


def check_requests(site: Site, *, config: Config) -> list[Finding]:
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
        return [Finding(_SUBJECT, "ok", "AWS's rules, as far as they are known, allow them all.")]
    return [
        Finding(_SUBJECT, "problem", f"AWS would refuse {text}. Change the configuration.")
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


def _requests(site: Site, *, config: Config) -> Iterator[tuple[str, Build]]:
    yield "CreateTrainingJob", lambda: _training(site, config=config)
    if config.tuning.enabled:
        yield "CreateHyperParameterTuningJob", lambda: _tuning(site, config=config)
    if config.deployment.enabled:
        yield from _hosting(site, start_timeout_seconds=config.deployment.start_timeout_seconds)
    if config.deployment.enabled and config.batch.split != "none":
        yield "CreateTransformJob", lambda: _transform(site)


def _training(site: Site, *, config: Config) -> dict[str, Any]:
    identity = JobIdentity("training", _DIGEST)
    return training_request(
        identity.name(1),
        identity=identity,
        dataset=site.uri("datasets", _NAME),
        hyperparameters=config.hyperparameters,
        debugging=config.debugging,
        site=site,
    )


def _tuning(site: Site, *, config: Config) -> dict[str, Any]:
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


def _hosting(site: Site, *, start_timeout_seconds: float) -> Iterator[tuple[str, Build]]:
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


def _transform(site: Site) -> dict[str, Any]:
    return transform_request(
        _NAME,
        model=_NAME,
        images=site.uri("transform", _NAME, "input"),
        output=site.uri("transform", _NAME, "output"),
        site=site,
        tags=tags_of(site),
    )
