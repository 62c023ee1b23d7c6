"""What a training keeps between two epochs, so that one that was killed goes on.

<folder>/checkpoint/    see checkpoints.py
<folder>/history.json   the metrics of each epoch
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from darkroom.base.progress import Progress
from darkroom.config.sections import Metric
from darkroom.telemetry.epochs import EpochMetrics, best_epoch, write_history
from darkroom.training.checkpoints import (
    CHECKPOINT_FILE,
    BrokenCheckpointError,
    Checkpoint,
    disk_errors,
    read_checkpoint,
    write_checkpoint,
)
from darkroom.training.distributed import ProcessGroup
from darkroom.training.learner import Learner

CHECKPOINT_FOLDER = "checkpoint"
HISTORY_FILE = "history.json"


class CheckpointManager:
    """Checkpoint and history of one training.

    Args:
        folder: the training's.
        identity: of what is trained on what; a checkpoint of another is not gone on from.
        objective: by which epochs are compared.
        group: of which the first process writes; what it has counts for all.
    """

    def __init__(
        self, folder: Path, *, identity: str, objective: Metric, group: ProcessGroup
    ) -> None:
        self._folder, self._identity = folder, identity
        self._objective, self._group = objective, group

    def restore(
        self, learner: Learner, *, progress: Progress
    ) -> tuple[list[EpochMetrics], dict[str, Tensor]]:
        """Put the learner where the checkpoint left it.

        Returns:
            The epochs so far, and the best one's weights; both empty where there is no
            checkpoint, or a damaged one, which is told.
        """
        try:
            checkpoint = self._read()
        except BrokenCheckpointError as error:
            progress.message(f"the checkpoint is damaged ({error}): training starts anew")
            return [], {}
        if checkpoint is None:
            return [], {}
        learner.restore(
            model=checkpoint.model, optimizer=checkpoint.optimizer, scaler=checkpoint.scaler
        )
        return list(checkpoint.history), dict(checkpoint.best or checkpoint.model)

    def save(
        self, learner: Learner, *, history: Sequence[EpochMetrics], best: Mapping[str, Tensor]
    ) -> None:
        """Write checkpoint and history, each atomically.

        Args:
            best: weights of the best epoch.

        Raises:
            DarkroomError: the disk is full or not writable; what was there is intact.
        """
        if not self._group.is_first:
            return
        is_best = best_epoch(history, objective=self._objective) == len(history)
        checkpoint = Checkpoint(
            identity=self._identity,
            history=history,
            model=best if is_best else learner.weights(),
            optimizer=learner.optimizer_state(),
            best={} if is_best else best,
            scaler=learner.scaler_state(),
        )
        write_checkpoint(checkpoint, folder=self._folder / CHECKPOINT_FOLDER)
        path = self._folder / HISTORY_FILE
        with disk_errors(path):
            write_history(path, history, objective=self._objective)

    def _read(self) -> Checkpoint | None:
        """The first process's: another host may have none, or an older one."""
        folder = self._folder / CHECKPOINT_FOLDER
        if self._group.hosts == 1:
            return read_checkpoint(folder, identity=self._identity)
        file = folder / CHECKPOINT_FILE
        content = self._group.from_first(file.read_bytes() if file.exists() else b"")
        with TemporaryDirectory() as scratch:
            if content:
                Path(scratch, CHECKPOINT_FILE).write_bytes(content)
            return read_checkpoint(Path(scratch), identity=self._identity)
