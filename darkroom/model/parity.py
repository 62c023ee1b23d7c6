"""A picture and what the trained network says of it: proof that a server computes the same.

Stored in the bundle when it is packed, computed there by torch. Whoever loads the bundle
decodes and classifies the picture again: another Pillow, another engine, another processor
or a change of the preprocessing shows before the first request.
"""

import base64
import io
from collections.abc import Iterable

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from darkroom.engines.protocol import INEXACT

MAXIMUM_DIFFERENCE = 1e-3
"""Of a probability; float32 rounding stays below 1e-5."""

MAXIMUM_INEXACT_DIFFERENCE = 0.1
"""For engines that compute with bfloat16, whose 8 bits differ by up to 0.3 in a logit."""

_SIZE = (320, 240)
_QUALITY = 90


class Parity(BaseModel):
    """The picture, and the probabilities of the classes in their order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str = Field(repr=False)
    """A JPEG, in base64."""
    probabilities: tuple[float, ...] = Field(repr=False)

    @property
    def encoded(self) -> bytes:
        """The JPEG."""
        return base64.b64decode(self.image)


def allowed_difference(exact: float, *, engines: Iterable[str]) -> float:
    """How far probabilities may lie apart that these engines have computed of one image.

    Args:
        exact: the same for engines that compute in float32.
    """
    is_inexact = not INEXACT.isdisjoint(engines)
    return max(exact, MAXIMUM_INEXACT_DIFFERENCE) if is_inexact else exact


def parity_picture() -> bytes:
    """A JPEG of waves in all three colours: nobody's photograph, the same each time."""
    width, height = _SIZE
    x, y = np.meshgrid(np.linspace(0, 9, width), np.linspace(0, 7, height))
    waves = [np.sin(x + y), np.sin(2 * x - y), np.cos(x * y / 3)]
    pixels = (127.5 * (1 + np.stack(waves, axis=-1))).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
