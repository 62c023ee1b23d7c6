"""Which models a server knows, kept where a crash of the serving process cannot reach it.

An anonymous file that the supervisor holds open: it needs no writable file system.
"""

import json
import os
import tempfile
from collections.abc import Mapping


class Journal:
    """Made before the serving process is started, used within it."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self._descriptor = os.memfd_create("darkroom-models")
        else:
            with tempfile.TemporaryFile() as file:
                self._descriptor = os.dup(file.fileno())

    def write(self, models: Mapping[str, str]) -> None:
        """Keep the registered models, by name, and where they lie."""
        content = json.dumps(dict(models)).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)

    def read(self) -> dict[str, str]:
        """What was kept last; nothing at first, or where a crash cut it off."""
        content = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
        try:
            models: dict[str, str] = json.loads(content or b"{}")
        except ValueError:
            return {}
        return models
