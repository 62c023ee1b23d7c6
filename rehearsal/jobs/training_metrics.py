"""A training job's metrics in CloudWatch, where SageMaker's consoles and SDKs look for them."""

import contextlib

from rehearsal.emulator.state import State
from rehearsal.jobs.training_job import TrainingJob

NAMESPACE = "/aws/sagemaker/TrainingJobs"
_AT_ONCE = 500
"""PutMetricData takes 1,000 values."""


def publish(job: TrainingJob, *, state: State) -> None:
    """Send all values that were seen in the log of this attempt."""
    dimensions = [{"Name": "TrainingJobName", "Value": job.name}]
    values = [
        {"MetricName": m.name, "Value": m.value, "Timestamp": m.time, "Dimensions": dimensions}
        for m in job.metrics[job.metrics_sent :]
    ]
    job.metrics_sent += len(values)
    # When the emulator ends, nobody takes them, and nobody will look.
    with contextlib.suppress(Exception):
        for start in range(0, len(values), _AT_ONCE):
            part = values[start : start + _AT_ONCE]
            state.clients["cloudwatch"].put_metric_data(Namespace=NAMESPACE, MetricData=part)
