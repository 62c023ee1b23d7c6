"""What a batch knows of one image."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from darkroom.prediction import ClassProbability, Prediction


@dataclass(frozen=True, slots=True)
class BatchImage:
    """One image of a batch, before it is classified."""

    name: str
    """Relative to the source, with forward slashes."""
    place: str
    """Path or URI."""
    label: str | None = None
    """What its folder says it shows."""
    error: str | None = None
    """Why there is nothing to classify."""


class BatchRow(BaseModel):
    """One image with what the model says about it; `error` says why it could not."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)

    file: str
    class_name: str | None = Field(default=None, alias="class")
    probability: float | None = None
    top_k: list[ClassProbability] = []
    error: str | None = None
    label: str | None = None

    @property
    def correct(self) -> bool | None:
        """Whether the label was predicted; None: no label, or no class."""
        if self.label is None or self.class_name is None:
            return None
        return self.class_name == self.label


def joined(
    images: Iterable[BatchImage], predictions: Iterable[Prediction], *, top_k: int
) -> Iterator[BatchRow]:
    """Rows from images and what was predicted of them, in the same order."""
    for image, found in zip(images, predictions, strict=True):
        yield BatchRow(
            file=image.name,
            class_name=found.class_name,
            probability=found.probability,
            top_k=found.top_k[:top_k],
            error=found.error,
            label=image.label,
        )
