"""Many small images to S3 and back: published as shards, against one object an image.

    python -m benchmarks.upload --images 60000 --rounds 3

Everything runs against one S3, a moto server that is started here, on loopback.

    upload      publish(), as a program of its own, against `aws s3 sync` of the same files
    upload again  the same once more, when everything is there
    reading     what a training job in File mode does before it can read: fetch the objects
                of its channels with boto3, many at once, and find its data set in them

Medians; JSON to standard output, a table to standard error.
"""

import argparse
import io
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.machine import cpu_name
from benchmarks.photographs import dataset_of
from darkroom.backends.storage.datasets import channel_uris, publish
from darkroom.backends.storage.listing import S3Address, list_objects
from darkroom.backends.storage.s3 import s3_client, upload_folder
from darkroom.base.concurrency import map_concurrently
from darkroom.data.dataset import Dataset
from darkroom.training.channels import MANIFEST_FILE, read_channels

BUCKET, ROOT = "benchmark", "s3://benchmark/darkroom"
CLASSES, SIDE = 10, 32
DOWNLOADS_AT_ONCE = 16
READY_SECONDS = 60


def main() -> None:
    """Measure, or, as the child process, publish."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--publish", type=Path, metavar="MANIFEST", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.publish:
        publish(Dataset.from_json(arguments.publish.read_text()), root=ROOT)
        return
    with tempfile.TemporaryDirectory(prefix="darkroom-upload-") as scratch:
        folder = Path(scratch)
        generate(arguments.images, root=folder / "images")
        (folder / MANIFEST_FILE).write_text(dataset_of(folder / "images").to_json())
        with s3_server(folder) as reset:
            rounds = [measure(folder, reset=reset) for _ in range(arguments.rounds)]
    result = summary(rounds, images=arguments.images)
    print(table(result), file=sys.stderr)
    print(json.dumps(result, indent=1))


def generate(number: int, *, root: Path) -> None:
    """Soft random pictures as JPEG, 1 to 2 KB each; one in ten to validate with."""
    rng = np.random.default_rng(0)
    for position in range(number):
        split = "validation" if position // CLASSES % 10 == 0 else "train"
        file = root / split / f"class{position % CLASSES}" / f"{position:06}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
        file.write_bytes(buffer.getvalue())


@contextmanager
def s3_server(folder: Path) -> Iterator[Callable[[], None]]:
    """A moto server, which boto3 and the AWS CLI talk to; yields what empties it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ |= {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(folder / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
    }

    def reset() -> None:
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST"))
        s3_client().create_bucket(Bucket=BUCKET)

    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(url, server=server)
        yield reset
    finally:
        server.terminate()
        server.wait()


def wait_for(url: str, *, server: subprocess.Popen[bytes]) -> None:
    """Return once the server answers."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/moto-api/data.json")
            return
        except OSError:
            time.sleep(0.2)
    sys.exit("the moto server did not start: pip install 'moto[server]'")


def measure(folder: Path, *, reset: Callable[[], None]) -> dict[str, float]:
    """One round: seconds by what was done."""
    reset()
    seconds, manifest = {}, folder / MANIFEST_FILE
    publishing = [sys.executable, "-m", "benchmarks.upload", "--publish", str(manifest)]
    seconds["publish"] = timed(lambda: run(publishing))
    seconds["publish again"] = timed(lambda: run(publishing))
    uri = f"{ROOT}/datasets/{Dataset.from_json(manifest.read_text()).fingerprint}"
    with tempfile.TemporaryDirectory(dir=folder) as base:
        seconds["read shards"] = timed(lambda: read_shards(uri, base=Path(base)))
    if aws := shutil.which("aws"):
        syncing = [aws, "s3", "sync", str(folder / "images"), f"s3://{BUCKET}/images"]
        syncing += ["--only-show-errors"]
        seconds["aws s3 sync"] = timed(lambda: run(syncing))
        seconds["aws s3 sync again"] = timed(lambda: run(syncing))
    else:
        upload_folder(folder / "images", uri=f"s3://{BUCKET}/images")
    with tempfile.TemporaryDirectory(dir=folder) as base:
        seconds["read objects"] = timed(lambda: read_objects(manifest, base=Path(base)))
    print({name: round(value, 2) for name, value in seconds.items()}, file=sys.stderr)
    return seconds


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def run(command: list[str]) -> None:
    """Run a program, which must succeed."""
    subprocess.run(command, check=True)


def read_shards(uri: str, *, base: Path) -> None:
    """Fetch the channels of a published data set, and unpack them as `train` does."""
    for channel, prefix in channel_uris(uri).items():
        download(prefix, folder=base / "data" / channel)
    check(read_channels(base / "data", seed=0, store=base / "cache").dataset)


def read_objects(manifest: Path, *, base: Path) -> None:
    """Fetch one object an image, and find the manifest beside them."""
    training = base / "data" / "training"
    download(f"s3://{BUCKET}/images/", folder=training)
    shutil.copy(manifest, training / MANIFEST_FILE)
    check(read_channels(base / "data", seed=0, store=base / "cache").dataset)


def download(uri: str, *, folder: Path) -> None:
    """Every object below a URI, many at once."""
    client, address = s3_client(), S3Address.parse(uri)

    def fetch(key: str) -> None:
        file = folder / key[len(address.prefix) :]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(client.get_object(Bucket=address.bucket, Key=key)["Body"].read())

    keys = [item["Key"] for item in list_objects(client, address)]
    for _ in map_concurrently(fetch, keys, threads=DOWNLOADS_AT_ONCE):
        pass


def check(dataset: Dataset) -> None:
    """Every image must be where the data set says."""
    missing = sum(not dataset.file(record).is_file() for record in dataset.records)
    if missing:
        sys.exit(f"{missing:,} images did not arrive")


def summary(rounds: list[dict[str, float]], *, images: int) -> dict[str, object]:
    """Medians, and how many times faster shards are."""
    seconds = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    faster = {"reading": seconds["read objects"] / seconds["read shards"]}
    if "aws s3 sync" in seconds:
        faster["upload"] = seconds["aws s3 sync"] / seconds["publish"]
    return {
        "images": images,
        "rounds": len(rounds),
        "machine": machine(),
        "aws": aws_version(),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "times_faster": {name: round(value, 1) for name, value in faster.items()},
    }


def machine() -> str:
    """Processor, cores and system."""
    python = f"Python {platform.python_version()}"
    return f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()}, {python}"


def aws_version() -> str:
    """Of the AWS CLI on the PATH, or why nothing was compared with it."""
    if not (aws := shutil.which("aws")):
        return "not compared: there is no `aws` on the PATH"
    done = subprocess.run([aws, "--version"], check=True, capture_output=True, text=True)
    return f"{aws}: {done.stdout.strip()}"


def table(result: dict[str, object]) -> str:
    """The result for people to read."""
    seconds, faster = result["seconds"], result["times_faster"]
    if not isinstance(seconds, dict) or not isinstance(faster, dict):
        raise TypeError(result)
    lines = [f"{result['images']:,} images, {result['rounds']} rounds, medians"]
    lines += [f"on {result['machine']}", f"with {result['aws']}"]
    lines += [f"  {name:20} {value:8.2f} s" for name, value in seconds.items()]
    lines += [f"  {name:20} {value:8.1f} times faster" for name, value in faster.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
