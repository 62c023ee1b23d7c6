"""The backend of the run that a component belongs to."""

from zenml import get_step_context

from darkroom.backends.contract import Backend
from darkroom.backends.placement import backend_of
from darkroom.config.sagemaker import Placement


def chosen_backend(placement: Placement) -> Backend:
    """This machine or SageMaker; whatever is created there is tagged with the run's name."""
    return backend_of(placement, run=get_step_context().pipeline_run.name)
