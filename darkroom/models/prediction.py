"""Load a model bundle once, predict batches: evaluation, endpoint and `predict` alike.

With the default engine it needs ONNX Runtime, numpy and Pillow; neither torch nor a network.
"""

import io
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from darkroom.base.errors import DarkroomError
from darkroom.images import OWN_IMAGES, ImageError, ImageLimits, prepare
from darkroom.models.bundle import (
    MAX_DIFFERENCE,
    BundleMetadata,
    allowed_difference,
    open_bundle,
    read_metadata,
)
from darkroom.models.engine import DEFAULT_ENGINE, Engine, EngineName, Floats
from darkroom.models.engines import load_engine

ImageLike: TypeAlias = (
    bytes | bytearray | memoryview | str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
)
"""What `Predictor.predict` takes for an image."""
_LOSSLESS_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
"""Of Pillow, that a PNG keeps as they are."""


class ClassProbability(BaseModel):
    """One class and how probable it is."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)

    class_name: str = Field(alias="class")
    probability: float


class Prediction(BaseModel):
    """What the model says about one image; `error` says why it could not."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)

    source: str
    class_name: str | None = Field(default=None, alias="class")
    probability: float | None = None
    top_k: list[ClassProbability] = []
    error: str | None = None
    engine: str | None = Field(default=None, exclude=True)
    """What ran the network, where that is known; no part of a row."""


