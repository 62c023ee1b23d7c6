"""How much a server takes on at once: beyond it, requests are turned away instead of queued."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from darkroom.serving.limits import not_now
from darkroom.serving.metrics import ServingMetrics

WAITING_PER_WORKER = 64

_BYTES = 256 * 2**20
"""Of all bodies together: 40 of the largest, thousands of photographs of usual size."""


class Admission:
    """Counts the requests under way, and the bytes of their bodies."""

    def __init__(self, *, requests: int, body_bytes: int, metrics: ServingMetrics) -> None:
        self._requests = requests
        self._bytes = max(_BYTES, body_bytes)
        self._largest_body = body_bytes
        self._metrics = metrics
        metrics.under_way.set_function(lambda: requests - self._requests)

    @contextmanager
    def enter(self, request: Request) -> Iterator[None]:
        """While the block runs, the request is under way.

        Raises:
            HTTPException: 503 with Retry-After where there is no room.
        """
        size = min(int(request.headers.get("content-length", self._largest_body)), self._bytes)
        if self._requests <= 0 or self._bytes < size:
            self._metrics.turned_away.inc()
            raise not_now("too many requests are waiting; try again later")
        self._requests -= 1
        self._bytes -= size
        try:
            yield
        finally:
            self._requests += 1
            self._bytes += size
