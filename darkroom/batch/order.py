"""What a batch is asked for."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from darkroom.batch.selecting import SplitChoice
from darkroom.config import Config


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
