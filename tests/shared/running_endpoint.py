"""A local endpoint that runs while a block does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from darkroom.backends.endpoint import Endpoint
from darkroom.backends.local.endpoint import start_endpoint, stop_endpoint


@contextmanager
def local_endpoint(bundle: Path, *, log: Path) -> Iterator[Endpoint]:
    """Serve a bundle while the block runs."""
    endpoint = start_endpoint(bundle, log=log)
    try:
        yield endpoint
    finally:
        stop_endpoint(endpoint)
