"""Predict: real images through the endpoint, compared with the evaluation."""

from typing import Annotated

import numpy as np
from zenml import log_metadata, step

from darkroom.backends.endpoint import Endpoint, EndpointCheck, files_to_send
from darkroom.config import DeploymentConfig
from darkroom.config.sagemaker import Placement
from darkroom.data.dataset import Dataset
from darkroom.evaluation.evaluate import Evaluation
from darkroom.models.bundle import Bundle, allowed_difference
from steps.chosen_backend import chosen_backend


@step(enable_cache=False, experiment_tracker=True)
def predict_images(
    endpoint: Endpoint,
    bundle: Bundle,
    dataset: Dataset,
    evaluation: Evaluation,
    deployment: DeploymentConfig,
    keep_endpoint: bool,
    placement: Placement,
) -> Annotated[EndpointCheck, "endpoint_check"]:
    """Send test images, compare the answers, and stop the endpoint unless it is kept.

    Args:
        endpoint: up and answering.
        bundle: that it answers with; says how images become what the network sees.
        dataset: whose test images are sent, spread over the split.
        evaluation: of the test split; its probabilities are what is expected.
        deployment: how many images, and how exact the agreement has to be.
        keep_endpoint: whether the endpoint outlives this run.
        placement: where the endpoint is.
    """
    records = dataset.split("test")
    chosen = np.linspace(0, len(records) - 1, min(deployment.check_images, len(records)), dtype=int)
    backend = chosen_backend(placement)
    images = [dataset.file(records[i]) for i in chosen]
    with files_to_send(images, preprocessing=bundle.metadata.preprocessing) as files:
        check = backend.check(
            endpoint,
            images=files,
            expected=np.asarray(evaluation.probabilities)[chosen],
            classes=evaluation.classes,
            tolerance=allowed_difference(deployment.tolerance, engines=[evaluation.engine]),
        )
    if keep_endpoint:
        check = check.model_copy(update={"url": endpoint.url})
    else:
        backend.remove(endpoint)  # before anything else can fail: it costs
    log_metadata(check.model_dump(exclude_none=True))
    return check
