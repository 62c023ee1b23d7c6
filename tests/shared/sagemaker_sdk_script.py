"""What a user of SageMaker's Python SDK (v2) writes, who has never heard of Darkroom.

python sagemaker_sdk_script.py IMAGE
"""

import sys
import time

import boto3
import sagemaker
from sagemaker.estimator import Estimator
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.tuner import CategoricalParameter, ContinuousParameter, HyperparameterTuner

ROLE = "arn:aws:iam::123456789012:role/Data"
METRICS = [{"Name": "score", "Regex": "score=([-0-9.]+);"}]


def tune(image: str, session: sagemaker.Session) -> None:
    estimator = Estimator(
        image,
        ROLE,
        instance_count=1,
        instance_type="ml.m5.large",
        sagemaker_session=session,
        hyperparameters={"epochs": 2},
        metric_definitions=METRICS,
    )
    ranges = {"x": ContinuousParameter(0.5, 2), "kind": CategoricalParameter(["a", "b"])}
    tuner = HyperparameterTuner(
        estimator, "score", ranges, metric_definitions=METRICS, max_jobs=3, max_parallel_jobs=3
    )
    tuner.fit(wait=False)
    while tuner.describe()["HyperParameterTuningJobStatus"] == "InProgress":
        time.sleep(0.2)
    results = tuner.analytics().dataframe()
    best = tuner.best_estimator().hyperparameters()
    print("tuned", len(results), float(results["x"].max()) == float(best["x"]))


def deploy(image: str, session: sagemaker.Session) -> None:
    def model(name: str) -> Model:
        data = f"s3://bucket/{name}.tar.gz"
        return Model(image, model_data=data, role=ROLE, sagemaker_session=session)

    machines = {"initial_instance_count": 1, "instance_type": "ml.m5.large"}
    model("one").deploy(**machines, endpoint_name="sdk", wait=False)
    predictor = Predictor("sdk", sagemaker_session=session)
    in_service()
    print("served", predictor.predict(b"hello").decode())
    other = model("two")
    other.create(instance_type="ml.m5.large")
    predictor.update_endpoint(model_name=other.name, **machines, wait=False)
    in_service()
    print("updated", predictor.predict(b"hello").decode())
    transformer = other.transformer(1, "ml.m5.large", output_path="s3://bucket/out")
    transformer.transform("s3://bucket/in/", wait=False, logs=False)
    boto3.client("sagemaker").get_waiter("transform_job_completed_or_stopped").wait(
        TransformJobName=transformer.latest_transform_job.name, WaiterConfig={"Delay": 1}
    )
    result = boto3.client("s3").get_object(Bucket="bucket", Key="out/a.txt.out")
    print("transformed", result["Body"].read().decode())
    package = other.register(
        content_types=["text/plain"],
        response_types=["text/plain"],
        inference_instances=["ml.m5.large"],
        transform_instances=["ml.m5.large"],
        model_package_group_name="sdk",
        approval_status="Approved",
    )
    print("registered", package.model_package_arn.rpartition(":")[2])
    predictor.delete_endpoint()


def in_service() -> None:
    waiter = boto3.client("sagemaker").get_waiter("endpoint_in_service")
    waiter.wait(EndpointName="sdk", WaiterConfig={"Delay": 1})


if __name__ == "__main__":
    session = sagemaker.Session(boto3.Session(region_name="us-east-1"), default_bucket="bucket")
    tune(sys.argv[1], session)
    deploy(sys.argv[1], session)
