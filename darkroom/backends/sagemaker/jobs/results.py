"""What a training job leaves on S3: fetched, checked and kept.

jobs/<digest>/job.json                          which job's result is that of an identity
jobs/<digest>/output/<job>/output/model.tar.gz  the bundle
jobs/<digest>/output/<job>/output/output.tar.gz history.json, recording/
jobs/<digest>/checkpoints/recording/            of a job that has not ended well
"""

import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from botocore.exceptions import ClientError

from darkroom.backends.contract import keep_bundle
from darkroom.backends.sagemaker.archives import encryption
from darkroom.backends.sagemaker.resources import JobIdentity
from darkroom.backends.sagemaker.retry import Pause, Retrier, sleep
from darkroom.backends.sagemaker.session import Clients, SageMakerContext, is_missing
from darkroom.backends.storage.listing import S3Address, list_address
from darkroom.backends.storage.transfer import Download
from darkroom.base.errors import DarkroomError
from darkroom.base.progress import SILENT
from darkroom.data.dataset import Dataset
from darkroom.models.bundle import ARCHIVE_FILE, Bundle, unpack
from darkroom.telemetry.epochs import EpochMetrics, read_history
from darkroom.telemetry.recording import MAX_BYTES, RECORDING_FOLDER, unpack_recording

T = TypeVar("T")

_POINTER_FILE = "job.json"
_OUTPUT_FILE = "output.tar.gz"
_HISTORY_FILE = "history.json"
_MAX_HISTORY_BYTES = 64 * 2**20
_MAX_RECORDING_FILES = 1_000_000
_THREADS = 8


@dataclass(frozen=True)
class JobResult:
    """A completed job, and where its archives lie."""

    job: str
    model: str
    """s3:// URI of model.tar.gz."""

    @property
    def output(self) -> str:
        """s3:// URI of output.tar.gz."""
        return f"{self.model.removesuffix(ARCHIVE_FILE)}{_OUTPUT_FILE}"


@dataclass(frozen=True)
class JobOutput:
    """What a job left beside its model."""

    history: Sequence[EpochMetrics] = ()
    recording: Path | None = None
    """Folder; None: nothing was recorded."""


class ResultStore:
    """Results on S3, by identity."""

    def __init__(self, site: SageMakerContext, *, clients: Clients, pause: Pause = sleep) -> None:
        self._site, self._clients, self._pause = site, clients, pause

    def look_up(self, identity: JobIdentity) -> JobResult | None:
        """The result that was noted for an identity, if its model still lies there."""
        address = S3Address.parse(identity.place(self._site, _POINTER_FILE))

        def read(clients: Clients) -> JobResult | None:
            try:
                answer = clients.s3.get_object(Bucket=address.bucket, Key=address.key)
                result = JobResult(**json.loads(answer["Body"].read()))
                model = S3Address.parse(result.model)
                clients.s3.head_object(Bucket=model.bucket, Key=model.key)
            except ClientError as error:
                if is_missing(error):
                    return None
                raise
            return result

        with suppress(ValueError, TypeError):  # of another version: as if it were not there
            return self._ask(str(address), question=read)
        return None

    def note(self, identity: JobIdentity, *, result: JobResult) -> None:
        """Hand a result over to whoever does the same work later."""
        address = S3Address.parse(identity.place(self._site, _POINTER_FILE))
        self._ask(
            str(address),
            question=lambda clients: clients.s3.put_object(
                Bucket=address.bucket,
                Key=address.key,
                Body=json.dumps(asdict(result)).encode(),
                ContentType="application/json",
                **encryption(self._site),
            ),
        )

    def fetch_bundle(self, result: JobResult, *, folder: Path, dataset: Dataset) -> Bundle:
        """Bring the model to `folder/<version>`.

        Raises:
            UserError: the archive is no bundle.
            DarkroomError: it is that of other data.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".fetching-") as scratch:
            archive, packed = Path(scratch, ARCHIVE_FILE), Path(scratch, "model")
            self._download(result.model, to=archive)
            packed.mkdir()
            unpack(archive, packed)
            bundle = keep_bundle(packed, folder=folder)
        if bundle.metadata.data_fingerprint != dataset.fingerprint:
            raise DarkroomError(
                f"the model {result.model!r} was trained on other data than this run's: "
                f"{bundle.metadata.data_fingerprint[:12]}, not {dataset.fingerprint[:12]}"
            )
        return bundle

    def fetch_output(self, result: JobResult, *, recording: Path) -> JobOutput:
        """The exact history, and what was recorded, brought to a folder; what there is."""
        with TemporaryDirectory(prefix="darkroom-output-") as scratch:
            archive = Path(scratch, _OUTPUT_FILE)
            try:
                self._download(result.output, to=archive)
            except DarkroomError:
                return JobOutput()
            history, found = _history_in(archive), False
            with suppress(tarfile.TarError, EOFError, OSError):
                found = unpack_recording(archive, folder=recording, within=RECORDING_FOLDER)
            return JobOutput(history=history, recording=recording if found else None)

    def fetch_unfinished_recording(self, identity: JobIdentity, *, to: Path) -> Path | None:
        """What a job has recorded that did not end well; None: nothing."""
        place = f"{identity.place(self._site, 'checkpoints', RECORDING_FOLDER)}/"

        def download(clients: Clients) -> bool:
            found = list_address(
                clients.s3,
                S3Address.parse(place),
                maximum_bytes=MAX_BYTES,
                maximum_files=_MAX_RECORDING_FILES,
            )
            Download(clients.s3, found=found, folder=to, pause=self._pause).run(
                threads=_THREADS, progress=SILENT
            )
            return bool(found.objects)

        shutil.rmtree(to, ignore_errors=True)
        try:
            return to if self._ask(place, question=download) else None
        except DarkroomError:  # there is nothing, and the job's own error is what matters
            return None

    def _download(self, uri: str, *, to: Path) -> None:
        address = S3Address.parse(uri)
        self._ask(
            uri,
            question=lambda clients: clients.s3.download_file(address.bucket, address.key, str(to)),
        )

    def _ask(self, uri: str, *, question: Callable[[Clients], T]) -> T:
        return Retrier(self._clients, what=uri, pause=self._pause).ask(question)


def _history_in(archive: Path) -> Sequence[EpochMetrics]:
    """Read one small member; nothing is unpacked to the disk."""
    with (
        suppress(tarfile.TarError, EOFError, OSError, KeyError, ValueError),
        tarfile.open(archive, mode="r:*") as tar,
    ):
        for member in tar:
            is_history = member.name.removeprefix("./") == _HISTORY_FILE
            if is_history and member.size <= _MAX_HISTORY_BYTES:
                file = tar.extractfile(member)
                return read_history(file.read().decode()) if file else ()
    return ()
