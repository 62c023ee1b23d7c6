"""A classifier on SageMaker by boto3 alone: trained, served, updated, removed.

Environment: AWS's own variables, and

    ROLE_ARN   the role that jobs and endpoints run under
    IMAGE_URI  an image that can `train` and `serve`
    BUCKET     a bucket that the role may read and write

The last line printed is what came back, as JSON.
"""

import io
import json
import os
import sys
import tarfile
import time

import boto3
import numpy as np
from botocore.exceptions import ClientError, WaiterError

ROLE, IMAGE, BUCKET = (os.environ[name] for name in ("ROLE_ARN", "IMAGE_URI", "BUCKET"))
PREFIX = f"plain-{int(time.time())}"
ROOT = f"s3://{BUCKET}/{PREFIX}"

sagemaker = boto3.client("sagemaker")
runtime = boto3.client("sagemaker-runtime")
s3 = boto3.client("s3")
logs = boto3.client("logs")
cloudwatch = boto3.client("cloudwatch")
scaling = boto3.client("application-autoscaling")


def main():
    started = time.monotonic()
    upload_data()
    came_back = {}
    sections = (train, fail, refuse, stop, spot, tune, package, serve, update, scale, transform)
    for section in (*sections, clean_up):
        came_back[section.__name__] = section()
        print(f"{time.monotonic() - started:6.1f} s  {section.__name__}", file=sys.stderr)
    print(json.dumps(came_back, default=str))


def upload_data():
    """Three clouds of points in the plane, the label first."""
    numbers = np.random.default_rng(7)
    centres = np.array([[0, 0], [4, 0], [0, 4]])
    for channel, count in (("train", 300), ("validation", 90)):
        labels = numbers.integers(0, 3, count)
        points = centres[labels] + numbers.normal(size=(count, 2))
        text = io.StringIO()
        np.savetxt(text, np.column_stack([labels, points]), delimiter=",", fmt="%.4f")
        s3.put_object(
            Bucket=BUCKET, Key=f"{PREFIX}/data/{channel}/{channel}.csv", Body=text.getvalue()
        )


def training(name, *, hyperparameters=None, **more):
    """A request for CreateTrainingJob."""
    return {
        "TrainingJobName": f"{PREFIX}-{name}",
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": [
                {"Name": "validation:accuracy", "Regex": r"validation:accuracy=([0-9.]+);"}
            ],
        },
        "HyperParameters": hyperparameters or {},
        "InputDataConfig": [channel("train"), channel("validation")],
        "OutputDataConfig": {"S3OutputPath": f"{ROOT}/jobs"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5},
        "RoleArn": ROLE,
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        "Tags": [{"Key": "project", "Value": "clouds"}],
        **more,
    }


def channel(name):
    source = {
        "S3DataType": "S3Prefix",
        "S3Uri": f"{ROOT}/data/{name}/",
        "S3DataDistributionType": "FullyReplicated",
    }
    return {
        "ChannelName": name,
        "DataSource": {"S3DataSource": source},
        "ContentType": "text/csv",
    }


def finished(name):
    """Wait for a training job, however it ends; then describe it."""
    waiter = sagemaker.get_waiter("training_job_completed_or_stopped")
    waiter.wait(TrainingJobName=f"{PREFIX}-{name}")
    return sagemaker.describe_training_job(TrainingJobName=f"{PREFIX}-{name}")


def train():
    sagemaker.create_training_job(**training("good", hyperparameters={"epochs": "6"}))
    job = finished("good")
    graph = cloudwatch.get_metric_statistics(
        Namespace="/aws/sagemaker/TrainingJobs",
        MetricName="validation:accuracy",
        Dimensions=[{"Name": "TrainingJobName", "Value": job["TrainingJobName"]}],
        StartTime=job["TrainingStartTime"].timestamp() - 60,
        EndTime=job["TrainingEndTime"].timestamp() + 60,
        Period=60,
        Statistics=["Maximum", "SampleCount"],
    )
    listed = sagemaker.list_training_jobs(NameContains=PREFIX, StatusEquals="Completed")
    return {
        "status": job["TrainingJobStatus"],
        "secondary": [entry["Status"] for entry in job["SecondaryStatusTransitions"]],
        "accuracy": job["FinalMetricDataList"][0]["Value"],
        "graphed": [(p["Maximum"], p["SampleCount"]) for p in graph["Datapoints"]],
        "billable": job["BillableTimeInSeconds"],
        "lines": log_lines("/aws/sagemaker/TrainingJobs", f"{PREFIX}-good/algo-1"),
        "model": sorted(archive(job["ModelArtifacts"]["S3ModelArtifacts"])),
        "report": json.loads(
            archive(f"{ROOT}/jobs/{PREFIX}-good/output/output.tar.gz")["accuracies.json"]
        ),
        "tags": sagemaker.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"],
        "listed": [entry["TrainingJobName"] for entry in listed["TrainingJobSummaries"]],
    }


