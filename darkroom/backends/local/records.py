"""The local endpoints that are kept: found again by name, and ended by later commands.

Each has a record `endpoints/<name>.json` in the workspace. A process id alone may come to
belong to somebody else; the server is known by a token in its environment, that the record
holds too. A record whose process has ended is removed as soon as it is seen.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from urllib.parse import urlsplit

import psutil
import requests
from pydantic import BaseModel, ConfigDict, ValidationError

from darkroom.backends.endpoint import Endpoint, require_one_of
from darkroom.backends.local.endpoint import (
    endpoints_folder,
    record_of,
    start_endpoint,
    stop_endpoint,
)
from darkroom.base.errors import UserError
from darkroom.base.files import sha256_of
from darkroom.models.bundle import METADATA_FILE, Bundle, open_bundle, pack

# --- local records ---

_PATHS = ("", "/", "/invocations")
_TOKEN_VARIABLE = "DARKROOM_ENDPOINT_TOKEN"  # noqa: S105 — the name of a variable


class KeptEndpoint(BaseModel):
    """A local endpoint that outlives the command that started it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    url: str
    pid: int
    log: Path | None
    model_version: str
    run: str
    """The pipeline run that started it."""
    started: datetime
    token: str
    """What its process has in its environment; no secret."""
    models: Path | None = None
    """Folder of the archives of several models, its own; None: it has one model."""

    def is_running(self) -> bool:
        """Whether the process is still the one that was started."""
        try:
            environment = psutil.Process(self.pid).environ()
        except psutil.Error:
            return False
        return bool(environment.get(_TOKEN_VARIABLE) == self.token)

    def endpoint(self) -> Endpoint:
        """As the backends know it."""
        return Endpoint(name=self.name, url=self.url, pid=self.pid, log=self.log)


def keep_endpoint(
    bundle: Bundle, *, name: str, run: str = "", timeout_seconds: float = 60
) -> Endpoint:
    """Serve a bundle beyond the end of this process, findable by its name.

    Args:
        name: wanted; where a kept endpoint has it already, a number is added.
        run: the pipeline run that it belongs to.

    Raises:
        EndpointError: it did not start.
    """
    place = _Place(bundle.folder, version=bundle.metadata.version)
    return _keep(place, name=name, run=run, timeout_seconds=timeout_seconds)


def keep_several(
    models: Path, *, name: str, run: str = "", timeout_seconds: float = 60
) -> Endpoint:
    """Serve all bundles of a folder, as `keep_endpoint` serves one.

    Args:
        models: folder of archives; it goes with the endpoint.

    Raises:
        EndpointError: it did not start.
    """
    place = _Place(models, version="", is_several=True)
    return _keep(place, name=name, run=run, timeout_seconds=timeout_seconds)


@dataclass(frozen=True)
class _Place:
    """What is to be served."""

    path: Path
    version: str
    is_several: bool = False


def _keep(place: _Place, *, name: str, run: str, timeout_seconds: float) -> Endpoint:
    token = secrets.token_hex(16)
    endpoint = start_endpoint(
        place.path,
        keep=True,
        timeout_seconds=timeout_seconds,
        environment={_TOKEN_VARIABLE: token},
        several=place.is_several,
    )
    try:
        kept = KeptEndpoint(
            name=_file_name(name),
            url=str(endpoint.url),
            pid=int(endpoint.pid or 0),
            log=endpoint.log,
            model_version=place.version,
            run=run,
            started=datetime.now(UTC),
            token=token,
            models=place.path if place.is_several else None,
        )
        return _record(kept).endpoint()
    except BaseException:
        stop_endpoint(endpoint)
        raise


def kept_endpoints() -> list[KeptEndpoint]:
    """Those that run, by name; records of others are removed."""
    return sorted(_running(), key=lambda kept: kept.name)


def address_of(name: str) -> str:
    """Where an endpoint of this machine listens.

    Args:
        name: of a kept endpoint, or an http:// address of the loopback.

    Raises:
        UserError: no such endpoint, or an address elsewhere.
    """
    if "://" in name:
        return _loopback(name)
    kept = {one.name: one.url for one in kept_endpoints()}
    if name in kept:
        return kept[name]
    known = f"there are {', '.join(map(repr, kept))}" if kept else "none is kept"
    raise UserError(
        f"there is no endpoint {name!r} on this machine ({known}). `run.py --keep-endpoint` "
        "keeps one; give the address of another, such as http://127.0.0.1:8080, or --stack."
    )


def end_kept(kept: KeptEndpoint) -> None:
    """End one, with its record and the archives that are its own. Fine if it has ended."""
    if kept.is_running():
        stop_endpoint(kept.endpoint())
    record_of(kept.name).unlink(missing_ok=True)
    _clear(kept)


def _clear(kept: KeptEndpoint) -> None:
    """Remove the archives of what has ended, and nothing outside of the workspace."""
    if kept.models and kept.models.parent == endpoints_folder():
        shutil.rmtree(kept.models, ignore_errors=True)


