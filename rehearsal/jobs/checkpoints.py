"""/opt/ml/checkpoints and its place on S3: restored at the start, kept alike while it runs."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rehearsal.emulator.state import State
from rehearsal.jobs import storage
from rehearsal.s3_uris import split_uri

_STANDARD_PLACE = "/opt/ml/checkpoints"
_Version = tuple[int, int]
"""Time of change in ns, and size."""


def local_folder(config: Mapping[str, Any], *, ml: Path) -> Path:
    """Where a host's checkpoints really lie; request_checks has made sure of /opt/ml."""
    place = config.get("LocalPath", _STANDARD_PLACE)
    return ml / Path(place).relative_to("/opt/ml")


class CheckpointMirror:
    """Copies one host's checkpoints to S3 whenever they change, deletions too."""

    def __init__(self, folder: Path, *, uri: str, state: State) -> None:
        self._folder = folder
        self._uri = uri.rstrip("/")
        self._state = state
        self._sent: dict[str, _Version] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def restore(self) -> None:
        """Bring what an earlier job or attempt left on S3."""
        self._folder.mkdir(parents=True, exist_ok=True)
        _, prefix = split_uri(f"{self._uri}/")
        found = storage.listed(f"{self._uri}/", state=self._state)
        places = [(e, storage.place(e.key, prefix=prefix, folder=self._folder)) for e in found]
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
            if self._sent.get(path) != version and self._send(path):
                self._sent[path] = version
        for path in set(self._sent) - set(present):
            bucket, key = split_uri(f"{self._uri}/{path}")
            self._state.clients["s3"].delete_object(Bucket=bucket, Key=key)
            del self._sent[path]

    def _send(self, path: str) -> bool:
        try:
            storage.upload(self._folder / path, uri=f"{self._uri}/{path}", state=self._state)
        except FileNotFoundError:
            return False  # it was a temporary file, and is gone
        return True

    def _versions(self) -> dict[str, _Version]:
        found: dict[str, _Version] = {}
        for path in storage.files_below(self._folder):
            try:
                status = (self._folder / path).stat()
            except FileNotFoundError:
                continue
            found[path] = (status.st_mtime_ns, status.st_size)
        return found
