"""Bodies of other types than images, and options and names that lead astray."""

import base64
import io
import json
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from hostile.images import SEED, encoded, image_cases, picture

JSON, NPY = "application/json", "application/x-npy"


@dataclass(frozen=True)
class BodyCase:
    """A well-formed request with a body of ill will."""

    kind: str
    name: str
    body: bytes
    content_type: str = "application/octet-stream"
    path: str = "/invocations"
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "POST"
    is_refused: bool = True
    """Whether the answer must be a 4xx; else a right answer is as good."""


def body_cases() -> list[BodyCase]:
    """All of them, the same at every call."""
    images = [
        BodyCase(case.kind, case.name, case.content, is_refused=case.is_refused)
        for case in image_cases()
    ]
    return [*images, *_json_bodies(), *_fuzzed_json(), *_urls(), *_npy(), *_forms(), *_types()]


def _json_bodies() -> Iterator[BodyCase]:
    good = base64.b64encode(encoded(picture(), "PNG")).decode()
    bodies: dict[str, bytes] = {
        "nested 100,000 deep": b"[" * 100_000,
        "nested objects": b'{"image":' * 50_000,
        "a number of a million digits": b'{"image": ' + b"9" * 10**6 + b"}",
        "a huge exponent": b'{"image": 1e999999}',
        "not a number": b'{"image": NaN}',
        "no UTF-8": b'{"image": "\xff\xfe"}',
        "half a surrogate": b'{"image": "\\ud800"}',
        "a null byte": b'{"image": "\\u0000"}',
        "UTF-16": '{"image": "x"}'.encode("utf-16"),
        "not closed": b'{"image": "',
        "a comma too many": b'{"image": "x",}',
        "two documents": b"{}{}",
        "both keys": json.dumps({"image": good, "url": "https://example.com"}).encode(),
        "an unknown key": b'{"__proto__": {"x": 1}}',
        "no base64": b'{"image": "!!!!"}',
        "base64 of half a byte": b'{"image": "A"}',
        "base64 of nothing": b'{"image": ""}',
        "base64 of no image": json.dumps({"image": base64.b64encode(b"x" * 99).decode()}).encode(),
        "too many images": json.dumps({"images": [good] * 65}).encode(),
        "one bad image of three": json.dumps({"images": [good, "AAAA", good]}).encode(),
        "a list in a list": json.dumps({"images": [[good]]}).encode(),
        "an empty list": b'{"images": []}',
        "a picture that is a text": json.dumps({"images": good}).encode(),
    }
    bodies |= {
        f"{value} for an object": value.encode()
        for value in ("null", "true", "1", '"x"', "[]", "{}")
    }
    bodies |= {
        f"{value} for an image": f'{{"image": {value}}}'.encode()
        for value in ("null", "true", "[]", "{}")
    }
    for name, body in bodies.items():
        yield BodyCase("JSON", name, body, content_type=JSON)
    twice = f'{{"image": "AAAA", "image": "{good}"}}'.encode()
    yield BodyCase("JSON", "a key twice", twice, content_type=JSON, is_refused=False)


def _fuzzed_json() -> Iterator[BodyCase]:
    dice = random.Random(SEED)
    good = base64.b64encode(encoded(picture(), "JPEG")).decode()
    original = json.dumps({"images": [good]}).encode()
    for number in range(12):
        damaged = bytearray(original)
        for _ in range(dice.randint(1, 6)):
            damaged[dice.choice((dice.randrange(14), dice.randrange(len(damaged))))] = (
                dice.randrange(256)
            )
        yield BodyCase("JSON fuzzed", str(number), bytes(damaged), JSON, is_refused=False)


def _urls() -> Iterator[BodyCase]:
    hosts = (
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "①②⑦.⓪.⓪.①", "localhost"),
        *("0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254"),
        *("169.254.170.2", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "224.0.0.1"),
        *("[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fd00:ec2::254]", "[fe80::1%25lo]", "[fc00::1]"),
    )
    urls = [f"http://{host}/image.png" for host in hosts]
    urls += ["http://user:word@example.com/", "file:///etc/passwd", "ftp://127.0.0.1/x"]
    urls += ["gopher://127.0.0.1:6379/_x", "http://127.0.0.1:22/", "http://", "//x", "x" * 5000]
    urls += ["http://127.0.0.1\\@example.com/", "http://example.com:0/", "http://a\r\nHost: b/"]
    urls += ["data:image/png;base64,AAAA", "http://[::1", "jar:http://127.0.0.1!/", ""]
    for url in urls:
        yield BodyCase("URL", url[:60], json.dumps({"url": url}).encode(), content_type=JSON)
    many = json.dumps({"urls": ["http://127.0.0.1/"] * 64}).encode()
    yield BodyCase("URL", "64 of them", many, content_type=JSON)


