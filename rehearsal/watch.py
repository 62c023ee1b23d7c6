"""Notices that a server of the stand-in is gone, and ends what would wait for it for ever.

SDKs repeat calls that nobody answers, for minutes; a killed emulator will never answer.
"""

import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from urllib.parse import urlsplit

from darkroom.errors import DarkroomError

_SECONDS_BETWEEN_LOOKS = 1.0
_LOOKS = 2
"""In which a connection is refused, one after the other, before a server counts as gone."""
_SECONDS_TO_UNWIND = 4.0
"""For the main thread to end by itself; then the process is ended."""
_SIGNAL = signal.SIGUSR2


class _Gone(BaseException):
    """Raised in the main thread, wherever it waits; no `except Exception` takes it."""


@contextmanager
def watched(servers: Mapping[str, str]) -> Iterator[None]:
    """End the block when one of the servers is gone, whatever the block waits for.

    Where the block cannot be ended within seconds, the process is, with the same message and
    exit code. Only in the main thread; elsewhere nothing is watched.

    Args:
        servers: URLs on the loopback, by what people call them.

    Raises:
        DarkroomError: a server is gone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = _Watch(servers)
    before = signal.signal(_SIGNAL, _interrupt)
    watch.start()
    try:
        yield
    except BaseException as error:
        # What went wrong meanwhile may be its consequence, noticed before the watch has.
        watch.look()
        if watch.gone and not isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise DarkroomError(watch.gone) from None
        raise
    finally:
        watch.ended.set()
        signal.signal(_SIGNAL, before)


class _Watch(threading.Thread):
    def __init__(self, servers: Mapping[str, str]) -> None:
        super().__init__(daemon=True, name="watch of the stand-in")
        self.ended = threading.Event()
        self.gone = ""
        """Which server is gone, as a message; empty: none."""
        self._servers = servers

    def run(self) -> None:
        refused = 0
        while refused < _LOOKS:
            if self.ended.wait(_SECONDS_BETWEEN_LOOKS):
                return
            self.gone = ""
            self.look()
            refused = refused + 1 if self.gone else 0
        main = threading.main_thread().ident
        if main is not None and not self.ended.is_set():
            signal.pthread_kill(main, _SIGNAL)
        # The block's own end may hang as well, in calls that nobody answers: so this goes on.
        threading.Event().wait(_SECONDS_TO_UNWIND)
        sys.stderr.write(f"Error: {self.gone}\n")
        sys.stderr.flush()
        os._exit(DarkroomError.exit_code)

    def look(self) -> None:
        """Note a server that refuses connections; one that is merely slow does not."""
        for name, url in self._servers.items():
            port = urlsplit(url).port or 0
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED:
                    self.gone = (
                        f"{name} of the rehearsal has ended, it no longer answers on {url}: what "
                        "ran there is lost. Its log lies in the rehearsal's folder; start again"
                    )


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise _Gone
