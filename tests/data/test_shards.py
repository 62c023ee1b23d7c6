"""Shards: the same bytes for the same content, and back again, whatever an archive claims."""

import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from darkroom.base.errors import UserError
from darkroom.config.sections import Split
from darkroom.data import shards as packing
from darkroom.data.dataset import Dataset, ImageRecord, make_dataset
from darkroom.data.shards import (
    check_complete,
    pack_shard,
    plan_shards,
    unpack_shards,
    unpacked_name,
)

SPLITS: tuple[Split, ...] = ("train", "train", "train", "validation", "test")


def write_files(root: Path, *, number: int = 60) -> Dataset:
    """Files of all lengths in three classes; what they hold is no matter here."""
    records = []
    for position in range(number):
        content = f"content {position} ".encode() * (position + 1)
        file = root / f"größe {position % 3}" / f"{position}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        records.append(
            ImageRecord(
                path=file.relative_to(root).as_posix(),
                label=file.parent.name,
                split=SPLITS[position % 5],
                size=len(content),
                sha256=sha256(content).hexdigest(),
            )
        )
    return make_dataset(records, root=root, source="files")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write_files(tmp_path / "files")


def write_shards(dataset: Dataset, folder: Path) -> list[Path]:
    folder.mkdir()
    for split in ("train", "validation", "test"):
        for shard in plan_shards(dataset, split=split):
            (folder / shard.name).write_bytes(pack_shard(shard, root=dataset.root).read())
    return sorted(folder.iterdir())


def write_tar(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for entry, content in entries:
            archive.addfile(entry, io.BytesIO(content))
    return path


def file_entry(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    return entry, content


def test_every_image_is_in_one_shard_of_its_split(dataset: Dataset) -> None:
    for split in ("train", "validation", "test"):
        shards = plan_shards(dataset, split=split)
        packed = [record for shard in shards for record in shard.records]
        assert sorted(packed, key=lambda record: record.path) == list(dataset.split(split))
        assert all(shard.name.startswith(f"{split}-") for shard in shards)


def test_shards_are_of_about_the_size_that_is_aimed_at(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "SHARD_BYTES", 5000)
    monkeypatch.setattr(packing, "TRAIN_SHARDS", 1)
    shards = plan_shards(dataset, split="train")
    sizes = [sum(record.size for record in shard.records) for shard in shards]
    assert len(sizes) > 5
    assert max(sizes) < 1.5 * 5000


def test_the_training_images_of_a_small_data_set_can_be_shared_out_too(dataset: Dataset) -> None:
    shards = plan_shards(dataset, split="train")
    assert len(shards) > 10
    assert len(plan_shards(dataset, split="test")) == 1
    classes = [{record.label for record in shard.records} for shard in shards]
    assert sum(len(labels) > 1 for labels in classes) > len(shards) / 2


def test_the_same_content_gives_the_same_bytes(dataset: Dataset, tmp_path: Path) -> None:
    again = write_files(tmp_path / "elsewhere")
    for file in again.root.rglob("*.png"):
        file.chmod(0o600)
    for one, other in zip(
        plan_shards(dataset, split="train"), plan_shards(again, split="train"), strict=True
    ):
        assert one == other
        packed = pack_shard(one, root=dataset.root)
        assert packed.getvalue() == pack_shard(other, root=again.root).getvalue()
        with tarfile.open(fileobj=packed) as archive:
            entries = archive.getmembers()
        assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)
        assert {(entry.uid, entry.uname, entry.mtime, entry.mode) for entry in entries} == {
            (0, "", 0, 0o644)
        }


def test_other_content_gives_another_name(dataset: Dataset) -> None:
    changed = replace(dataset.records[0], sha256="0" * 64)
    other = replace(dataset, records=(changed, *dataset.records[1:]))
    names = {shard.name for shard in plan_shards(dataset, split="train")}
    others = {shard.name for shard in plan_shards(other, split="train")}
    assert names - others
    assert not plan_shards(
        dataset.without([r.path for r in dataset.records], reason=""), split="test"
    )


def test_files_that_changed_or_went_are_all_named(dataset: Dataset) -> None:
    (shard,) = plan_shards(dataset, split="test")
    dataset.file(shard.records[0]).write_bytes(b"changed")
    dataset.file(shard.records[1]).unlink()
    with pytest.raises(UserError) as raised:
        pack_shard(shard, root=dataset.root)
    first, second, advice = raised.value.problems
    assert first == f"{shard.records[0].path!r} was changed since it was ingested"
    assert "No such file" in second
    assert "2 of the images" in advice


def test_unpacked_shards_are_the_files_again(dataset: Dataset, tmp_path: Path) -> None:
    archives = write_shards(dataset, tmp_path / "shards")
    unpacked = unpack_shards(archives, dataset=dataset, folder=tmp_path / "out")
    assert unpacked.paths == {record.path for record in dataset.records}
    for record in dataset.records:
        assert (unpacked.root / record.path).read_bytes() == dataset.file(record).read_bytes()
    check_complete(dataset.records, unpacked=unpacked, what="images", place="here")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "files",
        "out",
        "out.lock",
        "shards",
    ]


