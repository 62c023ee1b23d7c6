"""The API of transform jobs."""

import gzip
import json
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from rehearsal.emulator.errors import AwsError, in_use, invalid, not_executed, own_mistake
from rehearsal.emulator.operations import Answer, Request, operation, page
from rehearsal.emulator.records import STARTUP_SECONDS, Record, recorded
from rehearsal.emulator.state import State, now
from rehearsal.emulator.tags import keep_tags
from rehearsal.hosting.models import model_named
from rehearsal.hosting.servers import Answer as ServerAnswer
from rehearsal.hosting.servers import ModelServer, NoAnswerError, StartupError
from rehearsal.hosting.variants import make_server
from rehearsal.jobs import storage
from rehearsal.jobs.logs import LogStream
from rehearsal.jobs.storage import split_uri

# --- transform job ---
# A transform job, as kept and as DescribeTransformJob shows it.

_SHOWN = (
    "ModelName",
    "MaxConcurrentTransforms",
    "ModelClientConfig",
    "MaxPayloadInMB",
    "BatchStrategy",
    "Environment",
    "TransformInput",
    "TransformOutput",
    "TransformResources",
    "DataProcessing",
    "ExperimentConfig",
)


@dataclass
class TransformJob:
    """One transform job, changed by its own thread."""

    request: Mapping[str, Any]
    arn: str
    created: datetime = field(default_factory=now)
    started: datetime | None = None
    ended: datetime | None = None
    status: str = "InProgress"
    failure: str = ""
    stop_requested: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return str(self.request["TransformJobName"])

    @property
    def source(self) -> Mapping[str, Any]:
        """TransformInput."""
        source: Mapping[str, Any] = self.request["TransformInput"]
        return source

    @property
    def target(self) -> Mapping[str, Any]:
        """TransformOutput."""
        target: Mapping[str, Any] = self.request["TransformOutput"]
        return target

    def finish(self, status: str, *, failure: str = "") -> None:
        """Reach a final status."""
        self.status, self.failure, self.ended = status, failure, now()

    def summary(self) -> dict[str, Any]:
        """Its entry in ListTransformJobs."""
        return {
            "TransformJobName": self.name,
            "TransformJobArn": self.arn,
            "TransformJobStatus": self.status,
            "CreationTime": self.created,
            "LastModifiedTime": self.ended or self.started or self.created,
            **self._later(),
        }

    def description(self) -> dict[str, Any]:
        """The answer of DescribeTransformJob."""
        described = self.summary()
        described.pop("LastModifiedTime")
        if self.started:
            described["TransformStartTime"] = self.started
        return described | {key: self.request[key] for key in _SHOWN if key in self.request}

    def _later(self) -> dict[str, Any]:
        """What is known once it has ended."""
        ended = {"TransformEndTime": self.ended} if self.ended else {}
        return ended | ({"FailureReason": self.failure} if self.failure else {})


def transform_job_named(name: str, *, state: State) -> TransformJob:
    """Raises AwsError where there is none."""
    job = state.kept(TransformJob).get(name)
    if job is None:
        raise invalid(f"Could not find requested job with name: {name}")
    return job


# --- settings ---
# How a transform job asks the container: as requested, else as the container wishes.

_MAX_MEGABYTES = 6
_RETRIES = 3
_SECONDS = 600
"""All three are CreateTransformJob's defaults in the API reference."""


@dataclass(frozen=True)
class TransformSettings:
    """Of one job."""

    concurrency: int
    maximum_megabytes: int
    strategy: str
    split: str
    assemble_with: str
    retries: int
    seconds: float
    content_type: str
    accept: str

    @classmethod
    def of(cls, request: Mapping[str, Any], *, wishes: Mapping[str, Any]) -> "TransformSettings":
        """Args: wishes: what the container's /execution-parameters answered."""
        asked = {**wishes, **request}
        client = request.get("ModelClientConfig", {})
        return cls(
            concurrency=int(asked.get("MaxConcurrentTransforms") or 1),
            maximum_megabytes=int(asked.get("MaxPayloadInMB", _MAX_MEGABYTES)),
            strategy=asked.get("BatchStrategy", "MultiRecord").replace("_", ""),
            split=request["TransformInput"].get("SplitType", "None"),
            assemble_with=request["TransformOutput"].get("AssembleWith", "None"),
            retries=client.get("InvocationsMaxRetries", _RETRIES),
            seconds=client.get("InvocationsTimeoutInSeconds", _SECONDS),
            content_type=request["TransformInput"].get("ContentType", ""),
            accept=request["TransformOutput"].get("Accept", ""),
        )

    def headers(self) -> dict[str, str]:
        """Of every request to the container."""
        given = {"Content-Type": self.content_type, "Accept": self.accept}
        return {name: value for name, value in given.items() if value}


