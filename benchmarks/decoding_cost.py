"""What hostile images cost: the decoder, and another client.

    python -m benchmarks.decoding_cost            both tables
    python -m benchmarks.decoding_cost --seconds 10

For each kind of image that is small to send and dear to decode (tests/shared/hostile/costly.py):
how it ends, the processor time and the memory that it takes in a process of its own, and what was
reserved for it; then the 99th percentile of another client's times while four attackers send
it to a server, over the value while nobody does. Exit code 1 where an image took more memory
than was reserved, or the other client's percentile grew more than tenfold, or failed.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(_ROOT), str(_ROOT / "tests" / "shared")]

from benchmarks.hostile import serving  # noqa: E402
from darkroom.base.processes import give_back_freed  # noqa: E402
from darkroom.images import REQUESTED_IMAGES, ImageError, Preprocessing, prepare  # noqa: E402
from hostile.costly import costly_images  # noqa: E402
from hostile.images import encoded, picture  # noqa: E402
from served import Client  # noqa: E402
from small_bundles import write_small_bundle  # noqa: E402

_HOW = Preprocessing(resize_size=256, image_size=224, reduced_decoding=True)
_MB = 2**20
_ATTACKERS = 4
_MOST_TIMES = 10
_ALLOWED_BYTES = 24 * _MB
"""Beside what is reserved: what a decoder may take without asking."""


@dataclass(frozen=True)
class Cost:
    """Of decoding one image."""

    ended: str
    seconds: float
    peak: int
    reserved: int


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4, help="for each kind (default: 4)")
    parser.add_argument("--kinds", nargs="*", default=[], metavar="TEXT", help="only such kinds")
    parser.add_argument("--no-server", action="store_true", help="the first table alone")
    options = parser.parse_args()
    images = {kind: make() for kind, make in costly_images().items()}
    bodies = {kind: (content, "application/octet-stream", {}) for kind, content in images.items()}
    chosen = {
        kind: body
        for kind, body in {**bodies, **_other_bodies()}.items()
        if not options.kinds or any(text in kind for text in options.kinds)
    }
    costs = _print_costs({kind: images[kind] for kind in chosen if kind in images})
    if options.no_server:
        return costs
    return max(costs, _print_others(chosen, seconds=options.seconds))


def _print_costs(images: Mapping[str, bytes]) -> int:
    print("| image | bytes | processor | memory | reserved | ends |")
    print("|---|---|---|---|---|---|")
    is_wrong = False
    for kind, content in images.items():
        cost = _cost_of(content)
        is_wrong |= cost.peak > cost.reserved + _ALLOWED_BYTES and cost.ended == "decoded"
        print(
            f"| {kind} | {len(content):,} | {cost.seconds:.2f} s | {cost.peak / _MB:.0f} MB "
            f"| {cost.reserved / _MB:.0f} MB | {cost.ended} |",
            flush=True,
        )
    return int(is_wrong)


def _cost_of(content: bytes) -> Cost:
    """In a process of its own, without limits."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        give_back_freed()  # of the images that were made before
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins now
        before, started, reserved = _peak(), time.process_time(), [0]
        try:
            prepare(content, _HOW, limits=REQUESTED_IMAGES, reserve=reserved.append)
            ended = "decoded"
        except ImageError as error:
            ended = str(error).partition(":")[0][:90]
        found = Cost(ended, time.process_time() - started, _peak() - before, max(reserved))
        os.write(writing, json.dumps(vars(found)).encode())
        os._exit(0)
    os.close(writing)
    answer = json.loads(os.read(reading, 65536))
    os.close(reading)
    os.waitpid(pid, 0)
    return Cost(**answer)


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def _print_others(bodies: Mapping[str, "Body"], *, seconds: float) -> int:
    print("\n| 4 attackers send | their answers | another client's p50, p99 | over its quiet p99 |")
    print("|---|---|---|---|")
    is_wrong = False
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_small_bundle(Path(folder) / "bundle", image_size=224)
        with serving(str(bundle)) as (_, client):
            _ask_for(client, seconds=1)
            for kind, body in bodies.items():
                quiet = _ask_for(client, seconds=seconds / 2)
                with _attackers(client, body=body) as answers:
                    attacked = _ask_for(client, seconds=seconds)
                times = _p99(attacked) / _p99(quiet)
                is_wrong |= times > _MOST_TIMES
                counted = ", ".join(f"{status}: {n}" for status, n in sorted(answers.items()))
                print(
                    f"| {kind} | {counted} | {statistics.median(attacked) * 1e3:.0f} ms, "
                    f"{_p99(attacked) * 1e3:.0f} ms | {times:.1f} |",
                    flush=True,
                )
    return int(is_wrong)


