"""The files of a trial that is written without smdebug, held against smdebug's own."""

import json
from pathlib import Path

import numpy as np
import pytest

from darkroom.debugging import smdebug_format
from darkroom.debugging.recording.smdebug_writer import SmdebugWriter
from darkroom.debugging.recording.snapshots import Captured, Look
from quiet_smdebug import import_smdebug

import_smdebug()

from smdebug.core.access_layer.utils import training_has_ended
from smdebug.core.collection_manager import CollectionManager
from smdebug.core.locations import IndexFileLocationUtils, TensorFileLocation
from smdebug.core.utils import get_path_to_collections
from smdebug.trials import create_trial

STEPS = (0, 7, 999, 1000, 123_456)


def write(folder: Path, *, step: int = 2) -> None:
    writer = SmdebugWriter(folder, root="Net", steps_per_epoch=1000)
    value = np.array([-3.0, 1.0, 2.0])
    look = Look("train", step, full=True)
    look.tensors = [Captured("a.weight", kind="weight", value=value)]
    writer.write(look)
    writer.close()


@pytest.mark.parametrize("step", STEPS)
def test_files_lie_where_smdebug_looks_for_them(step: int, tmp_path: Path) -> None:
    events = TensorFileLocation(step, "worker_0").get_file_location(str(tmp_path))
    index = IndexFileLocationUtils.get_index_key_for_step(str(tmp_path), step, "worker_0")
    assert str(smdebug_format.events_file(tmp_path, step=step)) == events
    assert str(smdebug_format.index_file(tmp_path, step=step)) == index
    collections = get_path_to_collections(str(tmp_path))
    assert f"{smdebug_format.collections_file(tmp_path).parent}/" == collections


def test_collections_are_written_as_smdebug_writes_them() -> None:
    content = smdebug_format.collections()
    theirs = CollectionManager.load_from_string(json.dumps(content))
    assert theirs.to_json_dict() == content
    assert theirs.get_num_workers() == 1


def test_reductions_have_the_names_by_which_smdebug_asks_for_them() -> None:
    content = smdebug_format.collections()
    gradients = CollectionManager.load_from_string(json.dumps(content)).get("gradients")
    assert gradients.reduction_config.reductions == ["mean", "std", "min", "max"]
    assert gradients.reduction_config.abs_reductions == ["mean"]


def test_the_end_is_marked_as_smdebug_marks_it(tmp_path: Path) -> None:
    write(tmp_path / "ours")
    (tmp_path / "theirs").mkdir()
    training_has_ended(str(tmp_path / "theirs"))
    (mark,) = (tmp_path / "theirs").iterdir()
    assert (tmp_path / "ours" / mark.name).read_bytes() == mark.read_bytes()
    trial = create_trial(str(tmp_path / "ours"))
    assert trial.steps() == [2]
    assert trial.loaded_all_steps


def test_a_job_of_sagemaker_leaves_no_mark_of_the_end_and_a_new_start_takes_it_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = smdebug_format.end_mark(tmp_path)
    write(tmp_path)
    assert mark.exists()
    monkeypatch.setenv("TRAINING_JOB_NAME", "job")
    write(tmp_path, step=3)
    assert not mark.exists()
