"""What a server can be told, by flags or by environment variables DARKROOM_SERVE_….

    serve --workers 4                 DARKROOM_SERVE_WORKERS=4
    serve --allow-urls                DARKROOM_SERVE_ALLOW_URLS=on
    serve --url-hosts a.com,*.b.org   DARKROOM_SERVE_URL_HOSTS=a.com,*.b.org

Flags win. In a container, where nobody sees the flags, the variables are the way.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from darkroom.base.errors import UserError
from darkroom.models.engine import EngineName
from darkroom.serving.limits import DECODING_SECONDS, MAX_BODY_BYTES
from darkroom.serving.origins import HostPattern, ServedHost

PREFIX = "DARKROOM_SERVE_"


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


class ServingSettings(BaseModel):
    """How a server works; the defaults suit a small machine and a hostile network."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Images decoded, and networks run, at once; each on one thread. 0: the cores."""
    engine: EngineName | None = None
    """What runs the network; none: what the bundle says, else onnxruntime."""
    maximum_batch: Annotated[int, Field(ge=1, le=256)] = 8
    """Waiting images that are run through the network together. Nothing waits to fill it."""
    maximum_waiting: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Requests that may be under way; beyond it: 503. 0: 64 for each worker."""
    maximum_body_bytes: Annotated[int, Field(ge=1024, le=2**30)] = MAX_BODY_BYTES
    """Larger requests get 413; SageMaker's own limit is the default."""
    memory_limit_mb: Annotated[int, Field(ge=0)] = 0
    """For all models together, where there are several. 0: 60 % of the machine's."""
    decode_memory_mb: Annotated[int, Field(ge=0)] = 0
    """For decoding images, all together. 0: 30 % of the machine's, at least 256."""
    decode_seconds: Annotated[int, Field(ge=1, le=600)] = DECODING_SECONDS
    """Processor time that decoding one image may take."""
    allowed_hosts: Annotated[tuple[ServedHost, ...], BeforeValidator(_split)] = ()
    """Names that the server is reached by, beside those of this machine; also of web pages that
    may ask it. *: any. None: on this machine alone, its own names; elsewhere, any name, but no
    web pages."""
    allow_urls: bool = False
    """Fetch images by {"url": …}; only from public addresses."""
    url_hosts: Annotated[tuple[HostPattern, ...], BeforeValidator(_split)] = ()
    """Hosts that images may be fetched from, such as images.example.com or *.example.com."""
    url_https_only: bool = False
    """Refuse http."""
    capture: str = ""
    """Folder or s3://bucket/prefix that requests and answers are stored in; empty: nowhere."""
    capture_percent: Annotated[float, Field(ge=0, le=100)] = 100
    """Share of the requests that are stored there."""
    log: Literal["", "json", "text", "none"] = ""
    """Log lines, without image content. Empty: json in a container, text elsewhere."""
    page: bool | None = None
    """A page at / to try the model; none: not in a container."""


def read_settings(
    flags: Mapping[str, object], *, environment: Mapping[str, str]
) -> ServingSettings:
    """Settings from flags (None: not given) and environment variables.

    Raises:
        UserError: every problem, one line each.
    """
    given = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX)
    }
    flags = {name: value for name, value in flags.items() if value is not None}
    try:
        return ServingSettings.model_validate({**given, **flags})
    except ValidationError as error:
        raise UserError([_problem(found, flags=flags) for found in error.errors()]) from error


def _problem(found: Any, *, flags: Mapping[str, object]) -> str:  # noqa: ANN401 - pydantic's
    field = str(found["loc"][0])
    source = f"--{field.replace('_', '-')}" if field in flags else f"${PREFIX}{field.upper()}"
    if found["type"] == "extra_forbidden":
        known = ", ".join(f"{PREFIX}{name.upper()}" for name in ServingSettings.model_fields)
        return f"{source} is no setting of the server; there are {known}"
    return f"{source} is {found['input']!r}: {found['msg'].removeprefix('Input ')}"
