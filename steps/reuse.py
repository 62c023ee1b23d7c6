"""An earlier result is looked at before it is reused: it, and all that it refers to.

ZenML asks its database alone whether a component has a result already. What the artifact store
and the workspace hold of it may be gone, or have changed, since.
"""

import zlib
from gzip import BadGzipFile
from json import JSONDecodeError
from pathlib import Path
from tarfile import TarError
from typing import Any

from pydantic import ValidationError
from zenml.artifact_stores.base_artifact_store import BaseArtifactStore
from zenml.client import Client
from zenml.models import ArtifactVersionResponse, StepRunResponse
from zenml.orchestrators import cache_utils
from zenml.utils import source_utils
from zenml.utils.time_utils import utc_now

from darkroom.base.errors import UserError
from darkroom.base.files import workspace
from darkroom.base.progress import terminal_progress
from darkroom.data.dataset import Dataset
from darkroom.data.hashes import difference, discard_copy
from darkroom.tracking.registry import RegisteredModel, is_registered
from stacks.loader import tracking_uri

_find = cache_utils.get_cached_step_run
_GONE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_DAMAGED = (
    *_GONE,
    UserError,  # of a bundle or manifest that is not what was written
    UnicodeDecodeError,
    JSONDecodeError,
    ValidationError,
    EOFError,
    TarError,
    zlib.error,
    BadGzipFile,
)
"""What it raises to read files that were removed, cut or changed."""


def reuse_only_what_is_whole() -> None:
    """Have ZenML ask us, too, before it reuses a result; to be called in each process once."""
    cache_utils.get_cached_step_run = whole_step_run


def whole_step_run(cache_key: str) -> StepRunResponse | None:
    """The newest earlier run of a component whose results are whole; others are set aside."""
    set_aside = set()
    while (earlier := _find(cache_key)) and earlier.id not in set_aside:
        problem = next(filter(None, map(_problem, _outputs(earlier))), "")
        if not problem:
            return earlier
        terminal_progress().message(
            f"{earlier.name}: an earlier result is not reused, it is computed anew: {problem}"
        )
        Client().update_step_run(earlier.id, cache_expires_at=utc_now())
        set_aside.add(earlier.id)
    return None


def _outputs(run: StepRunResponse) -> list[ArtifactVersionResponse]:
    return [artifact for artifacts in run.outputs.values() for artifact in artifacts]


def _problem(artifact: ArtifactVersionResponse) -> str:
    """Why an artifact cannot be reused; empty: it can.

    Raises:
        Exception: whatever says nothing about the artifact, such as that the memory or the disk
            is used up, that its files may not be read, or that the store does not answer: what
            took hours would be computed anew for it.
    """
    try:
        content = artifact.load()
    except _DAMAGED as error:
        if not _is_damage(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"{artifact.name!r} cannot be read ({reason})"
    digest = _digest(artifact, content)
    if artifact.content_hash and digest != artifact.content_hash:
        return f"{artifact.name!r} in {artifact.uri!r} is not what was stored"
    return _missing(content)


def _is_damage(error: BaseException) -> bool:
    """Whether no other trouble is behind an error that a damaged file raises, too."""
    cause = error.__cause__
    if isinstance(error, OSError) and not isinstance(error, (*_GONE, BadGzipFile)):
        return False
    return not isinstance(error, MemoryError) and (cause is None or _is_damage(cause))


def _digest(artifact: ArtifactVersionResponse, content: object) -> str | None:
    materializer = source_utils.load(artifact.materializer)
    store: BaseArtifactStore = Client().active_stack.artifact_store
    found: str | None = materializer(artifact.uri, store).compute_content_hash(content)
    return found


def _missing(content: Any) -> str:  # noqa: ANN401 - whatever the component returned
    """What an artifact refers to that is gone; empty: nothing is."""
    if isinstance(content, Dataset):
        return _missing_images(content, store=workspace() / "data")
    if isinstance(content, RegisteredModel) and not _is_registered(content):
        return f"{content.uri} is not in the registry any more"
    return ""


def _is_registered(model: RegisteredModel) -> bool:
    return is_registered(model, tracking_uri=tracking_uri())


def _missing_images(dataset: Dataset, *, store: Path) -> str:
    if dataset.shards:
        from darkroom.backends.storage.datasets import is_published

        return "" if is_published(dataset.shards) else f"{dataset.shards} is gone"
    found = difference(dataset, store=store)
    if found:
        discard_copy(dataset, store=store)
    return found
