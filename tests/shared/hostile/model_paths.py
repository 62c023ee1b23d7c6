"""Names and places of models that lead somewhere else."""

import json
from collections.abc import Iterator

from hostile.bodies import JSON, BodyCase

_NAMES = (
    *("..", "../..", "..%2f..", "..%2F..%2Fetc%2Fpasswd", "%2e%2e", ".%2e/%2e.", "%2fetc%2fpasswd"),
    *("%00", "first%00", "x" * 5000, "first%0a", "first%20", "C:%5Cx", "..%5c.."),
    *("first%2f..%2fsecond", "%c0%ae%c0%ae", "%ff", "~root", ".hidden", "first;x", "{name}", "*"),
)
_PLACES = (
    *("/etc", "/etc/passwd", "..", "../..", "first/../../..", "", ".", "/", "file:///etc"),
    *("first\0", "..\\..", "x" * 2000, "http://127.0.0.1/x", "s3://x/y", "~", "/proc/self/root"),
)


def model_cases() -> Iterator[BodyCase]:
    """For a server of several models, among them 'first'."""
    for name in _NAMES:
        yield BodyCase("model path", f"invoke {name[:40]}", b"x", path=f"/models/{name}/invoke")
        path = f"/models/{name}"
        yield BodyCase("model path", f"unload {name[:40]}", b"", path=path, method="DELETE")
    for name in ("../first", "/etc", "..", "x" * 5000, "first/../second", "%2e%2e", "first\\"):
        headers = {"X-Amzn-SageMaker-Target-Model": name}
        yield BodyCase("model path", f"target {name[:40]}", b"x", headers=headers)
    for place in _PLACES:
        order = json.dumps({"model_name": "new", "url": place}).encode()
        yield BodyCase("model path", f"load {place[:40]!r}", order, JSON, path="/models")
    for order in (b"", b"{}", b"[]", b'{"model_name": 1, "url": 2}', b"[" * 60_000, b"x" * 70_000):
        yield BodyCase("model path", f"order {order[:30]!r}", order, JSON, path="/models")
