"""A classifier on SageMaker by its Python SDK (v2): trained, tuned, served, registered, removed.

Environment: AWS's own variables, and

    ROLE_ARN   the role that jobs and endpoints run under
    IMAGE_URI  an image that can `train` and `serve`
    BUCKET     a bucket that the role may read and write

The last line printed is what came back, as JSON.
"""

import contextlib
import io
import json
import os
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import boto3
import numpy as np
from botocore.exceptions import ClientError
from sagemaker import ModelPackage, Session
from sagemaker.clarify import BiasConfig, DataConfig, SageMakerClarifyProcessor
from sagemaker.deserializers import JSONDeserializer
from sagemaker.estimator import Estimator
from sagemaker.exceptions import UnexpectedStatusException
from sagemaker.inputs import TrainingInput
from sagemaker.model_monitor import DataCaptureConfig, DefaultModelMonitor
from sagemaker.predictor import Predictor
from sagemaker.processing import ProcessingInput, ProcessingOutput, ScriptProcessor
from sagemaker.s3 import S3Downloader, S3Uploader
from sagemaker.serializers import CSVSerializer
from sagemaker.tuner import CategoricalParameter, ContinuousParameter, HyperparameterTuner

ROLE, IMAGE, BUCKET = (os.environ[name] for name in ("ROLE_ARN", "IMAGE_URI", "BUCKET"))
PREFIX = f"sdk-{int(time.time())}"
ROOT = f"s3://{BUCKET}/{PREFIX}"
METRICS = [{"Name": "validation:accuracy", "Regex": r"validation:accuracy=([0-9.]+);"}]
MACHINE = "ml.m5.large"

session = Session(default_bucket=BUCKET, default_bucket_prefix=PREFIX)


def main():
    upload_data()
    inputs = {
        name: TrainingInput(f"{ROOT}/data/{name}", content_type="text/csv")
        for name in ("train", "validation")
    }
    estimator = new_estimator(epochs=6)
    told = {"train": report(train, estimator, inputs), "fail": report(fail, inputs)}
    tuner = new_tuner()
    told["tune"] = report(tune, tuner, inputs)
    told["process"] = report(process)
    predictor = estimator.deploy(
        1,
        MACHINE,
        endpoint_name=PREFIX,
        serializer=CSVSerializer(),
        deserializer=JSONDeserializer(),
        data_capture_config=DataCaptureConfig(True, destination_s3_uri=f"{ROOT}/captured"),
    )
    told["serve"] = report(serve, predictor)
    told["update"] = report(update, predictor, tuner)
    told["attach"] = report(attach)
    told["transform"] = report(transform, estimator)
    told["register"] = report(register, estimator)
    told["not here"] = report(what_is_refused, estimator)
    told["clean up"] = report(clean_up, predictor)
    print()
    print(json.dumps(told, default=str))


def report(section, *values):
    started = time.monotonic()
    found = section(*values)
    print(f"{time.monotonic() - started:6.1f} s  {section.__name__}", file=sys.stderr)
    return found


def upload_data():
    """Three clouds of points in the plane, the label first."""
    numbers = np.random.default_rng(7)
    centres = np.array([[0, 0], [4, 0], [0, 4]])
    for channel, count in (("train", 300), ("validation", 90)):
        labels = numbers.integers(0, 3, count)
        points = centres[labels] + numbers.normal(size=(count, 2))
        text = io.StringIO()
        np.savetxt(text, np.column_stack([labels, points]), delimiter=",", fmt="%.4f")
        S3Uploader.upload_string_as_file_body(
            text.getvalue(), f"{ROOT}/data/{channel}/{channel}.csv", sagemaker_session=session
        )


def new_estimator(**hyperparameters):
    return Estimator(
        IMAGE,
        ROLE,
        instance_count=1,
        instance_type=MACHINE,
        output_path=f"{ROOT}/jobs",
        base_job_name=PREFIX,
        hyperparameters=hyperparameters,
        metric_definitions=METRICS,
        environment={"COLOUR": "blue"},
        tags=[{"Key": "project", "Value": "clouds"}],
        sagemaker_session=session,
    )


