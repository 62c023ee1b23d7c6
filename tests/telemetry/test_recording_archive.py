"""A recording in an archive: packed by a component, or beside other files of a job's."""

import io
import tarfile
from pathlib import Path

import pytest

from darkroom.base.errors import DarkroomError
from darkroom.telemetry import recording
from darkroom.telemetry.recording import pack_recording, unpack_recording


def archive_of(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_what_was_packed_is_unpacked_and_replaces_what_was_there(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "tensors").mkdir(parents=True)
    (source / "tensors" / "a").write_bytes(b"1")
    target.mkdir()
    (target / "stale").touch()
    pack_recording(source, tmp_path / "archive")
    assert unpack_recording(tmp_path / "archive", folder=target)
    assert [path.name for path in target.rglob("*")] == ["tensors", "a"]


def test_of_a_jobs_output_the_recording_alone_is_taken(tmp_path: Path) -> None:
    files = {"./recording/steps.jsonl": b"{}", "./history.json": b"{}"}
    archive = archive_of(tmp_path / "output.tar.gz", files)
    assert unpack_recording(archive, folder=tmp_path / "here", within="recording")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["steps.jsonl"]
    assert not unpack_recording(archive, folder=tmp_path / "there", within="nothing")
    assert not (tmp_path / "there").exists()


def test_nothing_is_written_outside_nor_more_than_a_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = archive_of(tmp_path / "hostile", {"recording/../../../out": b"x"})
    with pytest.raises(tarfile.TarError):
        unpack_recording(hostile, folder=tmp_path / "a" / "b", within="recording")
    assert not list(tmp_path.rglob("out"))
    monkeypatch.setattr(recording, "MAX_BYTES", 3)
    large = archive_of(tmp_path / "large", {"recording/steps": b"1234"})
    with pytest.raises(DarkroomError, match="larger than expected"):
        unpack_recording(large, folder=tmp_path / "c", within="recording")