def log_lines(group, prefix):
    found = logs.filter_log_events(logGroupName=group, logStreamNamePrefix=prefix)
    return [event["message"] for event in found["events"]]


def archive(uri):
    """The files of a tar.gz on S3."""
    key = uri.removeprefix(f"s3://{BUCKET}/")
    content = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}


def fail():
    sagemaker.create_training_job(**training("bad", hyperparameters={"learning_rate": "-1"}))
    sagemaker.create_training_job(
        **training("no-data", InputDataConfig=[channel("train"), channel("missing")])
    )
    told = {}
    for name in ("bad", "no-data"):
        try:
            told[name] = finished(name)["TrainingJobStatus"]
        except WaiterError as error:
            job = sagemaker.describe_training_job(TrainingJobName=f"{PREFIX}-{name}")
            told[name] = {
                "waiter": type(error).__name__,
                "status": job["TrainingJobStatus"],
                "reason": job["FailureReason"],
            }
    return told


def refuse():
    """Requests that AWS refuses: what it answers."""
    no_wait = training("no-wait", EnableManagedSpotTraining=True)
    odd_type = training("odd")
    odd_type["ResourceConfig"] = odd_type["ResourceConfig"] | {"InstanceType": "ml.huge"}
    return {
        "name": refusal(sagemaker.create_training_job, **training("under_score")),
        "taken": refusal(sagemaker.create_training_job, **training("good")),
        "spot without wait": refusal(sagemaker.create_training_job, **no_wait),
        "instance type": refusal(sagemaker.create_training_job, **odd_type),
        "unknown job": refusal(sagemaker.describe_training_job, TrainingJobName="nowhere"),
        "unknown endpoint": refusal(sagemaker.describe_endpoint, EndpointName="nowhere"),
        "unknown model": refusal(
            sagemaker.create_endpoint_config,
            EndpointConfigName=f"{PREFIX}-nothing",
            ProductionVariants=[variant("nowhere")],
        ),
        "invocation": refusal(runtime.invoke_endpoint, EndpointName="nowhere", Body=b"1,2"),
        "bucket": refusal(s3.head_bucket, Bucket="no-such-bucket-anywhere-at-all"),
        "stopped twice": refusal(sagemaker.stop_training_job, TrainingJobName=f"{PREFIX}-good"),
    }


def refusal(call, **request):
    try:
        call(**request)
    except ClientError as error:
        return f"{error.response['Error']['Code']}: {error.response['Error']['Message']}"
    return "taken"


def stop():
    slow = {"epochs": "1000", "pause": "0.2"}
    sagemaker.create_training_job(**training("stopped", hyperparameters=slow))
    wait_for_line(f"{PREFIX}-stopped", "epoch=2;")
    sagemaker.stop_training_job(TrainingJobName=f"{PREFIX}-stopped")
    job = finished("stopped")
    return {
        "status": job["TrainingJobStatus"],
        "secondary": job["SecondaryStatus"],
        "model": sorted(archive(job["ModelArtifacts"]["S3ModelArtifacts"])),
        "last line": log_lines("/aws/sagemaker/TrainingJobs", f"{PREFIX}-stopped")[-1],
    }


def wait_for_line(job, text):
    for _ in range(600):
        try:
            if any(text in line for line in log_lines("/aws/sagemaker/TrainingJobs", job)):
                return
        except logs.exceptions.ResourceNotFoundException:
            pass
        time.sleep(1)
    raise TimeoutError(f"{job} never said {text!r}")