def train(estimator, inputs):
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        estimator.fit(inputs, wait=True, logs="All")
    content = boto3.client("s3").get_object(
        Bucket=BUCKET, Key=estimator.model_data.removeprefix(f"s3://{BUCKET}/")
    )["Body"]
    with tarfile.open(fileobj=io.BytesIO(content.read())) as tar:
        files = sorted(member.name for member in tar.getmembers() if member.isfile())
    again = Estimator.attach(estimator.latest_training_job.name, sagemaker_session=session)
    return {
        "shown": shown.getvalue(),
        "model": files,
        "graphed": estimator.training_job_analytics.dataframe()["value"].tolist(),
        "attached": again.model_data == estimator.model_data,
        "hyperparameters": again.hyperparameters(),
    }


def fail(inputs):
    estimator = new_estimator(learning_rate=-1)
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        try:
            estimator.fit(inputs)
        except UnexpectedStatusException as error:
            return {"reason": str(error), "shown": shown.getvalue()}
    return "it did not fail"


def new_tuner():
    return HyperparameterTuner(
        new_estimator(epochs=2),
        "validation:accuracy",
        {
            "learning_rate": ContinuousParameter(0.001, 1, scaling_type="Logarithmic"),
            "solver": CategoricalParameter(["plain", "eager"]),
        },
        metric_definitions=METRICS,
        strategy="Bayesian",
        max_jobs=4,
        max_parallel_jobs=2,
        early_stopping_type="Auto",
        base_tuning_job_name="tune",
    )


def tune(tuner, inputs):
    with contextlib.redirect_stdout(io.StringIO()):
        tuner.fit(inputs, wait=True)
    table = tuner.analytics().dataframe()
    best, best_job = tuner.best_estimator(), tuner.best_training_job()
    again = HyperparameterTuner.attach(tuner.latest_tuning_job.name, sagemaker_session=session)
    return {
        "status": tuner.describe()["HyperParameterTuningJobStatus"],
        "scores": sorted(table["FinalObjectiveValue"], reverse=True),
        "best": best_job,
        "best score": table.set_index("TrainingJobName")["FinalObjectiveValue"][best_job],
        "attached": again.estimator.hyperparameters(),
        "best values": best.hyperparameters(),
        "best model": best.model_data,
    }


COUNTING = """
import os, pathlib, sys
folder = pathlib.Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"), "processing")
rows = (folder / "input/train.csv").read_text().split()
(folder / "output/count.txt").write_text(str(len(rows)))
print("counted", sys.argv[1:])
"""


def process():
    processor = ScriptProcessor(
        ROLE,
        image_uri=IMAGE,
        command=["python3"],
        instance_count=1,
        instance_type=MACHINE,
        sagemaker_session=session,
    )
    script = Path(tempfile.mkdtemp(), "count.py")
    script.write_text(COUNTING)
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        processor.run(
            str(script),
            inputs=[ProcessingInput(f"{ROOT}/data/train", "/opt/ml/processing/input")],
            outputs=[ProcessingOutput("/opt/ml/processing/output", f"{ROOT}/counted")],
            arguments=["--by", "lines"],
        )
    return {
        "count": S3Downloader.read_file(f"{ROOT}/counted/count.txt", sagemaker_session=session),
        "shown": shown.getvalue(),
    }


def serve(predictor):
    answer = predictor.predict([[0, 0], [4, 0], [0, 4]])
    try:
        predictor.predict("north,south")
    except ClientError as error:
        refused = str(error)
    return {"answer": answer, "bad payload": refused}


def update(predictor, tuner):
    """The endpoint goes over to the tuning's best model, on two machines."""
    model = tuner.best_estimator().create_model(
        env={"MODEL_LABEL": "tuned"}, name=f"{PREFIX}-tuned"
    )
    model.create(instance_type=MACHINE)
    predictor.update_endpoint(
        model_name=model.name, initial_instance_count=2, instance_type=MACHINE
    )
    endpoint = session.describe_endpoint(predictor.endpoint_name)
    return {
        "answer": predictor.predict([[4, 0]]),
        "instances": endpoint["ProductionVariants"][0]["CurrentInstanceCount"],
        "status": endpoint["EndpointStatus"],
    }


def attach():
    """A predictor that knows only the endpoint's name, as another program would."""
    other = Predictor(PREFIX, sagemaker_session=session)
    body = other.predict(b"0,4", initial_args={"ContentType": "text/csv", "Accept": "text/csv"})
    return body.decode()


