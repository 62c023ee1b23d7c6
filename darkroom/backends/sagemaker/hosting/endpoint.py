"""A bundle on a SageMaker endpoint: created, updated by the rollout, verified, taken down."""

from collections.abc import Sequence
from pathlib import Path

from darkroom.backends.endpoint import (
    Endpoint,
    EndpointCheck,
    EndpointError,
    compare_answers,
    require_agreement,
)
from darkroom.backends.sagemaker.archives import publish_bundle
from darkroom.backends.sagemaker.hosting.client import client_of
from darkroom.backends.sagemaker.hosting.deployment import Deployment
from darkroom.backends.sagemaker.hosting.resources import delete_endpoint, hosting_names
from darkroom.backends.sagemaker.hosting.rollback import accept, return_to, undo
from darkroom.backends.sagemaker.hosting.state import (
    ACCEPTED,
    EndpointState,
    failure,
    poll_endpoint,
    wait_until_steady,
)
from darkroom.backends.sagemaker.jobs.logs import ENDPOINTS, last_lines
from darkroom.backends.sagemaker.retry import Pause, sleep
from darkroom.backends.sagemaker.session import Clients, SageMakerContext
from darkroom.base.errors import UserError
from darkroom.base.progress import SILENT, Progress
from darkroom.config import START_TIMEOUT_SECONDS
from darkroom.config.sagemaker import kind_problems
from darkroom.models.bundle import Bundle
from darkroom.models.engine import Floats

# --- hosting ---


def deploy(
    bundle: Bundle,
    *,
    name: str,
    keep: bool,
    site: SageMakerContext,
    clients: Clients,
    start_timeout_seconds: float = START_TIMEOUT_SECONDS,
    progress: Progress = SILENT,
    pause: Pause = sleep,
) -> Endpoint:
    """Serve a bundle, and wait until the endpoint is in service.

    The same call after an interruption goes on with the endpoint that is on its way. One that
    is in service is not to be trusted before `verify_endpoint` has asked it.

    Args:
        name: of the model.
        keep: create or update the endpoint that stays; else one of its own, for a check.
        start_timeout_seconds: for the download of the model, and again until /ping is answered.
        pause: how to wait, given seconds.

    Raises:
        UserError: the endpoint is not Darkroom's, or AWS refuses what was asked for.
        EndpointError: it did not come into service; it was removed, or serves what it did.
        JobInterrupted: the user does not want to wait.
    """
    check_kind(site)
    deployment = Deployment(
        hosting_names(
            bundle.metadata,
            name=name,
            keep=keep,
            site=site,
            start_timeout_seconds=start_timeout_seconds,
        ),
        version=bundle.metadata.version,
        keep=keep,
        start_timeout_seconds=start_timeout_seconds,
        site=site,
        clients=clients,
        pause=pause,
    )
    archive = publish_bundle(bundle, site=site, clients=clients, progress=progress)
    return bring(deployment, archive=archive, progress=progress)


def bring(deployment: Deployment, *, archive: str, progress: Progress) -> Endpoint:
    """Create or update the endpoint, unless it has arrived already.

    Args:
        archive: s3:// URI of the bundle, or of the prefix that several lie below.
    """
    state, tags = _present(deployment, progress=progress)
    previous = _previous(state, tags=tags) if deployment.keep else None
    if state is None or not _has_arrived(state, deployment=deployment):
        deployment.prepare(archive)
        deployment.update(state.configuration) if state else deployment.create()
        _arrive(deployment, previous=previous, progress=progress)
    endpoint = _endpoint(deployment, previous=previous)
    try:
        if state:
            deployment.mark(state.arn)
        deployment.scale()
    except Exception as error:  # nobody will check it now
        done = undo(endpoint, clients=deployment.clients, progress=progress, pause=deployment.pause)
        raise EndpointError(f"endpoint {endpoint.name!r}: {error}; {done}") from error
    return endpoint


def check_kind(site: SageMakerContext) -> None:
    """Refuse what AWS would refuse after an upload.

    Raises:
        UserError: the kind of endpoint does not allow what else is configured.
    """
    if problems := kind_problems(site.config):
        raise UserError(problems)


