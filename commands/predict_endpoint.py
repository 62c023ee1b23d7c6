"""An endpoint to ask: on this machine by name or address, or on the stack's account."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

from darkroom.backends.asking import Asker, pause_until
from darkroom.backends.endpoint import EndpointError
from darkroom.errors import DarkroomError, UserError
from darkroom.serving.model_names import ARCHIVE_ENDINGS

_NOT_FOUND = 404


@contextmanager
def asked_endpoint(name: str, *, stack: str, target_model: str, top_k: int) -> Iterator[Asker]:
    """Something that asks the endpoint while the block runs.

    Args:
        name: as `run.py endpoints` lists it; on this machine an address will do too.
        target_model: which model, where the endpoint has several: as `deploy NAME=…` called it,
            or the archive that SageMaker calls it by.

    Raises:
        UserError: no such endpoint, no rehearsal is up, or values of the stack are missing.
    """
    target_model = _archive(target_model)
    if stack == "local":
        from darkroom.backends.local_endpoint import EndpointClient
        from darkroom.backends.local_records import address_of

        with EndpointClient(address_of(name), target_model=target_model) as client:
            try:
                yield Asker(client, top_k=top_k)
            except EndpointError as error:
                if error.status == _NOT_FOUND:  # it says which models there are
                    raise UserError(str(error)) from error
                raise
        return
    from commands.endpoints import account
    from darkroom.backends.sagemaker.answering import answering_at
    from darkroom.backends.sagemaker.several_models import target_problem

    with account(stack) as clients:
        ended = Event()
        answering = answering_at(
            name, clients=clients, target_model=target_model, pause=pause_until(ended)
        )
        try:
            yield Asker(answering, top_k=top_k, ended=ended)
        except DarkroomError as error:
            if problem := target_problem(target_model, endpoint=name, clients=clients):
                raise UserError(problem) from error
            raise


def _archive(model: str) -> str:
    """What requests name: 'dogs' was deployed as dogs.tar.gz."""
    return model if not model or model.endswith(ARCHIVE_ENDINGS) else f"{model}.tar.gz"
