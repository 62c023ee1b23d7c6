"""boto3 clients of the emulator's own: they call back to its port."""

import os
import secrets
import threading
from typing import Any

INTERNAL_KEY = f"REHEARSALINTERNAL{secrets.token_hex(16).upper()}"
"""Access key of calls that the emulator makes itself: not counted, spared by faults."""
JOB_KEY = f"REHEARSALJOB{secrets.token_hex(16).upper()}"
"""Access key that jobs get for their role."""


def isolated_session(key: str) -> Any:  # noqa: ANN401  boto3 has no types here
    """A boto3 session that reads neither the user's AWS files nor environment variables."""
    import boto3
    import botocore.session

    variables = {
        "profile": (None, None, None, None),
        "config_file": (None, None, os.devnull, None),
        "credentials_file": (None, None, os.devnull, None),
        "ca_bundle": (None, None, None, None),
    }
    inner = botocore.session.Session(session_vars=variables)
    inner.set_credentials(key, "rehearsal")
    return boto3.Session(botocore_session=inner)


class Clients:
    """Clients by service, each made once; they may be used by several threads."""

    def __init__(self, url: str, *, region: str) -> None:
        self._url = url
        self._region = region
        self._lock = threading.Lock()
        self._made: dict[str, Any] = {}

    def __getitem__(self, service: str) -> Any:  # noqa: ANN401
        with self._lock:
            if service not in self._made:
                self._made[service] = self._make(service)
            return self._made[service]

    def warm(self) -> None:
        """Make what every job needs, so that the first one need not wait for it."""
        for service in ("s3", "logs"):
            self[service]

    def _make(self, service: str) -> Any:  # noqa: ANN401
        from botocore.config import Config

        return isolated_session(INTERNAL_KEY).client(
            service,
            endpoint_url=self._url,
            region_name=self._region,
            config=Config(
                proxies={},
                max_pool_connections=32,
                retries={"total_max_attempts": 2},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
