"""The bundle as files: read, packed, unpacked, and refused when it is not what it was."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from darkroom.base.errors import UserError
from darkroom.images import Preprocessing
from darkroom.models.bundle import (
    METADATA_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    BundleMetadata,
    open_bundle,
    pack,
    read_bundle,
    read_metadata,
    unpack,
)
from small_bundles import CLASSES, write_small_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_small_bundle(tmp_path / "bundle")


def archive_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_metadata_is_read_and_without_a_seal_its_version_follows_the_weights(bundle: Path) -> None:
    """As those of before the seal: their versions stay what they were."""
    metadata = read_metadata(bundle)
    assert metadata.classes == CLASSES
    assert not metadata.seal
    assert metadata.version == metadata.files[WEIGHTS_FILE][:12]


def changed(metadata: BundleMetadata, **values: Any) -> BundleMetadata:
    return metadata.model_copy(update=values).sealed()


def test_the_version_changes_with_all_that_changes_an_answer(bundle: Path) -> None:
    metadata = read_metadata(bundle).sealed()
    how = metadata.preprocessing
    others = [
        changed(metadata, classes=metadata.classes[::-1]),
        changed(metadata, engine="openvino"),
        changed(metadata, files=metadata.files | {ONNX_FILE: "0" * 64}),
        changed(metadata, files=metadata.files | {WEIGHTS_FILE: "0" * 64}),
        changed(metadata, preprocessing=how.model_copy(update={"image_size": 7})),
        changed(
            metadata,
            preprocessing=how.model_copy(update={"reduced_decoding": not how.reduced_decoding}),
        ),
    ]
    versions = {one.version for one in (metadata, *others)}
    assert len(versions) == 1 + len(others)
    assert all(len(version) == 12 for version in versions)
    assert changed(metadata, metrics={"accuracy": 0.1}).version == metadata.version


@pytest.mark.parametrize("field", sorted(Preprocessing.model_fields))
def test_a_preprocessing_that_was_edited_is_refused(bundle: Path, field: str) -> None:
    path = bundle / METADATA_FILE
    packed = read_metadata(bundle).sealed()
    value = getattr(packed.preprocessing, field)
    other: dict[type, Any] = {bool: not value, int: 99, tuple: (0.4, 0.4, 0.4)}
    edited = packed.preprocessing.model_copy(update={field: other[type(value)]})
    path.write_text(packed.model_copy(update={"preprocessing": edited}).model_dump_json())
    with pytest.raises(UserError, match=r"preprocessing in .* edited"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", [ONNX_FILE, WEIGHTS_FILE])
def test_a_changed_byte_is_found(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}.*SHA-256 differs"):
        read_metadata(bundle)


def test_all_missing_files_are_reported_at_once(bundle: Path) -> None:
    (bundle / ONNX_FILE).unlink()
    (bundle / WEIGHTS_FILE).unlink()
    with pytest.raises(UserError) as caught:
        read_metadata(bundle)
    assert len(caught.value.problems) == 2


def test_a_folder_without_metadata_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no model\.json"):
        read_metadata(tmp_path)


@pytest.mark.parametrize(
    "change", [{"classes": ["one"]}, {"surprise": 1}, {"schema_version": 2}, {"files": 3}]
)
def test_malformed_metadata_is_refused(bundle: Path, change: dict[str, object]) -> None:
    path = bundle / METADATA_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=next(iter(change))):
        read_metadata(bundle)


def test_metadata_that_is_no_json_is_refused(bundle: Path) -> None:
    (bundle / METADATA_FILE).write_bytes(b"{")
    with pytest.raises(UserError, match="not valid bundle metadata"):
        read_metadata(bundle)


def test_an_archive_unpacks_to_the_same_files(bundle: Path, tmp_path: Path) -> None:
    pack(bundle, tmp_path / "model.tar.gz")
    with open_bundle(tmp_path / "model.tar.gz") as folder:
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
            file.name: file.read_bytes() for file in bundle.iterdir()
        }
    assert not folder.exists()


def test_the_same_content_packs_to_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    pack(bundle, tmp_path / "a.tar.gz")
    for file in bundle.iterdir():
        os.utime(file, (0, 0))
        file.chmod(0o600)
    pack(bundle, tmp_path / "b.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


@pytest.mark.parametrize("name", ["../model.json", "/model.json", "code/inference.py", "pickle"])
def test_an_unexpected_member_is_refused_and_nothing_of_it_written(
    tmp_path: Path, name: str
) -> None:
    archive = archive_of(tmp_path / "model.tar.gz", {name: b"x"})
    (tmp_path / "into").mkdir()
    with pytest.raises(UserError, match="unexpected"):
        unpack(archive, tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []
    assert not (tmp_path / "model.json").exists()


def test_a_link_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo(METADATA_FILE)
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(UserError, match="unexpected"), open_bundle(tmp_path / "model.tar.gz"):
        pass


def test_a_truncated_archive_is_refused(bundle: Path, tmp_path: Path) -> None:
    pack(bundle, tmp_path / "model.tar.gz")
    content = (tmp_path / "model.tar.gz").read_bytes()
    (tmp_path / "model.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="no readable model bundle"):
        unpack(tmp_path / "model.tar.gz", tmp_path / "into")


def test_neither_a_missing_path_nor_another_file_is_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no archive")
    for name, words in (("missing", "no model bundle at"), ("notes.txt", "no readable")):
        with pytest.raises(UserError, match=words), open_bundle(tmp_path / name):
            pass


def test_classes_in_another_order_than_they_were_packed_in_are_refused(bundle: Path) -> None:
    path = bundle / METADATA_FILE
    packed = BundleMetadata.model_validate_json(path.read_bytes()).sealed()
    path.write_text(packed.model_dump_json())
    assert read_bundle(bundle).metadata == packed
    swapped = packed.model_copy(update={"classes": packed.classes[::-1]})
    path.write_text(swapped.model_dump_json())
    with pytest.raises(UserError, match="their order"):
        read_bundle(bundle)


def test_a_class_name_given_twice_is_refused(bundle: Path) -> None:
    path = bundle / METADATA_FILE
    content = json.loads(path.read_text())
    first = content["classes"][0]
    path.write_text(json.dumps(content | {"classes": [first] * len(content["classes"])}))
    with pytest.raises(UserError, match=f"called '{first}'"):
        read_bundle(bundle)