def _loopback(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        is_loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback or parts.scheme != "http" or parts.path not in _PATHS or parts.query:
        raise UserError(
            f"{url!r} is no address of an endpoint on this machine, such as "
            "http://127.0.0.1:8080; endpoints elsewhere are asked by name and --stack"
        )
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port or 80}"


def _running() -> Iterator[KeptEndpoint]:
    for path in endpoints_folder().glob("*.json"):
        kept = _load(path)
        if kept is None or not kept.is_running():
            path.unlink(missing_ok=True)
            if kept:
                _clear(kept)
        else:
            yield kept


def _load(path: Path) -> KeptEndpoint | None:
    try:
        return KeptEndpoint.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _record(kept: KeptEndpoint) -> KeptEndpoint:
    """Write the record under the first name that is free."""
    kept_endpoints()  # frees the names of those that have ended
    for number in count(1):
        named = kept.model_copy(
            update={"name": kept.name if number == 1 else f"{kept.name}-{number}"}
        )
        with suppress(FileExistsError):
            _create(record_of(named.name), named.model_dump_json(indent=1))
            return named
    raise AssertionError  # count never ends


def _create(path: Path, text: str) -> None:
    """Write a new file, whole from its first moment; FileExistsError if there is one."""
    with TemporaryDirectory(dir=path.parent, prefix=".record-") as folder:
        written = Path(folder) / path.name
        written.write_text(text, encoding="utf-8")
        os.link(written, path)


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "endpoint"


# --- local models ---
# Several bundles behind one server of this machine, each by the name that SageMaker would want.
#
# Their archives lie in a folder of the endpoint's own, `endpoints/<name>.models` in the
# workspace: the server finds a model there when it is first asked for it.

ENDING = ".tar.gz"
_SECONDS_TO_FORGET = 10


def deploy_models(
    bundles: Mapping[str, Bundle], *, name: str, run: str = "", timeout_seconds: float = 60
) -> Endpoint:
    """Serve bundles under their names, beside those that the endpoint serves already.

    Args:
        bundles: by the name of each model; a request says `<name>.tar.gz`.
        name: of the endpoint; where a kept one with several models has it, they join that.

    Raises:
        UserError: one of the names stands for another bundle there.
        EndpointError: the server did not start.
    """
    running = several_named(name)
    if running:
        return _join(bundles, kept=running)
    endpoints_folder().mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix="models-", dir=endpoints_folder()))
    try:
        for model, bundle in bundles.items():
            pack(bundle.folder, folder / target_of(model))
        return keep_several(folder, name=name, run=run, timeout_seconds=timeout_seconds)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def several_named(name: str) -> KeptEndpoint | None:
    """The kept endpoint with several models that has this name."""
    return next((kept for kept in kept_endpoints() if kept.models and kept.name == name), None)


def remove_models(models: Iterable[str], *, kept: KeptEndpoint) -> None:
    """Delete archives, and have the server forget the models. Fine if they are gone."""
    for model in models:
        if kept.models:
            (kept.models / target_of(model)).unlink(missing_ok=True)
        with requests.Session() as session, suppress(requests.RequestException):
            session.trust_env = False  # a proxy has no business on the loopback
            session.delete(f"{kept.url}/models/{target_of(model)}", timeout=_SECONDS_TO_FORGET)


def remove_model(model: str, *, endpoint: str) -> None:
    """Take one model from a kept endpoint with several.

    Raises:
        UserError: no such endpoint or model, or it is the only one.
    """
    kept = several_named(endpoint)
    if kept is None:
        raise UserError(f"there is no endpoint {endpoint!r} with several models on this machine")
    require_one_of(model, models=models_of(kept), endpoint=endpoint)
    remove_models([model], kept=kept)


def target_of(model: str) -> str:
    """What a request names as its target model."""
    return f"{model}{ENDING}"


def models_of(kept: KeptEndpoint) -> list[str]:
    """Names of its models; none where it has one alone."""
    found = kept.models.glob(f"*{ENDING}") if kept.models else ()
    return sorted(path.name.removesuffix(ENDING) for path in found)


def _join(bundles: Mapping[str, Bundle], *, kept: KeptEndpoint) -> Endpoint:
    """Lay the archives down where the running server looks for them."""
    folder = kept.models or Path()
    taken = [
        f"the endpoint {kept.name!r} has another model {model!r}: give the new one another name, "
        f"or end the endpoint first (run.py down {kept.name} --stack local)"
        for model, bundle in bundles.items()
        if not _may_lie(bundle, archive=folder / target_of(model))
    ]
    if taken:
        raise UserError(taken)
    for model, bundle in bundles.items():
        if not (folder / target_of(model)).exists():
            pack(bundle.folder, folder / target_of(model))
    return kept.endpoint()


def _may_lie(bundle: Bundle, *, archive: Path) -> bool:
    """Whether there is nothing yet, or the same."""
    if not archive.exists():
        return True
    with open_bundle(archive) as folder:
        return sha256_of(folder / METADATA_FILE) == sha256_of(bundle.folder / METADATA_FILE)