def transform(estimator):
    for name, text in (("a", "0,0\n4,0\n0,4\n"), ("b", "4,0\n")):
        S3Uploader.upload_string_as_file_body(
            text, f"{ROOT}/batch/{name}.csv", sagemaker_session=session
        )
    transformer = estimator.transformer(
        1,
        MACHINE,
        strategy="MultiRecord",
        assemble_with="Line",
        accept="text/csv",
        output_path=f"{ROOT}/batch-out",
        max_payload=1,
    )
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        transformer.transform(
            f"{ROOT}/batch", content_type="text/csv", split_type="Line", wait=True, logs=True
        )
    results = {
        uri.rpartition("/")[2]: S3Downloader.read_file(uri, sagemaker_session=session)
        for uri in S3Downloader.list(transformer.output_path, sagemaker_session=session)
    }
    transformer.delete_model()
    return {"results": results, "shown": shown.getvalue()}


def register(estimator):
    """Into the registry, approved, and from there to an endpoint."""
    package = estimator.register(
        content_types=["text/csv"],
        response_types=["application/json"],
        inference_instances=[MACHINE],
        transform_instances=[MACHINE],
        model_package_group_name=f"{PREFIX}-clouds",
        approval_status="PendingManualApproval",
        description="three clouds",
    )
    package.update_approval_status("Approved")
    model = ModelPackage(
        role=ROLE, model_package_arn=package.model_package_arn, sagemaker_session=session
    )
    model.deploy(1, MACHINE, endpoint_name=f"{PREFIX}-packaged")
    predictor = Predictor(
        f"{PREFIX}-packaged",
        sagemaker_session=session,
        serializer=CSVSerializer(),
        deserializer=JSONDeserializer(),
    )
    answer = predictor.predict([[0, 4]])
    predictor.delete_model()
    predictor.delete_endpoint()
    described = session.sagemaker_client.describe_model_package(
        ModelPackageName=package.model_package_arn
    )
    session.sagemaker_client.delete_model_package(ModelPackageName=package.model_package_arn)
    session.sagemaker_client.delete_model_package_group(ModelPackageGroupName=f"{PREFIX}-clouds")
    return {
        "answer": answer,
        "approval": described["ModelApprovalStatus"],
        "version": described["ModelPackageVersion"],
    }


def what_is_refused(estimator):
    """Services of SageMaker's that run programs of AWS's own."""
    data = f"{ROOT}/data/train"
    return {
        "clarify": refusal(run_clarify, data),
        "neo": refusal(
            estimator.compile_model,
            target_instance_family="ml_c5",
            input_shape={"input": [1, 2]},
            output_path=f"{ROOT}/compiled",
            framework="pytorch",
            framework_version="1.13",
        ),
        "baseline": refusal(new_monitor().suggest_baseline, f"{data}/train.csv", {"csv": {}}),
        "schedule": refusal(
            new_monitor().create_monitoring_schedule,
            endpoint_input=PREFIX,
            output_s3_uri=f"{ROOT}/monitoring",
            schedule_cron_expression="cron(0 * ? * * *)",
        ),
    }


def run_clarify(data):
    processor = SageMakerClarifyProcessor(
        role=ROLE, instance_count=1, instance_type=MACHINE, sagemaker_session=session
    )
    processor.run_pre_training_bias(
        data_config=DataConfig(
            s3_data_input_path=data,
            s3_output_path=f"{ROOT}/bias",
            label="label",
            headers=["label", "x", "y"],
            dataset_type="text/csv",
        ),
        data_bias_config=BiasConfig(label_values_or_threshold=[1], facet_name="x"),
    )


def new_monitor():
    return DefaultModelMonitor(
        role=ROLE, instance_count=1, instance_type=MACHINE, sagemaker_session=session
    )


def refusal(call, *values, **more):
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            call(*values, **more)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "taken"


def clean_up(predictor):
    predictor.delete_model()
    predictor.delete_endpoint(delete_endpoint_config=True)
    boto3.client("sagemaker").get_waiter("endpoint_deleted").wait(EndpointName=PREFIX)
    client = session.sagemaker_client
    for entry in client.list_endpoint_configs()["EndpointConfigs"]:
        if entry["EndpointConfigName"].startswith(PREFIX):
            client.delete_endpoint_config(EndpointConfigName=entry["EndpointConfigName"])
    for entry in client.list_models()["Models"]:
        if entry["ModelName"].startswith(PREFIX):
            client.delete_model(ModelName=entry["ModelName"])
    boto3.resource("s3").Bucket(BUCKET).objects.filter(Prefix=PREFIX).delete()
    return refusal(predictor.predict, [[0, 0]])


if __name__ == "__main__":
    main()
