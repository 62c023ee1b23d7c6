"""What asks an endpoint of SageMaker, by the kind that it is of."""

from darkroom.backends.endpoint import Answering
from darkroom.backends.sagemaker.asynchronous import AsynchronousEndpoint
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.endpoint_state import describe, describe_configuration
from darkroom.backends.sagemaker.following import Patient, Pause, sleep
from darkroom.backends.sagemaker.invoking import SageMakerEndpoint
from darkroom.errors import UserError


def answering_at(
    name: str, *, clients: Clients, target_model: str = "", pause: Pause = sleep
) -> Answering:
    """Something that asks the endpoint, at once or by way of S3. Threads may share it.

    Args:
        target_model: which model of an endpoint with several, such as "dogs.tar.gz".

    Raises:
        UserError: there is no such endpoint, or AWS refuses.
        DarkroomError: AWS cannot be reached.
    """
    patient = Patient(clients, what=f"endpoint {name!r}", pause=pause)
    state = patient.ask(lambda renewed: describe(name, clients=renewed))
    if state is None:
        raise UserError(
            f"there is no endpoint {name!r}; "
            "`run.py endpoints --stack sagemaker` lists those of Darkroom's"
        )
    serving = state.configuration
    found = patient.ask(lambda renewed: describe_configuration(serving, clients=renewed))
    if output := found.get("AsyncInferenceConfig", {}).get("OutputConfig"):
        return AsynchronousEndpoint(name, output=output, clients=clients, pause=pause)
    return SageMakerEndpoint(name, clients=clients, pause=pause, target_model=target_model)