Body = tuple[bytes, str, dict[str, str]]


def _other_bodies() -> dict[str, Body]:
    size = 6 * _MB - 100
    kind = "application/json"
    keys = b"{" + b",".join(b'"%d":0' % n for n in range(500_000)) + b"}"
    form = b"--x\r\nContent-Disposition: form-data; name=a; filename=a\r\n\r\n"
    return {
        "JSON, 3 million lists": (b'{"image":[' + b"[]," * (size // 3) + b"[]]}", kind, {}),
        "JSON, 500,000 keys": (keys, kind, {}),
        "JSON, 6 MB of base64": (b'{"image":"' + b"A" * (size // 4 * 4) + b'"}', kind, {}),
        "JSON, 6 MB of escapes": (b'{"image":"' + rb"\u0041" * (size // 6) + b'"}', kind, {}),
        "form, 6 MB of line ends": (
            form + b"\r\n-" * (size // 3) + b"\r\n--x--\r\n",
            "multipart/form-data; boundary=x",
            {},
        ),
        "form, a head of 6 MB": (
            b"--x\r\nA: " + b"b" * size + b"\r\n\r\n",
            "multipart/form-data; boundary=x",
            {},
        ),
    }


def _ask_for(client: Client, *, seconds: float) -> list[float]:
    """Seconds of each answer; all of them have to be right."""
    content, found = encoded(picture(640, 480), "JPEG"), list[float]()
    until = time.monotonic() + seconds
    while time.monotonic() < until or len(found) < 20:
        started = time.monotonic()
        answer = client.send(body=content)
        assert answer.status == 200, answer
        found.append(time.monotonic() - started)
    return found


@contextlib.contextmanager
def _attackers(client: Client, *, body: Body) -> Iterator[Counter[Any]]:
    """Four processes that send the body again and again, each time another one by its last byte."""
    answers, context = Counter[Any](), multiprocessing.get_context("fork")
    is_over, told = context.Event(), context.SimpleQueue()

    def attack(number: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends once it is told to, and tells
        own, (content, kind, headers) = Counter[Any](), body
        while not is_over.is_set():
            mark = f"{number} {own.total()}".encode() if kind.startswith("application/oct") else b""
            with contextlib.suppress(OSError, HTTPException):
                own[_send(client, content + mark, kind=kind, headers=headers)] += 1
        told.put(own)

    processes = [context.Process(target=attack, args=(number,)) for number in range(_ATTACKERS)]
    for process in processes:
        process.start()
    try:
        time.sleep(0.3)
        yield answers
    finally:
        is_over.set()
        for _ in processes:
            answers.update(told.get())
        for process in processes:
            process.join()


def _send(client: Client, body: bytes, *, kind: str, headers: Mapping[str, str]) -> int:
    with contextlib.closing(HTTPConnection("127.0.0.1", client.port, timeout=60)) as connection:
        connection.request("POST", "/invocations", body, {"Content-Type": kind, **headers})
        response = connection.getresponse()
        response.read()
        return response.status


def _p99(times: Sequence[float]) -> float:
    return sorted(times)[int(len(times) * 0.99) - 1]


if __name__ == "__main__":
    sys.exit(main())
