"""The backend that a placement asks for."""

from dataclasses import replace

from darkroom.backends.protocol import Backend
from darkroom.config.placement import Placement


def backend_of(placement: Placement, *, run: str) -> Backend:
    """What does the work.

    Args:
        run: name of the pipeline run, with which everything it creates is tagged.

    Raises:
        UserError: the environment does not say which account to use.
    """
    if placement.jobs is None:
        from darkroom.backends.local_backend import LocalBackend

        return LocalBackend(run, fresh_since=placement.fresh_since)
    from darkroom.backends.sagemaker.backend import SageMakerBackend
    from darkroom.backends.sagemaker.clients import Clients
    from darkroom.backends.sagemaker.orchestration import image_of_this_job
    from darkroom.backends.sagemaker.site import site_of_environment

    site = site_of_environment(placement.jobs, run=run, fresh=placement.fresh)
    clients = Clients(site.region)
    if not site.image:
        site = replace(site, image=image_of_this_job(clients))
    return SageMakerBackend(site, clients=clients)
