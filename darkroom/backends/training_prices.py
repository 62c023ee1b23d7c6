"""What a training's machine costs, for the money part of its report."""

import os

from darkroom.backends.sagemaker.prices import all_rates
from darkroom.config.sagemaker import SageMakerConfig
from darkroom.diagnosis.reporting import TrainingPrices

_REGION = "us-east-1"
"""Whose prices stand for a training that ran on no AWS machine."""


def training_prices(jobs: SageMakerConfig | None) -> TrainingPrices:
    """Rates by instance type, and which one was used; of a local training, none was."""
    region = os.environ.get("AWS_REGION", _REGION) if jobs else _REGION
    return TrainingPrices(
        instance_type=jobs.training.instance_type if jobs else None,
        usd_per_hour=all_rates(region=region, kind="training"),
    )
