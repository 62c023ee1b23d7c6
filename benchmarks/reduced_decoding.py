"""What decoding large JPEGs at a fraction of their size saves, and whether anybody notices.

    python -m benchmarks.reduced_decoding --data PHOTOGRAPHS --model BUNDLE

The photographs are enlarged to three sizes of cameras, saved as JPEG, and classified by a
trained model twice: decoded whole, and decoded as images.py does it.
"""

import argparse
import io
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from darkroom.data.image_folder import is_image_name
from darkroom.images import Preprocessing, prepare
from darkroom.models.engine import Floats
from darkroom.models.prediction import Predictor

SHORTER_SIDES = (1080, 1600, 2400)
_QUALITY = 90


def main() -> None:
    """Print a line for each size."""
    options = _parser().parse_args()
    files = sorted(path for path in options.data.rglob("*") if is_image_name(path.name))
    chosen = files[:: max(1, len(files) // options.images)][: options.images]
    predictor = Predictor.load(options.model)
    print("shorter side   whole   reduced  faster   pixels differ by    top-1 agrees  probability")
    for side in SHORTER_SIDES:
        print(_line(side, encoded=[_enlarged(file, side=side) for file in chosen], by=predictor))


def _line(side: int, *, encoded: Sequence[bytes], by: Predictor) -> str:
    how = by.metadata.preprocessing
    whole, slow = _prepared(encoded, how=how.model_copy(update={"reduced_decoding": False}))
    reduced, fast = _prepared(encoded, how=how.model_copy(update={"reduced_decoding": True}))
    one, other = by.probabilities(whole), by.probabilities(reduced)
    pixels = np.abs(whole - reduced)
    agreeing = (one.argmax(axis=1) == other.argmax(axis=1)).mean()
    return (
        f"{side:9} px {slow * 1e3:7.1f} {fast * 1e3:7.1f} ms {slow / fast:5.1f}×   "
        f"{pixels.mean():.4f} (largest {pixels.max():.2f})   {agreeing:8.1%}      "
        f"{np.abs(one - other).max():.3f} at most"
    )


def _prepared(encoded: Sequence[bytes], *, how: Preprocessing) -> tuple[Floats, float]:
    """The arrays, normalised, and the median seconds of one."""
    arrays, seconds = [], []
    for content in encoded:
        started = time.perf_counter()
        arrays.append(prepare(content, how))
        seconds.append(time.perf_counter() - started)
    return np.stack(arrays), float(np.median(seconds))


def _enlarged(file: Path, *, side: int) -> bytes:
    with Image.open(file) as image:
        factor = side / min(image.size)
        size = tuple(round(length * factor) for length in image.size)
        large = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    large.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Reduced decoding: time and agreement.")
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--model", type=Path, required=True, help="trained bundle")
    parser.add_argument("--images", type=int, default=100)
    return parser


if __name__ == "__main__":
    main()
