"""Names of what hosts a model, such that the same deployment is found again.

    <name>                        the endpoint that is kept
    <name>-check-<version>        one that lives for the time of its check
    <endpoint>-<digest>           model and endpoint configuration

The digests are of what AWS cannot change in them: files of the bundle, image, role, network;
for a configuration its instances too.
"""

import hashlib
import json
import re
from dataclasses import dataclass

from darkroom.backends.sagemaker.requests.hosting import environment
from darkroom.backends.sagemaker.site import Site
from darkroom.model.bundle import BundleMetadata

_LONGEST = 63
_DIGITS = 16
_OTHERS = re.compile(r"[^a-zA-Z0-9]+")
_ELSEWHERE = {"name", "rollout", "time_to_live_hours", "approve"}
"""Of the hosting section: what is no part of an endpoint configuration."""


@dataclass(frozen=True)
class HostingNames:
    """Of one deployment."""

    endpoint: str
    model: str
    configuration: str


def hosting_names(
    metadata: BundleMetadata, *, name: str, keep: bool, site: Site, start_timeout_seconds: float
) -> HostingNames:
    """The names for a bundle.

    Args:
        name: of the model; the endpoint's where the configuration names none.
        keep: whether the endpoint stays; else it gets a name of its own.
        start_timeout_seconds: which the endpoint configuration states.
    """
    if keep:
        endpoint = clean(site.config.hosting.name or name)
    else:
        suffix = f"-check-{metadata.version}"
        endpoint = clean(name, longest=_LONGEST - len(suffix)) + suffix
    content: list[object] = [endpoint, _hosted(metadata, site=site)]
    return HostingNames(
        endpoint=endpoint,
        model=_digested(endpoint, content=content),
        configuration=_digested(
            endpoint, content=[*content, *_variant(site, start_timeout_seconds)]
        ),
    )


def names_of_several(*, name: str, site: Site, start_timeout_seconds: float) -> HostingNames:
    """The names of an endpoint with several models, whichever they are: more may be added."""
    endpoint = clean(site.config.hosting.name or name)
    content: list[object] = [endpoint, "several", *_place(site)]
    cache = site.config.hosting.multi_model.model_dump()
    return HostingNames(
        endpoint=endpoint,
        model=_digested(endpoint, content=[*content, cache]),
        configuration=_digested(
            endpoint, content=[*content, *_variant(site, start_timeout_seconds)]
        ),
    )


def clean(name: str, *, longest: int = _LONGEST) -> str:
    """Letters, digits and single hyphens, as SageMaker's names want it."""
    return _OTHERS.sub("-", name).strip("-")[:longest].strip("-")


def prefix_of(endpoint: str) -> str:
    """What the names of an endpoint's models and configurations begin with."""
    return clean(endpoint, longest=_LONGEST - 1 - _DIGITS)


def _hosted(metadata: BundleMetadata, *, site: Site) -> list[object]:
    return [metadata.files, *metadata.compiled_for, *_place(site)]


def _place(site: Site) -> list[object]:
    """What else AWS cannot change in a model."""
    variables = environment(site.config.hosting)
    network = site.config.network.model_dump()
    return [site.image, site.hosting_role, network, *([variables] if variables else [])]


def _variant(site: Site, start_timeout_seconds: float) -> list[object]:
    """What else AWS cannot change in an endpoint configuration."""
    settings = site.config.hosting.model_dump(exclude=_ELSEWHERE)
    timed = [] if site.config.hosting.kind == "serverless" else [start_timeout_seconds]
    return [settings, site.config.kms_key, *timed]


def _digested(name: str, *, content: list[object]) -> str:
    text = json.dumps(content, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
    return f"{prefix_of(name)}-{digest}"
