"""/opt/ml/checkpoints and its place on S3: restored at the start, kept alike while it runs."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.emulator.state import State
from rehearsal.jobs import job_files, storage
from rehearsal.s3_uris import split_uri

_STANDARD_PLACE = "/opt/ml/checkpoints"
_Version = tuple[int, int]
"""Time of change in ns, and size."""


def local_folder(config: Mapping[str, Any]) -> str:
    """Where checkpoints lie below /opt/ml; request_checks has made sure of that."""
    return below_ml(config.get("LocalPath", _STANDARD_PLACE))


def below_ml(place: str) -> str:
    """A path in /opt/ml, relative to it."""
    return PurePosixPath(place).relative_to("/opt/ml").as_posix()


class CheckpointMirror:
    """Copies one host's checkpoints to S3 whenever they change, deletions too.

    Args:
        ml: the host's /opt/ml.
        folder: below it.
        say: told once of each file that cannot be copied.
    """

    def __init__(
        self, ml: Path, folder: str, *, uri: str, say: Callable[[str], None], state: State
    ) -> None:
        self._ml = ml
        self._folder = folder
        self._say = say
        self._failed: dict[str, _Version] = {}
        self._uri = uri.rstrip("/")
        self._state = state
        self._sent: dict[str, _Version] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def restore(self) -> None:
        """Bring what an earlier job or attempt left on S3."""
        folder = self._ml / self._folder
        folder.mkdir(parents=True, exist_ok=True)
        _, prefix = split_uri(f"{self._uri}/")
        found = storage.listed(f"{self._uri}/", state=self._state)
        places = [(e, storage.place(e.key, prefix=prefix, folder=folder)) for e in found]
        storage.download([(e, p) for e, p in places if p is not None], state=self._state)
        self._sent = self._versions()

    def start(self) -> None:
        """Copy again and again, until `finish`."""
        self._thread = self._state.start(self._run, name=f"checkpoints {self._uri}")

    def finish(self) -> None:
        """Copy a last time."""
        self._stopped.set()
        if self._thread:
            self._thread.join()
        self._copy()

    def _run(self) -> None:
        while not self._stopped.wait(self._state.settings.checkpoint_seconds):
            self._copy()

    def _copy(self) -> None:
        present = self._versions()
        for path, version in present.items():
            settled = version in (self._sent.get(path), self._failed.get(path))
            if not settled and self._send(path, version=version):
                self._sent[path] = version
        for path in set(self._sent) - set(present):
            bucket, key = split_uri(f"{self._uri}/{path}")
            self._state.clients["s3"].delete_object(Bucket=bucket, Key=key)
            del self._sent[path]

    def _send(self, path: str, *, version: _Version) -> bool:
        try:
            with job_files.opened(self._ml, f"{self._folder}/{path}") as file:
                storage.upload(file, uri=f"{self._uri}/{path}", state=self._state)
        except OSError:
            return False  # it was a temporary file, and is gone or has become something else
        except (BotoCoreError, ClientError, Boto3Error, ValueError) as error:
            # Such as a name that S3 does not take: the job's matter, and no end of it.
            self._failed[path] = version
            self._say(f"rehearsal: {path!r} was not copied to {self._uri}: {error}")
            return False
        return True

    def _versions(self) -> dict[str, _Version]:
        return {
            entry.path: (entry.status.st_mtime_ns, entry.status.st_size)
            for entry in job_files.entries(self._ml, self._folder)
            if entry.is_file
        }