class Predictor:
    """A loaded bundle. Safe to share between threads.

    Args:
        engine: runs the network.
        metadata: of the bundle; says how images become arrays, and what the classes are.
        threads: threads that decode images.
        fallback: why it is not the engine that the bundle was compiled for; empty: it is.
    """

    def __init__(
        self, engine: Engine, *, metadata: BundleMetadata, threads: int = 1, fallback: str = ""
    ) -> None:
        self.engine = engine
        self.metadata = metadata
        self.threads = threads
        self.fallback = fallback

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        threads: int | None = None,
        engine: EngineName | None = None,
        seconds: float | None = None,
    ) -> Self:
        """Load a bundle folder or a model.tar.gz.

        Args:
            threads: for decoding, and inside the network; None: the available cores.
            engine: what runs the network; None: what the bundle was compiled for. Where that
                is not installed, or does not compute here what the bundle says, the default
                engine runs it instead: `fallback` says why, and so does a warning.
            seconds: that the network may take for a batch (`load_engine`).

        Raises:
            UserError: no bundle, a changed one, or one whose network does not fit its classes;
                or the engine that was asked for is not installed.
        """
        threads = threads or available_cores()
        with open_bundle(path) as folder:
            metadata = read_metadata(folder)
            load = partial(
                load_engine, folder=folder, metadata=metadata, threads=threads, seconds=seconds
            )
            if engine or metadata.engine == DEFAULT_ENGINE:
                return cls(load(engine or DEFAULT_ENGINE), metadata=metadata, threads=threads)
            try:
                compiled = cls(load(metadata.engine), metadata=metadata, threads=threads)
                compiled.self_test()
            except Exception as error:  # engines' exceptions have no common base class
                fallback = (
                    f"the model was compiled for {metadata.engine}, which cannot run it here: "
                    f"{error}; {DEFAULT_ENGINE} runs it instead"
                )
                logging.getLogger(__name__).warning(fallback)
                loaded = load(DEFAULT_ENGINE)
                return cls(loaded, metadata=metadata, threads=threads, fallback=fallback)
            return compiled

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities' columns."""
        return self.metadata.classes

    def prepare(self, image: bytes | Path, *, limits: ImageLimits = OWN_IMAGES) -> Floats:
        """Decode and preprocess one image to the (3, S, S) array that the network sees.

        Args:
            limits: which images are opened.

        Raises:
            ImageError: the image cannot be used.
        """
        return prepare(image, self.metadata.preprocessing, limits=limits)

    def probabilities(self, batch: Floats) -> Floats:
        """(N, 3, S, S) preprocessed images to (N, C) probabilities.

        Raises:
            DarkroomError: the network's output is not finite.
        """
        if len(batch) == 0:
            return np.zeros((0, len(self.classes)), dtype=np.float32)
        logits = self.engine.run(batch)
        if not np.isfinite(logits).all():
            raise DarkroomError("the network's output is not finite; the model is unusable")
        return softmax(logits)

    def predict(self, images: Sequence[ImageLike], *, batch_size: int = 32) -> Floats:
        """(N, C) probabilities of images.

        Args:
            images: paths, encoded images, Pillow's, or uint8 arrays (H, W) or (H, W, 3 or 4).
            batch_size: images that are held in memory at once.

        Raises:
            ImageError: an image cannot be used; the message names it.
            TypeError: something else than an image, or one alone in the place of several.
        """
        if isinstance(images, str | bytes | os.PathLike | Image.Image):
            raise TypeError("predict takes a list of images: put the one into brackets")
        parts = [self.probabilities(np.zeros((0,), dtype=np.float32))]
        with ThreadPoolExecutor(self.threads) as pool:
            for start in range(0, len(images), batch_size):
                chunk = images[start : start + batch_size]
                positions = range(start, start + len(chunk))
                arrays = list(pool.map(self._prepare_named, chunk, positions))
                parts.append(self.probabilities(np.stack(arrays)))
        return np.concatenate(parts)

    def top_k(self, probabilities: Floats, *, k: int) -> list[ClassProbability]:
        """The `k` most probable classes of one image's (C,) probabilities, best first."""
        order = np.argsort(-probabilities, kind="stable")[:k]
        return [
            ClassProbability(
                class_name=self.classes[index], probability=float(probabilities[index])
            )
            for index in order
        ]

    def self_test(self) -> None:
        """Compute what the bundle says its network has to: decoding, engine and all.

        Raises:
            DarkroomError: something else comes out, or the network cannot be run.
        """
        parity = self.metadata.parity
        if parity is None:
            size = self.metadata.preprocessing.image_size
            self.probabilities(np.zeros((1, 3, size, size), dtype=np.float32))
            return
        got = self.probabilities(np.expand_dims(self.prepare(parity.encoded), 0))[0]
        difference = float(np.abs(got - np.asarray(parity.probabilities)).max())
        allowed = allowed_difference(MAX_DIFFERENCE, engines=[self.engine.name])
        if not difference <= allowed:
            raise DarkroomError(
                f"the engine {self.engine.name!r} computes other probabilities than the trained "
                f"network did when it was packed: they differ by {difference:.2g}, allowed is "
                f"{allowed:g}; choose another engine, or pack the model anew"
            )

    def _prepare_named(self, image: ImageLike, position: int) -> Floats:
        encoded = _encoded(image, position=position)
        try:
            return self.prepare(encoded)
        except ImageError as error:
            name = repr(str(encoded)) if isinstance(encoded, Path) else f"image {position}"
            raise ImageError(f"{name}: {error}") from error


def _encoded(image: ImageLike, *, position: int) -> bytes | Path:
    """An image as its file would be, so that all take one way through decoding.

    Raises:
        TypeError: it is none.
    """
    if isinstance(image, bytes | Path):
        return image
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(image)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and _is_picture(image.shape):
        image = Image.fromarray(image)
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        kept = image if image.mode in _LOSSLESS_MODES else image.convert("RGB")
        # Uncompressed nearly, and with the orientation that its file may have had.
        kept.save(buffer, format="PNG", compress_level=1, exif=image.getexif())
        return buffer.getvalue()
    shown = (
        f"{image.dtype} array of shape {image.shape}"
        if isinstance(image, np.ndarray)
        else (type(image).__name__)
    )
    raise TypeError(
        f"image {position} is a {shown}; images are paths, encoded bytes, Pillow's images, or "
        "uint8 arrays of shape (H, W), (H, W, 3) or (H, W, 4)"
    )


def _is_picture(shape: tuple[int, ...]) -> bool:
    return 0 not in shape and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4)))


def softmax(logits: NDArray[np.floating]) -> Floats:
    """(N, C) logits to probabilities, computed in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), dtype=np.float32)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
