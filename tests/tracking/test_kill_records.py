"""What MLflow is told of a pipeline run whose machine has crashed."""

import pytest
from mlflow.tracking import MlflowClient

from darkroom.tracking.runs import fail_unfinished

pytestmark = pytest.mark.slow  # they start processes


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    return MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}")


def statuses(client: MlflowClient, experiment: str) -> dict[str, str]:
    return {run.info.run_name: run.info.status for run in client.search_runs([experiment])}


def test_the_run_and_those_below_it_have_failed_and_no_others(client: MlflowClient) -> None:
    experiment = client.create_experiment("digits")
    died = client.create_run(experiment, run_name="died").info.run_id
    for name in ("training", "trial-0"):
        below = {"mlflow.parentRunId": died}
        run = client.create_run(experiment, run_name=name, tags=below)
        if name == "trial-0":
            client.set_terminated(run.info.run_id)
    client.create_run(experiment, run_name="other")
    for _ in range(2):
        fail_unfinished("died", experiment="digits", tracking_uri=client.tracking_uri)
        assert statuses(client, experiment) == {
            "died": "FAILED",
            "training": "FAILED",
            "trial-0": "FINISHED",
            "other": "RUNNING",
        }


def test_a_run_that_never_came_to_mlflow_is_no_problem(client: MlflowClient) -> None:
    fail_unfinished("died", experiment="none", tracking_uri=client.tracking_uri)
    client.create_experiment("empty")
    fail_unfinished("died", experiment="empty", tracking_uri=client.tracking_uri)