def _present(
    deployment: Deployment, *, progress: Progress
) -> tuple[EndpointState | None, dict[str, str]]:
    """The endpoint, at rest, with its tags; one that failed to start makes room."""
    name, clients, pause = deployment.names.endpoint, deployment.clients, deployment.pause
    state = poll_endpoint(name, clients=clients, pause=pause)
    if state is None:
        return None, {}
    tags = deployment.read_tags(state.arn)
    if not state.is_steady:
        state = wait_until_steady(name, clients=clients, progress=progress, pause=pause)
    if state and state.status == "Failed":
        delete_endpoint(name, clients=clients, progress=progress, pause=pause)
        state = None
    return state, tags if state else {}


def _previous(state: EndpointState | None, *, tags: dict[str, str]) -> str | None:
    """What to go back to: the configuration that was checked last, else the one that serves."""
    if state is None:
        return None
    return tags.get(ACCEPTED) or (state.configuration if state.serves else None)


def _has_arrived(state: EndpointState | None, *, deployment: Deployment) -> bool:
    wanted = deployment.names.configuration
    return state is not None and state.serves and state.configuration == wanted


def _arrive(deployment: Deployment, *, previous: str | None, progress: Progress) -> None:
    """Wait; where the endpoint does not get there, clear up and say why."""
    name, clients, pause = deployment.names.endpoint, deployment.clients, deployment.pause
    state = wait_until_steady(
        name,
        clients=clients,
        progress=progress,
        pause=pause,
        timeout_seconds=deployment.longest_start_seconds if previous is None else None,
    )
    if _has_arrived(state, deployment=deployment):
        return
    reason = state.reason if state else "it was deleted meanwhile"
    what = "was not updated; the model before serves" if previous else "did not start"
    problem = failure(name, what=what, reason=reason, clients=clients)
    if state and previous and state.status != "Failed":
        return_to(previous, endpoint=name, clients=clients, progress=progress, pause=pause)
    elif state:
        delete_endpoint(name, clients=clients, progress=progress, pause=pause)
    if previous != deployment.names.configuration:
        deployment.forget()
    raise problem


def _endpoint(deployment: Deployment, *, previous: str | None) -> Endpoint:
    names, runtime = deployment.names, deployment.clients.runtime
    return Endpoint(
        backend="sagemaker",
        name=names.endpoint,
        region=deployment.site.region,
        url=f"{runtime.meta.endpoint_url}/endpoints/{names.endpoint}",
        configuration=names.configuration,
        previous=previous,
        temporary=not deployment.keep,
    )


# --- hosting check ---
# Whether an endpoint that is in service answers as the model was evaluated.


def check_endpoint(
    endpoint: Endpoint,
    *,
    images: Sequence[Path],
    expected: Floats,
    classes: Sequence[str],
    tolerance: float,
    clients: Clients,
    pause: Pause = sleep,
) -> EndpointCheck:
    """Send image files as they are, and compare the answers with the expected ones.

    Args:
        expected: (N, C) probabilities, columns in the order of `classes`.
        tolerance: largest difference of a probability that counts as agreement.

    Raises:
        EndpointError: an image is refused, or the endpoint is gone.
    """
    answering = client_of(str(endpoint.name), clients=clients, pause=pause)
    return compare_answers(
        answering, images=images, expected=expected, classes=classes, tolerance=tolerance
    )


def verify_endpoint(
    endpoint: Endpoint,
    *,
    images: Sequence[Path],
    expected: Floats,
    classes: Sequence[str],
    tolerance: float,
    clients: Clients,
    progress: Progress = SILENT,
    pause: Pause = sleep,
) -> EndpointCheck:
    """As `check_endpoint`; accept the deployment that agrees, take back the one that does not.

    Raises:
        EndpointError: it disagrees, or does not answer; the deployment was undone.
    """
    try:
        check = check_endpoint(
            endpoint,
            images=images,
            expected=expected,
            classes=classes,
            tolerance=tolerance,
            clients=clients,
            pause=pause,
        )
        require_agreement(check, tolerance=tolerance)
    except Exception as error:
        log = last_lines(f"{ENDPOINTS}{endpoint.name}", clients=clients)
        done = undo(endpoint, clients=clients, progress=progress, pause=pause)
        raise EndpointError(f"endpoint {endpoint.name!r}: {error}; {done}\n{log}") from error
    if endpoint.temporary:
        return check
    accept(endpoint, clients=clients, pause=pause)
    return check.model_copy(update={"url": endpoint.url})
