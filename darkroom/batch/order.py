"""What a batch is asked for."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from darkroom.batch.selecting import SplitChoice
from darkroom.config import Config
from darkroom.sources.source_names import parse_source


class BatchOrder(BaseModel):
    """What `run.py batch` was asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str | None
    """None: the configuration's data set, split as it is for training."""
    split: SplitChoice
    model: Path
    top_k: int
    resume: bool
    config: Config

    @property
    def whole_source(self) -> str:
        """What the split is taken from."""
        return self.config.data.source if self.source is None else self.source

    @property
    def public_source(self) -> str:
        """For people to read; without what a URL may hold of secrets."""
        return parse_source(self.whole_source).public_name
