"""What a batch knows of one image."""

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict, Field

from darkroom.prediction import ClassProbability, Prediction


class BatchImage(BaseModel):
    """One image of a batch, before it is classified."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Relative to the source, with forward slashes."""
    place: str
    """Path or URI."""
    label: str | None = None
    """What its folder says it shows."""


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


class BatchTable(BaseModel):
    """All rows of a batch, in the order of the source."""

    model_config = ConfigDict(frozen=True)

    model_version: str
    classes: tuple[str, ...]
    rows: tuple[BatchRow, ...]


def joined(images: Sequence[BatchImage], predictions: Iterable[Prediction]) -> list[BatchRow]:
    """Rows from images and what was predicted of them, in the same order."""
    return [
        BatchRow(
            file=image.name,
            class_name=found.class_name,
            probability=found.probability,
            top_k=found.top_k,
            error=found.error,
            label=image.label,
        )
        for image, found in zip(images, predictions, strict=True)
    ]