def spot():
    """A spot job that keeps checkpoints; AWS may interrupt it, and goes on with it."""
    sagemaker.create_training_job(
        **training(
            "spot",
            hyperparameters={"epochs": "12", "pause": "0.2"},
            EnableManagedSpotTraining=True,
            StoppingCondition={"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200},
            CheckpointConfig={"S3Uri": f"{ROOT}/checkpoints", "LocalPath": "/opt/ml/checkpoints"},
        )
    )
    job = finished("spot")
    kept = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{PREFIX}/checkpoints/")["Contents"]
    return {
        "status": job["TrainingJobStatus"],
        "secondary": [entry["Status"] for entry in job["SecondaryStatusTransitions"]],
        "lines": log_lines("/aws/sagemaker/TrainingJobs", f"{PREFIX}-spot"),
        "checkpoints": len(kept),
        "seconds": [job["TrainingTimeInSeconds"], job["BillableTimeInSeconds"]],
    }


SEARCH = {
    "Strategy": "Random",
    "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "validation:accuracy"},
    "ResourceLimits": {"MaxNumberOfTrainingJobs": 3, "MaxParallelTrainingJobs": 2},
    "ParameterRanges": {
        "ContinuousParameterRanges": [
            {
                "Name": "learning_rate",
                "MinValue": "0.001",
                "MaxValue": "1",
                "ScalingType": "Logarithmic",
            }
        ],
        "CategoricalParameterRanges": [{"Name": "solver", "Values": ["plain", "eager"]}],
    },
}


def tune():
    name = f"tune-{PREFIX}"[:32]
    definition = training("unnamed", hyperparameters={"epochs": "2"})
    for unwanted in ("TrainingJobName", "Tags"):
        del definition[unwanted]
    definition["StaticHyperParameters"] = definition.pop("HyperParameters")
    search = {"HyperParameterTuningJobName": name}
    sagemaker.create_hyper_parameter_tuning_job(
        **search, HyperParameterTuningJobConfig=SEARCH, TrainingJobDefinition=definition
    )
    while (job := sagemaker.describe_hyper_parameter_tuning_job(**search))[
        "HyperParameterTuningJobStatus"
    ] == "InProgress":
        time.sleep(10)
    trials = sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
        **search, SortBy="FinalObjectiveMetricValue", SortOrder="Descending"
    )["TrainingJobSummaries"]
    return {
        "status": job["HyperParameterTuningJobStatus"],
        "counters": job["TrainingJobStatusCounters"],
        "best": job["BestTrainingJob"]["TrainingJobName"],
        "trials": [
            {
                "name": trial["TrainingJobName"],
                "values": trial["TunedHyperParameters"],
                "score": trial["FinalHyperParameterTuningJobObjectiveMetric"]["Value"],
            }
            for trial in trials
        ],
    }


def package():
    """The model in the registry, approved, and a model made from it."""
    group = f"{PREFIX}-clouds"
    sagemaker.create_model_package_group(ModelPackageGroupName=group)
    arn = sagemaker.create_model_package(
        ModelPackageGroupName=group,
        InferenceSpecification={
            "Containers": [{"Image": IMAGE, "ModelDataUrl": model_data()}],
            "SupportedContentTypes": ["text/csv", "application/json"],
            "SupportedResponseMIMETypes": ["application/json", "text/csv"],
            "SupportedRealtimeInferenceInstanceTypes": ["ml.m5.large"],
            "SupportedTransformInstanceTypes": ["ml.m5.large"],
        },
        ModelApprovalStatus="PendingManualApproval",
        CustomerMetadataProperties={"accuracy": "high"},
    )["ModelPackageArn"]
    sagemaker.update_model_package(
        ModelPackageArn=arn, ModelApprovalStatus="Approved", ApprovalDescription="looks good"
    )
    sagemaker.create_model(
        ModelName=f"{PREFIX}-packaged",
        ExecutionRoleArn=ROLE,
        Containers=[{"ModelPackageName": arn, "Environment": {"MODEL_LABEL": "packaged"}}],
    )
    listed = sagemaker.list_model_packages(
        ModelPackageGroupName=group, ModelApprovalStatus="Approved", SortBy="CreationTime"
    )["ModelPackageSummaryList"]
    described = sagemaker.describe_model_package(ModelPackageName=arn)
    return {
        "version": described["ModelPackageVersion"],
        "approval": described["ModelApprovalStatus"],
        "metadata": described["CustomerMetadataProperties"],
        "listed": [entry["ModelPackageVersion"] for entry in listed],
    }


