"""Seeing that a training stands still, from beside it: a loop that hangs cannot say so."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from darkroom.capture.live import LiveJudge

_LOOKS = 10
"""Within the seconds after which a training counts as stalled."""
_SHORTEST, _LONGEST = 0.1, 60.0
"""Seconds between two looks."""


@contextmanager
def watching_for_stalls(judge: LiveJudge) -> Iterator[None]:
    """Let a judge look for a stall again and again, while the block runs."""
    threshold = judge.stall_seconds
    if threshold is None:
        yield
        return
    ended = threading.Event()
    interval = min(max(threshold / _LOOKS, _SHORTEST), _LONGEST)

    def watch() -> None:
        while not ended.wait(interval):
            judge.look_for_stall()

    thread = threading.Thread(target=watch, name="stall watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
