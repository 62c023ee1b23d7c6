"""The main job as a user runs it: one process, generated pictures, real everything."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
import requests
from mlflow.tracking import MlflowClient

from darkroom.config.sections import Metric
from darkroom.models.prediction import Predictor
from darkroom.runs.summary import Summary
from pictures import write_image_folder
from workplace import CONFIG, Workplace

# A run takes 20 s on an idle machine, and much longer beside others.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COMPONENTS = [
    "ingest_images",
    "validate_dataset",
    "tune_hyperparameters",
    "train_model",
    "diagnose_training",
    "evaluate_model",
    "register_model",
    "deploy_model",
    "predict_images",
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("workplace")
    write_image_folder(folder / "images", per_class=20)
    (folder / "tiny.yaml").write_text(CONFIG)
    return Workplace(folder)


@pytest.fixture(scope="module")
def first(workplace: Workplace) -> dict:
    return workplace.main_job()


@pytest.fixture(scope="module")
def second(workplace: Workplace, first: dict) -> dict:
    return workplace.main_job()


def test_every_component_runs_and_is_timed(first: dict) -> None:
    assert list(first["timings"]["components"]) == COMPONENTS
    assert first["timings"]["reused"] == []
    assert 0 < first["timings"]["setup"] < first["timings"]["total"]


def test_the_summary_fits_its_schema(first: dict) -> None:
    Summary.model_validate(first)


def test_the_data_are_counted_by_split_and_class(first: dict) -> None:
    assert first["data"]["counts"] == {
        "train": {"blue": 12, "green": 12, "red": 12},
        "validation": {"blue": 4, "green": 4, "red": 4},
        "test": {"blue": 4, "green": 4, "red": 4},
    }


def test_the_best_hyperparameters_are_typed_and_within_the_search_space(first: dict) -> None:
    best = first["best_hyperparameters"]
    assert best["batch_size"] in (8, 16)
    assert best["epochs"] in (1, 2)
    assert 1e-4 <= best["learning_rate"] <= 1e-2


def test_each_headline_metric_has_an_interval_around_it(first: dict) -> None:
    for split in ("validation", "test"):
        assert set(get_args(Metric)) <= set(first["metrics"][split])
    accuracy = first["metrics"]["test"]["accuracy"]
    assert accuracy["interval"][0] <= accuracy["value"] <= accuracy["interval"][1]


def test_the_endpoint_agrees_with_the_evaluation_and_is_gone_afterwards(first: dict) -> None:
    endpoint = first["endpoint"]
    assert endpoint["checked_images"] == 6
    assert endpoint["agreement"] == 1.0
    assert endpoint["url"] is None
    assert endpoint["latency_ms"]["p50"] > 0


def test_reports_and_model_lie_where_the_summary_says(first: dict) -> None:
    assert {"evaluation", "validation"} <= set(first["artifacts"]["reports"])
    for path in first["artifacts"]["reports"].values():
        assert "<html" in Path(path).read_text()
    assert (Path(first["artifacts"]["bundle"]) / "model.onnx").is_file()


def test_nothing_is_written_outside_the_workspace(workplace: Workplace, first: dict) -> None:
    expected = {"home", "images", "summary.json", "tiny.yaml"}
    assert {path.name for path in workplace.folder.iterdir()} == expected


def test_mlflow_has_one_parent_run_with_trials_and_training_below(first: dict) -> None:
    client = MlflowClient(first["artifacts"]["mlflow_store"])
    parent = client.get_run(first["run"]["mlflow_run_id"])
    assert parent.info.run_name == first["run"]["name"]
    assert parent.info.status == "FINISHED"
    accuracy = first["metrics"]["test"]["accuracy"]
    assert parent.data.metrics["test_accuracy"] == pytest.approx(accuracy["value"], abs=1e-6)
    assert parent.data.metrics["test_accuracy_low"] <= accuracy["value"]
    assert parent.data.params["architecture"] == "squeezenet1_1"
    assert parent.data.tags["data_fingerprint"] == first["data"]["fingerprint"][:12]
    nested = client.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    )
    assert sorted(run.info.run_name for run in nested) == ["training", "trial-0", "trial-1"]
    assert {run.info.status for run in nested} == {"FINISHED"}
    training = next(run for run in nested if run.info.run_name == "training")
    history = client.get_metric_history(training.info.run_id, "validation_f1_macro")
    assert [point.step for point in history] == list(range(1, len(history) + 1))
    files = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"config.yaml", "environment.json", "summary.json", "figures", "reports"} <= files


def test_the_registered_model_loads_as_pyfunc_and_agrees(
    workplace: Workplace, first: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow.set_tracking_uri(first["artifacts"]["mlflow_store"])
    model = mlflow.pyfunc.load_model(first["artifacts"]["registered_model"]["uri"])
    images = sorted((workplace.folder / "images").rglob("*.png"))[:3]
    table = model.predict(pd.DataFrame({"image": [path.read_bytes() for path in images]}))
    predictor = Predictor.load(Path(first["artifacts"]["bundle"]))
    expected = predictor.predict(images)
    assert np.allclose(table[list(predictor.classes)], expected, atol=1e-6)


def test_predict_answers_for_files_folders_and_reports_what_it_cannot_read(
    workplace: Workplace, first: dict
) -> None:
    (workplace.folder / "images" / "note.txt").write_text("no image")
    try:
        result = workplace.run("predict", "images/blue", "images/note.txt", "--json")
    finally:
        (workplace.folder / "images" / "note.txt").unlink()
    rows = json.loads(result.stdout)
    assert result.returncode == 0
    assert len(rows) == 21
    assert set(rows[0]) == {"source", "class", "probability", "top_k", "error", "label"}
    assert rows[0]["class"] in ("blue", "green", "red")
    assert rows[0]["error"] is None
    assert rows[20]["class"] is None
    assert "not an image" in rows[20]["error"]


def test_a_second_identical_run_repeats_deploy_and_predict_alone(first: dict, second: dict) -> None:
    assert second["timings"]["reused"] == COMPONENTS[:7]
    assert second["metrics"] == first["metrics"]
    assert second["endpoint"]["agreement"] == 1.0


def test_a_run_from_the_cache_is_complete_in_mlflow(first: dict, second: dict) -> None:
    client = MlflowClient(second["artifacts"]["mlflow_store"])
    metrics = client.get_run(second["run"]["mlflow_run_id"]).data.metrics
    assert second["run"]["mlflow_run_id"] != first["run"]["mlflow_run_id"]
    assert metrics["test_f1_macro"] == pytest.approx(
        second["metrics"]["test"]["f1_macro"]["value"], abs=1e-6
    )
    assert "seconds_train_model" not in metrics


def test_a_changed_setting_repeats_what_depends_on_it_and_the_gate_refuses(
    workplace: Workplace, first: dict
) -> None:
    summary = workplace.main_job(
        "--set", "evaluation.bootstrap_samples=120", "--set", "deployment.gate_threshold=1.0",
        "--set", "deployment.gate_metric=log_loss", "--set", "deployment.gate_threshold=0.0001",
    )  # fmt: skip
    assert summary["timings"]["reused"] == COMPONENTS[:5]
    assert summary["endpoint"] is None
    assert "log_loss" in summary["endpoint_reason"]
    passed, refused = (one["artifacts"]["registered_model"] for one in (first, summary))
    client = MlflowClient(summary["artifacts"]["mlflow_store"])
    assert refused["version"] != passed["version"]
    approved = client.get_model_version_by_alias(passed["name"], "approved")
    assert str(approved.version) == passed["version"]


def test_the_last_run_that_passes_the_gate_is_the_approved_one_whoever_registered_it(
    workplace: Workplace, first: dict
) -> None:
    store, name = (
        first["artifacts"]["mlflow_store"],
        first["artifacts"]["registered_model"]["name"],
    )
    another = workplace.main_job("--set", "evaluation.bootstrap_samples=110")
    client = MlflowClient(store)
    versions = [client.get_model_version_by_alias(name, "approved").version]
    workplace.main_job()
    versions.append(client.get_model_version_by_alias(name, "approved").version)
    registered = [run["artifacts"]["registered_model"]["version"] for run in (another, first)]
    assert [str(version) for version in versions] == registered
    assert registered[0] != registered[1]


def test_a_changed_image_repeats_everything(workplace: Workplace, first: dict) -> None:
    image = workplace.folder / "images" / "blue" / "0000.png"
    content = image.read_bytes()
    shutil.copy(workplace.folder / "images" / "blue" / "0001.png", image)
    try:
        summary = workplace.main_job()
    finally:
        image.write_bytes(content)
    assert summary["timings"]["reused"] == []
    assert summary["data"]["fingerprint"] != first["data"]["fingerprint"]


def test_a_kept_endpoint_answers_after_the_run(workplace: Workplace, first: dict) -> None:
    summary = workplace.main_job("--keep-endpoint")
    url = summary["endpoint"]["url"]
    image = (workplace.folder / "images" / "red" / "0000.png").read_bytes()
    answer = requests.post(
        f"{url}/invocations", data=image, headers={"Content-Type": "image/png"}, timeout=10
    )
    endpoint = next((workplace.home / "endpoints").glob("*.log"), None)
    assert answer.json()["class"] in ("blue", "green", "red")
    assert endpoint is not None
    pid = next(
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "darkroom.serving.program" in (process.info["cmdline"] or [])
        and any(c.laddr.port == int(url.rsplit(":", 1)[1]) for c in process.net_connections())
    )
    os.kill(pid, signal.SIGTERM)


@pytest.mark.parametrize("seconds", [1, 12])
def test_an_interrupted_run_stops_its_children_and_the_same_command_goes_on(
    workplace: Workplace, seconds: int
) -> None:
    different = ["--set", f"training.seed={seconds}"]
    process = subprocess.Popen(
        workplace.command(*workplace.job_arguments, *different),
        cwd=workplace.folder,
        env=workplace.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(seconds)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert process.returncode in (130, 0)
    # Python itself tells of an interrupt that hits a callback of the garbage collector.
    assert "Traceback" not in errors.partition("Exception ignored in")[0]
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert workplace.main_job(*different)["endpoint"]["agreement"] == 1.0


def test_the_registered_model_serves_with_mlflow(workplace: Workplace, first: dict) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        first["artifacts"]["registered_model"]["uri"],
    ]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, *command],
        env={
            **workplace.environment,
            "MLFLOW_TRACKING_URI": first["artifacts"]["mlflow_store"],
            # It starts uvicorn by name, as in an activated environment.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        image = (workplace.folder / "images" / "red" / "0000.png").read_bytes()
        records = [{"image": base64.b64encode(image).decode()}]
        answer = _post_when_up(f"http://127.0.0.1:{port}", {"dataframe_records": records})
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)
    assert answer["predictions"][0]["class"] in ("blue", "green", "red")


def _post_when_up(url: str, body: dict) -> dict:
    for _ in range(120):
        try:
            if requests.get(f"{url}/ping", timeout=1).ok:
                break
        except requests.ConnectionError:
            pass
        time.sleep(0.5)
    return requests.post(f"{url}/invocations", json=body, timeout=30).json()