def model_data():
    return f"{ROOT}/jobs/{PREFIX}-good/output/model.tar.gz"


def variant(model, **more):
    return {
        "VariantName": "AllTraffic",
        "ModelName": model,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
        **more,
    }


def serve():
    sagemaker.create_model(
        ModelName=f"{PREFIX}-first",
        ExecutionRoleArn=ROLE,
        PrimaryContainer={
            "Image": IMAGE,
            "ModelDataUrl": model_data(),
            "Environment": {"MODEL_LABEL": "first"},
        },
    )
    sagemaker.create_endpoint_config(
        EndpointConfigName=f"{PREFIX}-first",
        ProductionVariants=[variant(f"{PREFIX}-first")],
        DataCaptureConfig={
            "EnableCapture": True,
            "InitialSamplingPercentage": 100,
            "DestinationS3Uri": f"{ROOT}/captured",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"]},
        },
    )
    sagemaker.create_endpoint(EndpointName=PREFIX, EndpointConfigName=f"{PREFIX}-first")
    early = refusal(runtime.invoke_endpoint, EndpointName=PREFIX, Body=b"0,0")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=PREFIX)
    return {
        "early": early,
        "csv": ask(b"0,0\n4,0\n0,4\n"),
        "json": ask(b'{"instances": [[0, 4]]}', kind="application/json"),
        "accepted": ask(b"0,4\n", accept="text/csv"),
        "bad payload": model_error(b"north,south"),
        "bad type": model_error(b"x", kind="image/png"),
        "lines": log_lines(f"/aws/sagemaker/Endpoints/{PREFIX}", "AllTraffic/"),
        "captured": captured(),
    }


def ask(body, *, kind="text/csv", accept="application/json"):
    answer = runtime.invoke_endpoint(
        EndpointName=PREFIX, Body=body, ContentType=kind, Accept=accept
    )
    text = answer["Body"].read().decode()
    return text if answer["ContentType"] == "text/csv" else json.loads(text)


def model_error(body, *, kind="text/csv"):
    try:
        return ask(body, kind=kind)
    except runtime.exceptions.ModelError as error:
        return [
            error.response["OriginalStatusCode"],
            error.response["OriginalMessage"],
            error.response["LogStreamArn"],
            error.response["ResponseMetadata"]["HTTPStatusCode"],
        ]


def captured():
    """What the endpoint has kept of its answers, once it is on S3."""
    for _ in range(600):
        found = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{PREFIX}/captured/")
        if "Contents" in found:
            lines = []
            for entry in found["Contents"]:
                body = s3.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
                lines += [json.loads(line) for line in body.splitlines()]
            return [line["captureData"]["endpointInput"]["data"] for line in lines]
        time.sleep(5)
    raise TimeoutError("nothing was captured")


CANARY = {
    "TrafficRoutingConfiguration": {
        "Type": "CANARY",
        "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50},
        "WaitIntervalInSeconds": 300,
    },
    "MaximumExecutionTimeoutInSeconds": 1800,
}


def update():
    """A canary, watched by an alarm, to the model of the registry."""
    watch_errors()
    sagemaker.create_endpoint_config(
        EndpointConfigName=f"{PREFIX}-second",
        ProductionVariants=[variant(f"{PREFIX}-packaged", InitialInstanceCount=2)],
    )
    alarms = {"Alarms": [{"AlarmName": f"{PREFIX}-errors"}]}
    sagemaker.update_endpoint(
        EndpointName=PREFIX,
        EndpointConfigName=f"{PREFIX}-second",
        DeploymentConfig={"BlueGreenUpdatePolicy": CANARY, "AutoRollbackConfiguration": alarms},
    )
    busy = refusal(sagemaker.delete_endpoint, EndpointName=PREFIX)
    answered = set()
    while (endpoint := sagemaker.describe_endpoint(EndpointName=PREFIX))["EndpointStatus"] in (
        "Updating",
        "RollingBack",
    ):
        answered.add(ask(b"0,4\n")["model"])
        time.sleep(0.1)
    return {
        "status": endpoint["EndpointStatus"],
        "busy": busy,
        "answered meanwhile": sorted(answered),
        "answers": ask(b"0,4\n")["model"],
        "config": endpoint["EndpointConfigName"].removeprefix(PREFIX),
        "instances": endpoint["ProductionVariants"][0]["CurrentInstanceCount"],
    }


