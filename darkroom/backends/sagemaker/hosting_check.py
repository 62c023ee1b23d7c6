"""Whether an endpoint that is in service answers as the model was evaluated."""

from collections.abc import Sequence
from pathlib import Path

from darkroom.backends.endpoint import (
    Endpoint,
    EndpointCheck,
    EndpointError,
    compare_answers,
    require_agreement,
)
from darkroom.backends.sagemaker.answering import answering_at
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.container_log import ENDPOINTS, last_lines
from darkroom.backends.sagemaker.following import Pause, sleep
from darkroom.backends.sagemaker.rollback import accept, undo
from darkroom.engines.protocol import Floats
from darkroom.progress import SILENT, Progress


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
    answering = answering_at(str(endpoint.name), clients=clients, pause=pause)
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