def container_environment(request: Mapping[str, Any]) -> dict[str, str]:
    """What SageMaker adds for a batch: the developer guide names these four."""
    given = {
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": request.get("MaxPayloadInMB"),
        "SAGEMAKER_BATCH_STRATEGY": request.get("BatchStrategy"),
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": request.get("MaxConcurrentTransforms"),
    }
    told = {name: str(value) for name, value in given.items() if value is not None}
    return {"SAGEMAKER_BATCH": "true", **told, **request.get("Environment", {})}


def wishes_of(server: ModelServer) -> dict[str, Any]:
    """What the container's optional GET /execution-parameters answers."""
    try:
        answer = server.send("GET", path="/execution-parameters", headers={})
        content = json.loads(answer.body) if answer.status == 200 else {}
    except (NoAnswerError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


# --- objects ---
# Which objects a transform job reads, and where the result of each goes.


@dataclass(frozen=True)
class InputObject:
    """One object to transform."""

    bucket: str
    key: str
    relative: str
    """Its path below the input, which its result keeps."""

    @property
    def uri(self) -> str:
        """Where it lies."""
        return f"s3://{self.bucket}/{self.key}"

    def output(self, path: str) -> str:
        """Where its result goes, below an S3OutputPath."""
        return f"{path.rstrip('/')}/{self.relative}.out"


def input_objects(source: Mapping[str, Any], *, state: State) -> list[InputObject]:
    """All objects of an S3DataSource, a prefix or a manifest, in order.

    Raises botocore's ClientError; ValueError where a manifest is none.
    """
    if source["S3DataType"] == "ManifestFile":
        found = storage.of_manifest(source["S3Uri"], state=state)
        return [InputObject(each.bucket, each.key, name) for each, name in found]
    _, prefix = split_uri(source["S3Uri"])
    return [
        InputObject(each.bucket, each.key, relative_key(each.key, prefix=prefix))
        for each in storage.listed(source["S3Uri"], state=state)
        if not each.key.endswith("/")
    ]


def relative_key(key: str, *, prefix: str) -> str:
    """A key's path below a prefix; below the prefix's folder, where it is part of a name."""
    rest = key.removeprefix(prefix)
    if rest and (prefix.endswith("/") or rest.startswith("/") or not prefix):
        return rest.lstrip("/")
    return key.removeprefix(prefix.rpartition("/")[0]).lstrip("/")


# --- records ---
# How a transform job cuts an object into requests, and joins the answers again.

_MEGABYTE = 2**20


class RecordTooLargeError(Exception):
    """One record alone exceeds MaxPayloadInMB."""


def payloads(body: bytes, *, split: str, strategy: str, maximum_megabytes: int) -> list[bytes]:
    """The requests that one object becomes.

    split: None (the object as it is) or Line; strategy: SingleRecord, or MultiRecord, as many
    lines in a request as fit. maximum_megabytes: 0 means no limit.
    Raises RecordTooLargeError.
    """
    limit = maximum_megabytes * _MEGABYTE or None
    records = body.splitlines(keepends=True) if split == "Line" else [body]
    for record in records:
        if limit is not None and len(record) > limit:
            raise RecordTooLargeError(
                f"a record of {len(record)} bytes exceeds MaxPayloadInMB={maximum_megabytes}"
            )
    if split == "None" or strategy == "SingleRecord":
        return records
    return list(_batched(records, limit=limit))


def assembled(answers: list[bytes], *, assemble_with: str) -> bytes:
    """The object that the answers of one input become; AssembleWith is None or Line."""
    if assemble_with != "Line":
        return b"".join(answers)
    return b"".join(answer if answer.endswith(b"\n") else answer + b"\n" for answer in answers)


def _batched(records: list[bytes], *, limit: int | None) -> Iterator[bytes]:
    batch = bytearray()
    for record in records:
        if batch and limit is not None and len(batch) + len(record) > limit:
            yield bytes(batch)
            batch.clear()
        batch += record
    if batch:
        yield bytes(batch)


# --- execution ---
# The thread of a transform job: one container, and every object posted to it.
#
# As on AWS, an object that is refused fails the job in the end, and the others are still
# transformed: their results stay.

LOG_GROUP = "/aws/sagemaker/TransformJobs"

_CLIENT_ERROR = "ClientError: See job logs for more information"
_OF_THE_INPUT = (RecordTooLargeError, ClientError, *storage.NO_GZIP)
_ALGORITHM_ERROR = "AlgorithmError: See job logs for more information"


class _FailedError(Exception):
    """The job's FailureReason."""


@dataclass
class TransformRun:
    """One transform job while it runs."""

    job: TransformJob
    state: State
    failures: list[str] = field(default_factory=list)
    """One reason for each object that failed."""

    def run(self) -> None:
        """To the end, or until somebody stops it."""
        instance = f"{self.job.name}/i-{uuid.uuid4().hex[:17]}-{int(time.time())}"
        self._data_log = self._log(f"{instance}/data-log")
        server = None
        try:
            server = self._start(instance)
            self._transform_all(server)
            failure = self.failures[0] if self.failures else ""
        except (_FailedError, StartupError, AwsError, ClientError, ValueError) as error:
            failure = _reason(error)
        except Exception as error:
            self._finish(own_mistake(error))
            raise
        finally:
            self._data_log.close()
            if server is not None:
                server.stop()
        self._finish(failure)

    def _finish(self, failure: str) -> None:
        stopped = self.job.stop_requested.is_set()
        status = "Stopped" if stopped else "Failed" if failure else "Completed"
        with self.state.lock:
            self.job.finish(status, failure="" if stopped else failure)

    def _start(self, stream: str) -> ModelServer:
        model = model_named(self.job.request["ModelName"], state=self.state)
        definition = model.containers[0]
        more = container_environment(self.job.request)
        server = make_server(
            {**definition, "Environment": {**definition.get("Environment", {}), **more}},
            model=model,
            hostname="primary",
            group=LOG_GROUP,
            stream=stream,
            state=self.state,
        )
        server.start()
        self.job.started = now()
        if not server.wait_until_healthy(seconds=self.state.settings.startup_seconds):
            server.stop()
            raise _FailedError(
                "AlgorithmError: The primary container did not pass the ping health check. "
                "See job logs for more information"
            )
        return server

    def _transform_all(self, server: ModelServer) -> None:
        settings = TransformSettings.of(self.job.request, wishes=wishes_of(server))
        self._say(
            f"MaxConcurrentTransforms={settings.concurrency}, "
            f"MaxPayloadInMB={settings.maximum_megabytes}, BatchStrategy={settings.strategy}"
        )
        source = self.job.source["DataSource"]["S3DataSource"]
        found = input_objects(source, state=self.state)
        if not found:
            raise _FailedError(
                f'ClientError: No S3 objects found under S3 URL "{source["S3Uri"]}" given in '
                "input data source."
            )
        with ThreadPoolExecutor(settings.concurrency) as pool:
            for _ in pool.map(
                lambda each: self._transform(each, server=server, settings=settings), found
            ):
                pass

    def _transform(
        self, each: InputObject, *, server: ModelServer, settings: TransformSettings
    ) -> None:
        if self.job.stop_requested.is_set() or self.state.ending.is_set():
            return
        try:
            body = storage.read(each.uri, state=self.state)
            if self.job.source.get("CompressionType") == "Gzip":
                body = gzip.decompress(body)
            answers = [
                self._ask(part, server=server, settings=settings)
                for part in payloads(
                    body,
                    split=settings.split,
                    strategy=settings.strategy,
                    maximum_megabytes=settings.maximum_megabytes,
                )
            ]
        except (NoAnswerError, _RefusedError, *_OF_THE_INPUT) as error:
            self._note(each, error=error, after=server.last_line())
            return
        bucket, key = split_uri(each.output(self.job.target["S3OutputPath"]))
        result = assembled(answers, assemble_with=settings.assemble_with)
        self.state.clients["s3"].put_object(Bucket=bucket, Key=key, Body=result)

    def _ask(self, part: bytes, *, server: ModelServer, settings: TransformSettings) -> bytes:
        """What the container makes of one request; server errors are tried again."""
        for attempt in range(settings.retries + 1):
            answer = server.send(
                "POST",
                path="/invocations",
                body=part,
                headers=settings.headers(),
                seconds=settings.seconds,
            )
            if answer.status < 400:
                return answer.body
            if answer.status < 500 or attempt == settings.retries:
                break
        raise _RefusedError(answer)

    def _note(self, each: InputObject, *, error: Exception, after: int) -> None:
        """Write to the job's data log what AWS writes there, behind what the container said."""
        place = f"{each.bucket}/{each.key}"
        is_client = isinstance(error, _OF_THE_INPUT)
        lines = [f"{'ClientError' if is_client else 'Unable to get response from algorithm'}"]
        lines += ["", "Message:", str(error)]
        if isinstance(error, _RefusedError):
            is_client = error.answer.status < 500
            kind = "ClientError" if is_client else "Bad HTTP status received from algorithm"
            lines[0] = f"{kind}: {error.answer.status}"
        for line in lines:
            self._say(f"{place}: {line}", after=after)
        self.failures.append(_CLIENT_ERROR if is_client else _ALGORITHM_ERROR)

    def _say(self, text: str, *, after: int = 0) -> None:
        moment = now().strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        self._data_log.write(f"{moment}:[sagemaker logs]: {text}", after=after)

    def _log(self, stream: str) -> LogStream:
        path = self.state.settings.folder / "transforms" / f"{self.job.name}.data-log"
        return LogStream(group=LOG_GROUP, stream=stream, path=path, state=self.state)


class _RefusedError(Exception):
    """The container answered with an error."""

    def __init__(self, answer: ServerAnswer) -> None:
        super().__init__(answer.body.decode(errors="replace"))
        self.answer = answer


def start_transform(job: TransformJob, *, state: State) -> None:
    """Begin a job beside the requests."""
    state.start(TransformRun(job, state).run, name=f"transform {job.name}")


def _reason(error: Exception) -> str:
    if isinstance(error, _FailedError):
        return str(error)
    return f"ClientError: {getattr(error, 'message', error)}"


# --- operations ---


@operation("CreateTransformJob")
def create_transform_job(request: Request, *, state: State) -> Answer:
    """Start a transform job."""
    model = model_named(request["ModelName"], state=state)
    if len(model.containers) > 1:
        raise not_executed("A transform with several containers", why="one is started")
    _refuse_unsupported(request)
    name = request["TransformJobName"]
    job = TransformJob(request, arn=state.arn("transform-job", name))
    with state.lock:
        if name in state.kept(TransformJob):
            raise in_use(
                "Transform job names must be unique within an AWS account and region. A "
                f"transform job with this name already exists ({job.arn})."
            )
        state.kept(TransformJob)[name] = job
    keep_tags(job.arn, request.get("Tags", []), state=state)
    start_transform(job, state=state)
    return {"TransformJobArn": job.arn}


@operation("DescribeTransformJob")
def describe_transform_job(request: Request, *, state: State) -> Answer:
    """Show a transform job."""
    with state.lock:
        return transform_job_named(request["TransformJobName"], state=state).description()


@operation("ListTransformJobs")
def list_transform_jobs(request: Request, *, state: State) -> Answer:
    """Show all transform jobs."""
    with state.lock:
        rows = [job.summary() for job in state.kept(TransformJob).values()]
    return page(rows, request=request, key="TransformJobSummaries", kind="TransformJob")


@operation("StopTransformJob")
def stop_transform_job(request: Request, *, state: State) -> Answer:
    """Stop a transform job; objects that are done keep their results."""
    with state.lock:
        job = transform_job_named(request["TransformJobName"], state=state)
        if job.status == "InProgress":
            job.status = "Stopping"
            job.stop_requested.set()
    return {}


def _refuse_unsupported(request: Request) -> None:
    split = request["TransformInput"].get("SplitType", "None")
    if split not in ("None", "Line"):
        raise not_executed(f"SplitType {split}", why="only None and Line are cut here")
    if request["TransformInput"]["DataSource"]["S3DataSource"]["S3DataType"] not in (
        "S3Prefix",
        "ManifestFile",
    ):
        raise not_executed("This S3DataType", why="only S3Prefix and ManifestFile are read")


# --- job records ---
# What transform jobs leave in the emulator's records.


@recorded
def transform_records(state: State) -> Iterable[Record]:
    """A record a job."""
    for job in state.kept(TransformJob).values():
        resources = job.request["TransformResources"]
        until = job.ended or now()
        seconds = (until - job.started).total_seconds() if job.started else 0
        yield Record(
            kind="transform-job",
            name=job.name,
            arn=job.arn,
            status=job.status,
            created=job.created,
            started=job.started,
            ended=job.ended,
            instance_type=resources["InstanceType"],
            instance_count=resources["InstanceCount"],
            startup_seconds=STARTUP_SECONDS["transform-job"],
            executed_seconds=seconds,
            failure=job.failure,
            tags=dict(state.tags(job.arn)),
        )