def watch_errors():
    names = {"EndpointName": PREFIX, "VariantName": "AllTraffic"}
    cloudwatch.put_metric_alarm(
        AlarmName=f"{PREFIX}-errors",
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Dimensions=[{"Name": name, "Value": value} for name, value in names.items()],
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=0,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="notBreaching",
    )


def scale():
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{PREFIX}/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=3)
    scaling.put_scaling_policy(
        **target,
        PolicyName=f"{PREFIX}-invocations",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 100,
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
            },
            "ScaleInCooldown": 300,
            "ScaleOutCooldown": 60,
        },
    )
    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=PREFIX,
        DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 1}],
    )
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=PREFIX)
    found = scaling.describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=[target["ResourceId"]]
    )["ScalableTargets"]
    policies = scaling.describe_scaling_policies(
        ServiceNamespace="sagemaker", ResourceId=target["ResourceId"]
    )["ScalingPolicies"]
    endpoint = sagemaker.describe_endpoint(EndpointName=PREFIX)
    told = {
        "capacity": [(t["MinCapacity"], t["MaxCapacity"]) for t in found],
        "policies": [p["PolicyType"] for p in policies],
        "instances": endpoint["ProductionVariants"][0]["CurrentInstanceCount"],
    }
    scaling.delete_scaling_policy(**target, PolicyName=f"{PREFIX}-invocations")
    scaling.deregister_scalable_target(**target)
    return told


def transform():
    s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/batch/a.csv", Body=b"0,0\n4,0\n0,4\n")
    s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/batch/deeper/b.csv", Body=b"4,0\n")
    s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/nonsense/c.csv", Body=b"north,south\n")
    return {folder: transformed(folder) for folder in ("batch", "nonsense")}


def transformed(folder):
    name = f"{PREFIX}-{folder}"
    source = {"S3DataType": "S3Prefix", "S3Uri": f"{ROOT}/{folder}/"}
    sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=f"{PREFIX}-first",
        BatchStrategy="MultiRecord",
        TransformInput={
            "DataSource": {"S3DataSource": source},
            "ContentType": "text/csv",
            "SplitType": "Line",
        },
        TransformOutput={
            "S3OutputPath": f"{ROOT}/{folder}-out",
            "Accept": "text/csv",
            "AssembleWith": "Line",
        },
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    try:
        sagemaker.get_waiter("transform_job_completed_or_stopped").wait(TransformJobName=name)
    except WaiterError as error:
        print(error, file=sys.stderr)
    job = sagemaker.describe_transform_job(TransformJobName=name)
    return {
        "status": job["TransformJobStatus"],
        "reason": job.get("FailureReason"),
        "lines": log_lines("/aws/sagemaker/TransformJobs", f"{name}/"),
        "output": texts(f"{PREFIX}/{folder}-out/"),
    }


def texts(prefix):
    """The objects below a prefix, by the rest of their keys."""
    found = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return {
        entry["Key"].removeprefix(prefix): s3.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"]
        .read()
        .decode()
        for entry in found
    }


def clean_up():
    """Delete everything, the endpoint first."""
    sagemaker.delete_endpoint(EndpointName=PREFIX)
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=PREFIX)
    for name in ("first", "second"):
        sagemaker.delete_endpoint_config(EndpointConfigName=f"{PREFIX}-{name}")
    for name in ("first", "packaged"):
        sagemaker.delete_model(ModelName=f"{PREFIX}-{name}")
    group = f"{PREFIX}-clouds"
    full = refusal(sagemaker.delete_model_package_group, ModelPackageGroupName=group)
    packages = sagemaker.list_model_packages(ModelPackageGroupName=group)
    for entry in packages["ModelPackageSummaryList"]:
        sagemaker.delete_model_package(ModelPackageName=entry["ModelPackageArn"])
    sagemaker.delete_model_package_group(ModelPackageGroupName=group)
    cloudwatch.delete_alarms(AlarmNames=[f"{PREFIX}-errors"])
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=PREFIX)
    for page in pages:
        keys = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
        s3.delete_objects(Bucket=BUCKET, Delete={"Objects": keys})
    return {
        "full group": full,
        "gone": refusal(runtime.invoke_endpoint, EndpointName=PREFIX, Body=b"0,0"),
    }


if __name__ == "__main__":
    main()
