import errno
from pathlib import Path

import pytest

from darkroom.base.files import atomic_path, sha256_of, workspace, write_text


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_text(target, "old")
    with pytest.raises(OSError, match="full"), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "disk full")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:  # noqa: PT012
        temporary.mkdir()
        (temporary / "part").touch()
        raise RuntimeError
    assert not target.exists()
    with atomic_path(target) as temporary:
        temporary.mkdir()
        (temporary / "whole").touch()
    assert [path.name for path in target.iterdir()] == ["whole"]


def test_a_folder_that_another_process_made_first_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with atomic_path(target) as temporary:
        temporary.mkdir()
        (temporary / "mine").touch()
        target.mkdir()
        (target / "theirs").touch()
    assert [path.name for path in target.iterdir()] == ["theirs"]


def test_a_link_to_a_folder_is_replaced(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        with atomic_path(tmp_path / "latest") as temporary:
            temporary.symlink_to(tmp_path / name)
    assert (tmp_path / "latest").resolve() == tmp_path / "second"


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "file") as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "abc") == expected


def test_the_workspace_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "elsewhere"))
    assert workspace() == tmp_path / "elsewhere"
