"""Images of a few lines: folders whose bin/train and bin/serve are small Python scripts."""

import io
import json
import stat
import tarfile
from functools import cache
from pathlib import Path

from rehearsal.emulator.server import Running

TRAIN = """#!{python}
import json, os, pathlib, signal, sys, time
root = pathlib.Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
given = json.loads((root / "input/config/hyperparameters.json").read_text())
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
x = float(given.get("x", "0").strip('"'))
if given.get("fail"):
    (root / "output").mkdir(exist_ok=True)
    (root / "output/failure").write_text("told to fail")
    sys.exit(1)
for epoch in range(1, int(given.get("epochs", "1")) + 1):
    print(f"epoch={{epoch}}; score={{x * epoch}};", flush=True)
    time.sleep(float(given.get("pause", "0")))
(root / "model").mkdir(exist_ok=True)
(root / "model/given.json").write_text(json.dumps(given))
"""

SERVE = """#!{python}
import json, os, pathlib, signal, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
root = pathlib.Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
name = os.environ.get("NAME", "")
if os.environ.get("DIE"):
    sys.exit("told to die")
model = root / "model/model.txt"
text = model.read_text() if model.exists() else ""
loaded = {{}}

class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass
    def answer(self, status, body, kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Amzn-SageMaker-Custom-Attributes", "seen")
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(500 if os.environ.get("SICK") else 200, b"")
    def do_DELETE(self):
        name = self.path.split("/")[2]
        print(f"unloading {{loaded.pop(name)}}", flush=True)
        self.answer(200, b"")
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/models" and os.environ.get("SAGEMAKER_MULTI_MODEL"):
            order = json.loads(body)
            if len(loaded) >= int(os.environ.get("MOST_MODELS", 9)):
                return self.answer(507, b"no memory")
            loaded[order["model_name"]] = pathlib.Path(order["url"], "model.txt").read_text()
            return self.answer(200, b"")
        if self.path.endswith("/invoke"):
            return self.answer(200, loaded[self.path.split("/")[2]].encode() + b":" + body)
        if self.path != "/invocations":
            return self.answer(404, b"")
        if body.startswith(b"bad"):
            return self.answer(400, b"a bad request")
        if body.startswith(b"boom") or os.environ.get("BROKEN"):
            return self.answer(503, b"it broke")
        if body.startswith(b"exit"):
            os._exit(1)
        if body.startswith(b"headers"):
            return self.answer(200, json.dumps(dict(self.headers)).encode(), "application/json")
        print(f"answering {{body[:20]!r}}", flush=True)
        self.answer(200, f"{{name}}{{text}}:".encode() + body)

print("serving", flush=True)
ThreadingHTTPServer(
    ("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler
).serve_forever()
"""


def write_tiny_image(folder: Path) -> Path:
    """An image that can `train` (score = x · epoch) and `serve` (an echo)."""
    programs = {"train": TRAIN, "serve": SERVE}
    (folder / "bin").mkdir(parents=True)
    for name, text in programs.items():
        path = folder / "bin" / name
        path.write_text(text.format(python="/usr/bin/env -S python3 -S"))
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return folder


def model_archive(text: str) -> bytes:
    """A model.tar.gz that holds model.txt."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("model.txt")
        entry.size = len(text.encode())
        archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def lines_of(objects: list[bytes]) -> list[dict[str, object]]:
    """JSON lines of several objects."""
    return [json.loads(line) for each in objects for line in each.splitlines()]


class CachedClients:
    """An emulator whose clients are made once: making one takes half a second."""

    def __init__(self, running: Running) -> None:
        self.state = running.state
        self.client = cache(running.client)
