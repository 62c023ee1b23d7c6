"""The thread of a transform job: one container, and every object posted to it.

As on AWS, an object that is refused fails the job in the end, and the others are still
transformed: their results stay.
"""

import gzip
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from botocore.exceptions import ClientError

from rehearsal.emulator.errors import AwsError, own_mistake
from rehearsal.emulator.state import State, now
from rehearsal.hosting.models import model_named
from rehearsal.hosting.servers import Answer, ModelServer, NoAnswerError, StartupError
from rehearsal.hosting.starting import make_server
from rehearsal.jobs import storage
from rehearsal.jobs.logs import LogStream
from rehearsal.s3_uris import split_uri
from rehearsal.transform.jobs import TransformJob
from rehearsal.transform.objects import InputObject, input_objects
from rehearsal.transform.records import RecordTooLargeError, assembled, payloads
from rehearsal.transform.settings import TransformSettings, container_environment, wishes_of

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

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body.decode(errors="replace"))
        self.answer = answer


def start_transform(job: TransformJob, *, state: State) -> None:
    """Begin a job beside the requests."""
    state.start(TransformRun(job, state).run, name=f"transform {job.name}")


def _reason(error: Exception) -> str:
    if isinstance(error, _FailedError):
        return str(error)
    return f"ClientError: {getattr(error, 'message', error)}"
