"""What validate_dataset costs: 15,000, 30,000 and 60,000 images of 32×32 pixels.

    python -m benchmarks.validation

Writes the images to a temporary folder, validates each number in a process of its own, and
reports time and peak memory: JSON to standard output, a table to standard error.
"""

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from darkroom.config import DataConfig
from darkroom.config.sections import Split
from darkroom.data.dataset import Dataset, ImageRecord, make_dataset
from darkroom.validation import validate

NUMBERS = (15_000, 30_000, 60_000)
CLASSES = 10
SIDE = 32


def main() -> None:
    """Measure each number in turn, or, as the child process, one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--numbers", type=int, nargs="+", default=NUMBERS, help="images")
    arguments = parser.parse_args()
    if arguments.manifest:
        print(json.dumps(measure(arguments.manifest)))
        return
    rows = [run_in_process(number) for number in sorted(arguments.numbers)]
    print(table(rows), file=sys.stderr)
    print(json.dumps({"runs": rows, "growth": growth(rows)}, indent=1))


def run_in_process(number: int) -> dict[str, float]:
    """Generate `number` images, and validate them in a fresh process."""
    with tempfile.TemporaryDirectory(prefix="darkroom-validation-") as folder:
        manifest = Path(folder) / "manifest.json"
        manifest.write_text(generate(number, root=Path(folder) / "images").to_json())
        command = [sys.executable, "-m", "benchmarks.validation", "--manifest", str(manifest)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def generate(number: int, *, root: Path) -> Dataset:
    """Soft random pictures as PNG; one in a thousand is in both train and test."""
    rng = np.random.default_rng(0)
    content = b""
    records = []
    for position in range(number):
        if position % 1000 != 500:
            coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            content = _png(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        split: Split = ("train", "test", "train", "train", "validation")[position % 5]
        label = f"class{position // 5 % CLASSES}"
        file = root / split / label / f"{position:06}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        records.append(
            ImageRecord(
                path=file.relative_to(root).as_posix(),
                label=label,
                split=split,
                size=len(content),
                sha256=sha256(content).hexdigest(),
            )
        )
    return make_dataset(records, root=root, source=f"{number} generated images")


def measure(manifest: Path) -> dict[str, float]:
    """Validate the data set of a manifest; memory is that of this whole process."""
    dataset = Dataset.from_json(manifest.read_text())
    before = _peak_megabytes()
    started = time.perf_counter()
    report = validate(dataset, config=DataConfig())
    seconds = time.perf_counter() - started
    leakage = report.finding("leakage")
    return {
        "images": report.files_checked,
        "seconds": round(seconds, 2),
        "images_per_second": round(report.files_checked / seconds),
        "peak_megabytes": round(_peak_megabytes(), 1),
        "peak_megabytes_before": round(before, 1),
        "leaked_images_found": leakage.count if leakage else 0,
        "near_duplicates_found": sum(f.count for f in report.findings if "near" in f.kind),
    }


def growth(rows: list[dict[str, float]]) -> dict[str, float]:
    """Time and memory for each image of the largest run, over that of the smallest."""
    first, last = rows[0], rows[-1]
    times_more = last["images"] / first["images"]
    return {
        "images": times_more,
        "seconds": round(last["seconds"] / first["seconds"], 2),
        "seconds_per_image": round(last["seconds"] / first["seconds"] / times_more, 2),
    }


def table(rows: list[dict[str, float]]) -> str:
    """The runs for people to read."""
    lines = [
        f"{'images':>8} {'seconds':>8} {'images/s':>9} {'peak MB':>8} {'leaked':>7} {'near':>5}"
    ]
    lines += [
        f"{row['images']:8,} {row['seconds']:8.1f} {row['images_per_second']:9,} "
        f"{row['peak_megabytes']:8.0f} {row['leaked_images_found']:7} "
        f"{row['near_duplicates_found']:5}"
        for row in rows
    ]
    return "\n".join(lines)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _peak_megabytes() -> float:
    """The largest resident memory so far; Linux counts it in KiB, macOS in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    main()
