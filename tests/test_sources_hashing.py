"""Hashes are right, remembered, and forgotten when a file changes."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from darkroom.errors import UserError
from darkroom.sources import hashing
from darkroom.sources.concurrency import map_concurrently
from darkroom.sources.hashing import FileState, HashIndex, hash_file, hash_files

_LONG_AGO = 1_000_000_000


def _write(path: Path, content: bytes, *, mtime: int = _LONG_AGO) -> FileState:
    path.write_bytes(content)
    os.utime(path, (mtime, mtime))
    return FileState.of(path)


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The names of the files that were read."""
    names: list[str] = []

    def counting_sha256_of(path: Path) -> str:
        names.append(path.name)
        return sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(hashing, "sha256_of", counting_sha256_of)
    return names


def test_many_files_are_hashed(tmp_path):
    files = [_write(tmp_path / f"{number}", b"%d" % number) for number in range(600)]
    with HashIndex.in_store(tmp_path / "store") as index:
        hashes = hash_files(files, index=index)
    expected = {file.path: sha256(b"%d" % i).hexdigest() for i, file in enumerate(files)}
    assert hashes == expected


def test_an_unchanged_file_is_not_read_again(tmp_path, reads):
    _write(tmp_path / "a", b"content")
    found = []
    for _ in range(2):
        with HashIndex.in_store(tmp_path / "store") as index:
            found.append(hash_file(tmp_path / "a", index=index))
    assert found == [sha256(b"content").hexdigest()] * 2
    assert reads == ["a"]


@pytest.mark.parametrize(
    ("content", "mtime"), [(b"longer content", _LONG_AGO), (b"CONTENT", _LONG_AGO + 1)]
)
def test_a_change_of_size_or_time_is_noticed(tmp_path, content, mtime):
    with HashIndex.in_store(tmp_path / "store") as index:
        _write(tmp_path / "a", b"content")
        hash_file(tmp_path / "a", index=index)
        _write(tmp_path / "a", content, mtime=mtime)
        assert hash_file(tmp_path / "a", index=index) == sha256(content).hexdigest()


def test_a_file_changed_a_moment_ago_is_not_trusted_yet(tmp_path, reads):
    (tmp_path / "a").write_bytes(b"fresh")
    with HashIndex.in_store(tmp_path / "store") as index:
        hash_file(tmp_path / "a", index=index)
        hash_file(tmp_path / "a", index=index)
    assert reads == ["a", "a"]


def test_what_was_hashed_before_an_interruption_is_remembered(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(hashing, "_FILES_IN_A_BATCH", 1)
    monkeypatch.setattr(hashing, "_THREADS", 1)
    files = [_write(tmp_path / name, b"x") for name in "abc"]
    (tmp_path / "c").unlink()
    with HashIndex.in_store(tmp_path / "store") as index:
        with pytest.raises(UserError, match=r"c' cannot be read"):
            hash_files(files, index=index)
        _write(tmp_path / "c", b"x")
        reads.clear()
        hash_files(files, index=index)
    assert reads == ["c"]


def test_concurrent_work_yields_every_result():
    assert sorted(map_concurrently(lambda n: n * n, range(100), threads=4)) == [
        n * n for n in range(100)
    ]


def test_concurrent_work_stops_at_the_first_failure():
    started: list[int] = []

    def fail_at_three(number: int) -> None:
        started.append(number)
        if number == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        list(map_concurrently(fail_at_three, range(1000), threads=2))
    assert len(started) < 20
