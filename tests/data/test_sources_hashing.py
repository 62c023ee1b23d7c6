"""Hashes are right, remembered, and forgotten when a file changes."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from darkroom.base.concurrency import map_concurrently
from darkroom.base.errors import UserError
from darkroom.data import hashes as hashing
from darkroom.data.hashes import HashIndex, hash_file, hash_files

_LONG_AGO = 1_000_000_000


def _write(path: Path, content: bytes, *, mtime: int = _LONG_AGO) -> str:
    path.write_bytes(content)
    os.utime(path, (mtime, mtime))
    return str(path)


def _hash(path: Path, **how: bool) -> str:
    with HashIndex.in_store(path.parent / "store", **how) as index:
        return hash_file(path, index=index)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may be remembered at once: a test cannot put back the time of change."""
    monkeypatch.setattr(hashing, "_SETTLED_NS", -(10**9))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read."""
    names: list[str] = []
    original = hashing._hash

    def counting(path: str) -> hashing.HashedFile:
        names.append(Path(path).name)
        return original(path)

    monkeypatch.setattr(hashing, "_hash", counting)
    return names


def test_many_files_are_hashed(tmp_path):
    files = [_write(tmp_path / f"{number}", b"%d" % number) for number in range(600)]
    with HashIndex.in_store(tmp_path / "store") as index:
        hashes = hash_files(files, index=index)
    assert hashes == {path: sha256(b"%d" % i).hexdigest() for i, path in enumerate(files)}


def test_an_unchanged_file_is_not_read_again(tmp_path, reads, settled):
    _write(tmp_path / "a", b"content")
    assert [_hash(tmp_path / "a") for _ in range(2)] == [sha256(b"content").hexdigest()] * 2
    assert reads == ["a"]


def test_every_file_is_read_where_nothing_of_earlier_runs_is_wanted(tmp_path, reads, settled):
    _write(tmp_path / "a", b"content")
    for fresh in (False, True, False):
        _hash(tmp_path / "a", fresh=fresh)
    assert reads == ["a", "a"]


@pytest.mark.parametrize(
    ("content", "mtime"), [(b"longer content", _LONG_AGO), (b"CONTENT", _LONG_AGO + 1)]
)
def test_a_change_of_size_or_time_is_noticed(tmp_path, content, mtime, settled):
    _write(tmp_path / "a", b"content")
    _hash(tmp_path / "a")
    _write(tmp_path / "a", content, mtime=mtime)
    assert _hash(tmp_path / "a") == sha256(content).hexdigest()


def _overwritten(path: Path, other: Path) -> None:
    shutil.copy2(other, path)


def _renamed_over(path: Path, other: Path) -> None:
    other.rename(path)


def _folders_swapped(path: Path, other: Path) -> None:
    other.rename(path.parent / "swap")
    path.rename(other)
    (path.parent / "swap").rename(path)


def _touched_like(path: Path, other: Path) -> None:
    status = path.stat()
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _linked(path: Path, other: Path) -> None:
    path.unlink()
    path.hardlink_to(other)


def _symlinked(path: Path, other: Path) -> None:
    path.unlink()
    path.symlink_to(other)


def _synchronised(path: Path, other: Path) -> None:
    if not shutil.which("rsync"):
        pytest.skip("rsync is not installed")
    subprocess.run(["rsync", "--archive", "--checksum", other, path], check=True)


@pytest.mark.parametrize(
    "change",
    [
        _overwritten,
        _renamed_over,
        _folders_swapped,
        _touched_like,
        _linked,
        _symlinked,
        _synchronised,
    ],
)
def test_other_content_of_equal_size_and_time_is_noticed(
    tmp_path, settled, change: Callable[[Path, Path], None]
):
    one, other = tmp_path / "a", tmp_path / "b"
    _write(one, b"content")
    _write(other, b"CONTENT")
    _hash(one), _hash(other)
    change(one, other)
    assert one.stat().st_mtime == _LONG_AGO
    assert _hash(one) == sha256(b"CONTENT").hexdigest()


def test_a_folder_renamed_to_anothers_name_is_noticed(tmp_path, settled):
    for name in ("red", "blue"):
        (tmp_path / name).mkdir()
        _write(tmp_path / name / "1", name.ljust(4).encode())
    with HashIndex.in_store(tmp_path / "store") as index:
        hash_file(tmp_path / "red/1", index=index)
        (tmp_path / "red").rename(tmp_path / "green")
        (tmp_path / "blue").rename(tmp_path / "red")
        assert hash_file(tmp_path / "red/1", index=index) == sha256(b"blue").hexdigest()


def test_a_file_changed_a_moment_ago_is_not_trusted_yet(tmp_path, reads):
    _write(tmp_path / "a", b"fresh")
    for _ in range(2):
        _hash(tmp_path / "a")
    assert reads == ["a", "a"]


@pytest.mark.parametrize(
    ("kind", "times_read"), [("ext4", 1), ("vfat", 2), ("fuse.sshfs", 2), ("cifs", 2)]
)
def test_nothing_is_remembered_where_a_change_may_leave_no_trace(
    tmp_path, reads, settled, monkeypatch, kind, times_read
):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        f"23 22 8:1 / {str(tmp_path).replace(' ', chr(92) + '040')} rw - {kind} /dev/sdb1 rw\n"
        "24 22 8:2 / /elsewhere rw,relatime shared:1 - ext4 /dev/sdc1 rw\n"
    )
    monkeypatch.setattr(hashing, "_MOUNTS", mounts)
    hashing._keeps_change_times.cache_clear()
    _write(tmp_path / "a", b"content")
    for _ in range(2):
        _hash(tmp_path / "a")
    hashing._keeps_change_times.cache_clear()
    assert reads == ["a"] * times_read


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    _write(tmp_path / "a", b"content")
    states = iter([1, 2])
    original = hashing.FileState.of_open.__func__
    monkeypatch.setattr(
        hashing.FileState,
        "of_open",
        classmethod(lambda cls, file, *, path: _sized(original(cls, file, path=path), states)),
    )
    with pytest.raises(UserError, match="changed while it was read"):
        _hash(tmp_path / "a")


def _sized(state: hashing.FileState, sizes: Iterator[int]) -> hashing.FileState:
    return replace(state, size=next(sizes))


def test_an_index_by_size_and_time_of_modification_is_not_believed(tmp_path, settled):
    path = _write(tmp_path / "a", b"content")
    (tmp_path / "store").mkdir()
    with sqlite3.connect(tmp_path / "store/hashes.sqlite") as connection:
        connection.execute("CREATE TABLE hashes (path TEXT, size, mtime_ns, sha256)")
        connection.execute("INSERT INTO hashes VALUES (?, 7, ?, 'old')", (path, _LONG_AGO * 10**9))
    connection.close()
    assert _hash(tmp_path / "a") == sha256(b"content").hexdigest()


def test_what_was_hashed_before_an_interruption_is_remembered(
    tmp_path, reads, settled, monkeypatch
):
    monkeypatch.setattr(hashing, "_FILES_IN_A_BATCH", 1)
    monkeypatch.setattr(hashing, "_THREADS", 1)
    files = [_write(tmp_path / name, b"x") for name in "abc"]
    original = hashing._hash

    def failing(path: str) -> hashing.HashedFile:
        if path.endswith("c"):
            raise UserError("'c' cannot be read")
        return original(path)

    with HashIndex.in_store(tmp_path / "store") as index:
        with monkeypatch.context() as patched:
            patched.setattr(hashing, "_hash", failing)
            with pytest.raises(UserError, match="c' cannot be read"):
                hash_files(files, index=index)
        reads.clear()
        hash_files(files, index=index)
    assert reads == ["c"]


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone' cannot be read: No such file"):
        _hash(tmp_path / "gone")


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
