"""What is worth knowing of the kind of endpoint before anybody relies on it.

Limits are those of the developer guide: serverless-endpoints.html, async-inference.html.
"""

from collections.abc import Iterator

from darkroom.backends.sagemaker.preflight.findings import Finding
from darkroom.config import Config
from darkroom.config.sagemaker import AsynchronousConfig, HostingConfig

_SUBJECT = "endpoint"


def check_hosting(config: Config) -> list[Finding]:
    """Notes on what the kind of endpoint does to whoever asks it."""
    if not config.deployment.enabled:
        return []
    return [Finding(_SUBJECT, "note", text) for text in _notes(config.sagemaker.hosting)]


def _notes(hosting: HostingConfig) -> Iterator[str]:
    if hosting.kind == "serverless":
        yield "serverless endpoints refuse images of more than 4 MB; others take 6 MB."
        if not hosting.serverless.provisioned_concurrency:
            yield (
                "the first request after a pause waits until a copy has started; "
                "sagemaker.hosting.serverless.provisioned_concurrency keeps some warm, at a price."
            )
    if hosting.kind == "asynchronous":
        yield (
            "an asynchronous endpoint answers on S3, not at once; images may have 25 MB, others "
            "take 6 MB."
        )
        yield from _queue_notes(hosting.asynchronous)
        if not hosting.autoscaling.min_instances:
            yield (
                "without an instance (autoscaling.min_instances: 0) an answer takes minutes: an "
                "alarm starts one after two minutes, and it has to come up."
            )


def _queue_notes(queue: AsynchronousConfig) -> Iterator[str]:
    if topics := [topic for topic in (queue.success_topic, queue.error_topic) if topic]:
        yield (
            f"the endpoint role needs sns:Publish on {' and '.join(topics)}, which the policy "
            "infrastructure/iam/endpoint-role.json does not give."
        )
