"""Several bundles behind one server of this machine, each by the name that SageMaker would want.

Their archives lie in a folder of the endpoint's own, `endpoints/<name>.models` in the
workspace: the server finds a model there when it is first asked for it.
"""

import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import requests

from darkroom.backends.endpoint import Endpoint, require_one_of
from darkroom.backends.local_endpoint import endpoints_folder
from darkroom.backends.local_records import KeptEndpoint, keep_several, kept_endpoints
from darkroom.errors import UserError
from darkroom.files import sha256_of
from darkroom.model.bundle import METADATA_FILE, Bundle, open_bundle, pack

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
