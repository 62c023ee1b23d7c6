from darkroom.config import DeploymentConfig
from darkroom.evaluation.evaluate import refusal


def test_a_good_model_passes() -> None:
    deployment = DeploymentConfig(gate_metric="accuracy", gate_threshold=0.9)
    assert refusal({"accuracy": 0.9}, deployment=deployment) is None


def test_a_bad_model_is_refused_with_the_figures() -> None:
    deployment = DeploymentConfig(gate_metric="accuracy", gate_threshold=0.9)
    assert refusal({"accuracy": 0.85}, deployment=deployment) == "accuracy 0.8500 is below 0.9"


def test_for_a_loss_less_is_better() -> None:
    deployment = DeploymentConfig(gate_metric="log_loss", gate_threshold=0.3)
    for loss in (0.2, 0.3):
        assert refusal({"log_loss": loss}, deployment=deployment) is None
    assert refusal({"log_loss": 0.4}, deployment=deployment) == "log_loss 0.4000 is above 0.3"


def test_deployment_can_be_switched_off() -> None:
    assert refusal({}, deployment=DeploymentConfig(enabled=False)) == "deployment.enabled is false"