def _npy() -> Iterator[BodyCase]:
    good = np.zeros((1, 3, 16, 16), dtype=np.float32)
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    bodies = {
        "pickled objects": pickled.getvalue(),
        "a shape of 2^62": _npy_with("(4611686014132420609, 3, 16, 16)"),
        "a negative shape": _npy_with("(-1, 3, 16, 16)"),
        "a shape of a million parts": _npy_with("(" + "1," * 10**6 + ")"),
        "code for a shape": _npy_with("__import__('os').abort()"),
        "truncated": _saved(good)[:-100],
        "too long": _saved(good) + b"x",
        "not a number": _saved(good * np.nan),
        "infinite": _saved(good + np.inf),
        "integers": _saved(good.astype(np.int64)),
        "texts": _saved(np.array(["x" * 100])),
        "records": _saved(np.zeros(3, dtype=[("a", "f4"), ("b", "f8")])),
        "another size": _saved(np.zeros((1, 3, 17, 16), dtype=np.float32)),
        "no image": _saved(good[:0]),
        "65 images": _saved(np.repeat(good, 65, axis=0)),
        "no npy": b"\x93NUMPY",
        "version 255": b"\x93NUMPY\xff\xff" + bytes(100),
        "npz": b"PK\3\4" + bytes(100),
        "too large a double": _saved(good.astype(np.float64) + 1e300),
        "what makes networks overflow": _saved(good + np.float32(3e38)),
    }
    for name, body in bodies.items():
        yield BodyCase("npy", name, body, content_type=NPY)
    answered = {
        "Fortran's order": _saved(np.asfortranarray(np.repeat(good, 2, axis=0))),
        "big-endian": _saved(good.astype(">f4")),
        "the largest numbers": _saved(good + 1000),
    }
    for name, body in answered.items():
        yield BodyCase("npy", name, body, content_type=NPY, is_refused=False)


def _saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _npy_with(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\2\0" + struct.pack("<I", len(header)) + header + bytes(3072)


def _forms() -> Iterator[BodyCase]:
    kind = "multipart/form-data; boundary=b"
    head = b'--b\r\nContent-Disposition: form-data; name="f"; filename="../../etc/x"\r\n\r\n'
    image = encoded(picture(), "PNG")
    bodies = {
        "no end": (kind, head + image),
        "no boundary": ("multipart/form-data", head + image + b"\r\n--b--"),
        "another boundary": ("multipart/form-data; boundary=c", head + image + b"\r\n--b--"),
        "a boundary of 10,000": (f"multipart/form-data; boundary={'b' * 10_000}", b"--b--"),
        "no file": (kind, b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\nx\r\n--b--'),
        "no disposition": (kind, b"--b\r\n\r\nx\r\n--b--"),
        "65 files": (kind, (head + b"x\r\n") * 65 + b"--b--"),
        "a head of 100 KB": (kind, b"--b\r\nX: " + b"y" * 100_000 + b"\r\n\r\nx\r\n--b--"),
        "10,000 heads": (kind, b"--b\r\n" + b"X: y\r\n" * 10_000 + b"\r\nx\r\n--b--"),
        "one bad image of two": (kind, head + image + b"\r\n" + head + b"x\r\n--b--"),
        "an unknown charset": (f"{kind}; charset=x", head + b"x\r\n--b--"),
        "nothing": (kind, b"--b--"),
    }
    for name, (content_type, body) in bodies.items():
        yield BodyCase("multipart", name, body, content_type=content_type)
    good = head + image + b"\r\n--b--"
    yield BodyCase("multipart", "a path as file name", good, kind, is_refused=False)


def _types() -> Iterator[BodyCase]:
    image = encoded(picture(), "PNG")
    for content_type in ("text/html", "image/gif", "application/x-python-pickle", "x" * 300, "/"):
        yield BodyCase("type", content_type[:40], image, content_type=content_type)
    for accept in ("text/html", "image/png", "x" * 5000):
        yield BodyCase("type", f"accept {accept[:20]}", image, headers={"Accept": accept})
    for query in ("top_k=0", "top_k=-1", "top_k=1e3", "top_k=x", "y=1", "top_k="):
        yield BodyCase("option", query, image, path=f"/invocations?{query}")
    yield BodyCase("option", "nothing as body", b"")
    yield BodyCase("option", "6 MiB and a byte", bytes(6 * 2**20 + 1))
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        yield BodyCase("option", f"{method} /invocations", b"", method=method)
