"""SageMaker's managed MLflow as an experiment tracker, named by its ARN.

ZenML's own MLflow flavor refuses such a URI. MLflow itself understands it once the package
sagemaker-mlflow is installed, which signs requests with the job's AWS credentials: there is
no token.
"""

from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker
from zenml.integrations.mlflow.flavors.mlflow_experiment_tracker_flavor import (
    MLFlowExperimentTrackerConfig,
    MLFlowExperimentTrackerFlavor,
)

from stacks.values import MANAGED_MLFLOW


class ManagedMLflowConfig(MLFlowExperimentTrackerConfig):
    """An MLflow tracker that is reached by ARN."""

    @property
    def is_local(self) -> bool:
        """Never: ZenML would refuse it on a remote stack."""
        return False


class ManagedMLflow(MLFlowExperimentTracker):
    """ZenML's MLflow tracker, with an ARN in the place of a URL."""

    def _ensure_valid_tracking_uri(self) -> None:
        uri = self.get_tracking_uri()
        if not (uri.startswith("arn:") and ":sagemaker:" in uri):
            raise ValueError(
                f"{uri!r} is no ARN of a SageMaker MLflow server; it should look like "
                "arn:aws:sagemaker:REGION:ACCOUNT:mlflow-tracking-server/NAME"
            )


class ManagedMLflowFlavor(MLFlowExperimentTrackerFlavor):
    """How ZenML finds the two above."""

    @property
    def name(self) -> str:
        """As stacks/sagemaker.yaml calls it."""
        return MANAGED_MLFLOW

    @property
    def display_name(self) -> str:
        """For people."""
        return "SageMaker MLflow"

    @property
    def config_class(self) -> type[ManagedMLflowConfig]:
        """What it is configured with."""
        return ManagedMLflowConfig

    @property
    def implementation_class(self) -> type[ManagedMLflow]:
        """What does the work."""
        return ManagedMLflow