def test_shards_are_unpacked_once(dataset: Dataset, tmp_path: Path) -> None:
    archives = write_shards(dataset, tmp_path / "shards")
    once = unpack_shards(archives, dataset=dataset, folder=tmp_path / "out")
    for archive in archives:
        archive.unlink()
    assert unpack_shards(archives, dataset=dataset, folder=tmp_path / "out") == once


def test_a_part_of_the_shards_gives_a_part_of_the_files(dataset: Dataset, tmp_path: Path) -> None:
    archives = write_shards(dataset, tmp_path / "shards")
    part = archives[: len(archives) // 2]
    unpacked = unpack_shards(part, dataset=dataset, folder=tmp_path / "out")
    assert 0 < len(unpacked.paths) < len(dataset.records)
    assert unpacked_name(part, dataset=dataset) != unpacked_name(archives, dataset=dataset)
    with pytest.raises(UserError, match=r"lack \d+ images, such as 'größe"):
        check_complete(dataset.records, unpacked=unpacked, what="images", place="here")


def test_the_same_file_in_two_shards_is_written_once(dataset: Dataset, tmp_path: Path) -> None:
    archives = write_shards(dataset, tmp_path / "shards")
    copies = [path.with_name(f"copy-{path.name}") for path in archives]
    for archive, copy in zip(archives, copies, strict=True):
        copy.write_bytes(archive.read_bytes())
    unpacked = unpack_shards([*archives, *copies], dataset=dataset, folder=tmp_path / "out")
    assert len(unpacked.paths) == len(dataset.records)


def link_entry(name: str, kind: bytes) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, "/etc/passwd"
    return entry, b""


@pytest.mark.parametrize(
    "entry",
    [
        lambda name: file_entry("../escaped.png", b"content"),
        lambda name: file_entry("/tmp/escaped.png", b"content"),
        lambda name: file_entry("not in the manifest.png", b"content"),
        lambda name: file_entry(name, b"another size, " * 99),
        lambda name: link_entry(name, tarfile.SYMTYPE),
        lambda name: link_entry(name, tarfile.LNKTYPE),
        lambda name: link_entry(name, tarfile.CHRTYPE),
        lambda name: link_entry(name, tarfile.DIRTYPE),
    ],
)
def test_what_the_manifest_does_not_name_is_refused(
    dataset: Dataset, tmp_path: Path, entry: Callable[[str], tuple[tarfile.TarInfo, bytes]]
) -> None:
    archive = write_tar(tmp_path / "bad.tar", entry(dataset.records[0].path))
    with pytest.raises(UserError, match="is not in the manifest as a file of this size"):
        unpack_shards([archive], dataset=dataset, folder=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar", "files", "out.lock"]


def test_other_content_of_the_same_size_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    record = dataset.records[0]
    archive = write_tar(tmp_path / "bad.tar", file_entry(record.path, b"x" * record.size))
    with pytest.raises(UserError, match="does not have the content that the manifest says"):
        unpack_shards([archive], dataset=dataset, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_manifest_may_not_lead_out_of_the_folder(dataset: Dataset, tmp_path: Path) -> None:
    record = replace(dataset.records[0], path="../escaped.png")
    content = dataset.file(dataset.records[0]).read_bytes()
    hostile = replace(dataset, records=(record,))
    archive = write_tar(tmp_path / "bad.tar", file_entry(record.path, content))
    with pytest.raises(UserError, match=r"'\.\./escaped\.png' leads out of the folder"):
        unpack_shards([archive], dataset=hostile, folder=tmp_path / "out")
    assert not list(tmp_path.rglob("escaped.png"))


@pytest.mark.parametrize("cut", [300, 700, 1500])
def test_a_shard_that_is_cut_off_is_refused(dataset: Dataset, tmp_path: Path, cut: int) -> None:
    archives = write_shards(dataset, tmp_path / "shards")
    archives[-1].write_bytes(archives[-1].read_bytes()[:cut])
    with pytest.raises(UserError, match=r"damaged|content that the manifest"):
        unpack_shards(archives, dataset=dataset, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()
