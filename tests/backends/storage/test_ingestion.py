"""Every kind of source, from its name to a data set."""

import errno
import json
import os
import shutil
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from checkout import PHOTOGRAPHS
from darkroom.backends.storage.ingestion import describe_source, ingest, source_version
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.files import sha256_of
from darkroom.config import DataConfig
from darkroom.data import hashes, local
from darkroom.data.dataset import Dataset

_CLOTHING = PHOTOGRAPHS / "clothing-small.tar"


def _ingest(source: Path | str, store: Path, **config: object) -> Dataset:
    return ingest(str(source), config=DataConfig(**config), seed=7, store=store)


def _archive(folder: Path, path: Path, *, top: str = ".") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=top)
    return path


def test_a_folder_is_used_where_it_lies(image_folder: Callable[..., Path], tmp_path):
    root = image_folder(per_class=20)
    dataset = _ingest(root, tmp_path / "store")
    assert dataset.root == root
    assert dataset.classes == ("blue", "green", "red")
    assert dataset.counts() == {
        "train": dict.fromkeys(dataset.classes, 14),
        "validation": dict.fromkeys(dataset.classes, 3),
        "test": dict.fromkeys(dataset.classes, 3),
    }
    for record in dataset.records[:5]:
        assert record.sha256 == sha256_of(dataset.file(record))
        assert record.size == dataset.file(record).stat().st_size


def test_an_archive_gives_the_same_data_set_as_its_folder(image_folder, tmp_path):
    root = image_folder(splits=("train", "valid", "test"), per_class=3)
    archive = _archive(root, tmp_path / "images.tgz", top="dogImages")
    from_folder = _ingest(root, tmp_path / "store")
    from_archive = _ingest(archive, tmp_path / "store")
    assert from_archive.fingerprint == from_folder.fingerprint
    assert from_archive.root != from_folder.root


def test_the_fingerprint_does_not_depend_on_where_or_when(image_folder, tmp_path):
    root = image_folder()
    before = _ingest(root, tmp_path / "store").fingerprint
    moved = shutil.copytree(root, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    assert _ingest(moved, tmp_path / "other store").fingerprint == before


def test_copies_of_one_image_are_not_parted(image_folder, tmp_path):
    root = image_folder(per_class=30)
    for number in range(10):
        shutil.copy(root / "red/0000.png", root / f"red/copy{number}.png")
    dataset = _ingest(root, tmp_path / "store")
    split_of = {(record.sha256, record.split) for record in dataset.records}
    assert len(split_of) == 90


@pytest.mark.slow
def test_the_embedded_digits_are_written_as_they_are(tmp_path):
    dataset = _ingest("digits", tmp_path)
    digits = load_digits()
    assert len(dataset.records) == len(digits.target) == 1797
    assert dataset.classes == tuple("0123456789")
    assert min(min(split.values()) for split in dataset.counts().values()) >= 20
    for position in (0, 900, 1796):
        label = digits.target[position]
        with Image.open(dataset.root / str(label) / f"{position:04d}.png") as image:
            assert (image.mode, image.size) == ("L", (8, 8))
            assert np.allclose(np.asarray(image) / 255 * 16, digits.images[position], atol=0.04)


def test_the_digits_are_written_once(tmp_path):
    first = _ingest("digits", tmp_path)
    written = first.file(first.records[0]).stat().st_mtime_ns
    assert _ingest("digits", tmp_path) == first
    assert first.file(first.records[0]).stat().st_mtime_ns == written


@pytest.mark.slow
def test_digits_that_were_replaced_are_written_again(tmp_path):
    first = _ingest("digits", tmp_path)
    for path in (first.root / "3").iterdir():
        Image.new("L", (8, 8)).save(path)
    assert _ingest("digits", tmp_path).fingerprint == first.fingerprint


def test_polyvore_is_read_by_its_outfits(tmp_path):
    for outfit in ("1", "2", "3"):
        (tmp_path / "images" / outfit).mkdir(parents=True)
        for item in (1, 2):
            (tmp_path / "images" / outfit / f"{item}.jpg").write_bytes(f"{outfit}{item}".encode())
    for name, outfit in (("train", "1"), ("valid", "2"), ("test", "3")):
        items = [{"index": 1, "categoryid": 4}, {"index": 2, "categoryid": 5}]
        (tmp_path / f"{name}_no_dup.json").write_text(
            json.dumps([{"set_id": outfit, "items": items}])
        )
    classes = {"hat": (4,), "shoe": (5,)}
    dataset = _ingest(f"polyvore:{tmp_path}", tmp_path / "store", polyvore_classes=classes)
    one_each = {"hat": 1, "shoe": 1}
    assert dataset.counts() == {"train": one_each, "validation": one_each, "test": one_each}
    config = DataConfig(polyvore_classes=classes)
    description = describe_source(f"polyvore:{tmp_path}", config=config).line
    assert "6 images in 2 classes (2 train, 2 validation, 2 test)" in description


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which a server of this machine offers it."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(_QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        pass


def test_an_address_gives_the_same_data_set_as_its_folder(image_folder, tmp_path, served):
    folder, address = served
    root = image_folder()
    size = _archive(root, folder / "a.tgz").stat().st_size
    url = f"{address}/a.tgz"
    dataset = _ingest(f"{url}?token=secret", tmp_path / "store")
    assert dataset.fingerprint == _ingest(root, tmp_path / "store").fingerprint
    assert dataset.source == url
    description = describe_source(url, config=DataConfig()).line
    assert description == f"{url}: reachable, {size / 1e6:,.1f} MB"
    with pytest.raises(UserError, match=r"more than data\.maximum_archive_bytes"):
        describe_source(url, config=DataConfig(maximum_archive_bytes=10))


def test_the_version_of_an_address_changes_with_its_file(image_folder, served):
    folder, address = served
    archive = _archive(image_folder(), folder / "a.tgz")
    before = source_version(f"{address}/a.tgz", config=DataConfig())
    assert source_version(f"{address}/a.tgz", config=DataConfig()) == before
    os.utime(archive, (1, 1))
    assert source_version(f"{address}/a.tgz", config=DataConfig()) != before


def test_an_address_of_a_page_is_refused(served, tmp_path):
    folder, address = served
    (folder / "a.zip").write_text("<html>Log in first</html>")
    with pytest.raises(UserError, match="is a web page, not a file"):
        _ingest(f"{address}/a.zip", tmp_path / "store")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "'nowhere' does not exist"),
        ("", "names nothing"),
        ("ftp://host/a.zip", "unknown scheme 'ftp'"),
        ("polyvore:", "names nothing"),
        (__file__, "no(r an)? archive"),
        ("s3://", "names no bucket"),
    ],
)
def test_a_source_that_cannot_be_is_refused_everywhere(tmp_path, source, message):
    config = DataConfig()
    for attempt in (
        lambda: ingest(source, config=config, seed=1, store=tmp_path / "store"),
        lambda: source_version(source, config=config),
        lambda: describe_source(source, config=config).line,
    ):
        with pytest.raises(UserError, match=message):
            attempt()


@pytest.mark.parametrize(
    ("files", "message"),
    [([], "is empty"), (["a.txt"], "no images"), (["cat/1.jpg"], "one class only, 'cat'")],
)
def test_a_folder_that_cannot_be_trained_on_is_refused_everywhere(tmp_path, files, message):
    root = tmp_path / "images"
    root.mkdir()
    for name in files:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    for attempt in (
        lambda: _ingest(root, tmp_path / "store"),
        lambda: source_version(str(root), config=DataConfig()),
        lambda: describe_source(str(root), config=DataConfig()).line,
    ):
        with pytest.raises(UserError, match=message):
            attempt()


def test_images_without_an_extension_are_found_by_their_content(image_folder, tmp_path):
    root = image_folder(per_class=6)
    for path in list(root.rglob("*.png")):
        path.rename(path.with_suffix(""))
    (root / "red/README").write_text("no image")
    archive = _archive(root, tmp_path / "a.tgz")
    for source in (root, archive):
        assert "18 images in 3 classes" in str(describe_source(str(source), config=DataConfig()))
        dataset = _ingest(source, tmp_path / "store")
        assert len(dataset.records) == 18
        assert sum(count for _, count in dataset.left_out) == 1


def test_archives_inside_an_archive_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as outer:
        for name in ("train.zip", "test.zip"):
            outer.writestr(name, b"PK")
    with pytest.raises(UserError, match="2 × archive inside the source, which is not unpacked"):
        describe_source(str(tmp_path / "outer.zip"), config=DataConfig())


def test_an_archive_of_one_class_is_refused_before_it_is_unpacked(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.jpg").write_bytes(b"x")
    archive = _archive(tmp_path / "cat", tmp_path / "a.tgz", top="cat")
    with pytest.raises(UserError, match="one class only"):
        describe_source(str(archive), config=DataConfig())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_refused(image_folder, tmp_path):
    root = image_folder()
    (root / "red").chmod(0)
    with pytest.raises(UserError, match=r"red' may not be read"):
        _ingest(root, tmp_path / "store")
    (root / "red").chmod(0o755)


def test_sources_are_described_in_one_line(image_folder, tmp_path):
    root = image_folder(per_class=4)
    archive = _archive(root, tmp_path / "a.tgz")
    made = "12 images in 3 classes (12 train; validation and test will be taken from train)"
    config = DataConfig()
    assert describe_source(str(root), config=config).line == f"{root}: {made}"
    assert describe_source(str(archive), config=config).line == f"{archive}: {made}"
    assert "1,797 images in 10 classes" in describe_source("digits", config=config).line


def test_the_version_of_a_folder_is_that_of_its_content(image_folder):
    root = image_folder()

    def version() -> str:
        return source_version(str(root), config=DataConfig())

    before = version()
    os.utime(root / "red/0000.png", ns=(1, 1))
    assert version() == before
    (root / "red/0000.png").rename(root / "red/renamed.png")
    renamed = version()
    (root / "red/renamed.png").unlink()
    assert len({before, renamed, version()}) == 3


def test_labels_put_right_by_renaming_folders_change_version_and_fingerprint(
    image_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(hashes, "_SETTLED_NS", -(10**9))
    root = image_folder()
    for path in root.rglob("*.png"):
        path.write_bytes(path.read_bytes().ljust(10_000))
        os.utime(path, (1.7e9, 1.7e9))
    found = []
    for _ in range(2):
        version = source_version(str(root), config=DataConfig(), store=tmp_path / "store")
        found.append((version, _ingest(root, tmp_path / "store").fingerprint))
        for one, other in (("red", "swap"), ("blue", "red"), ("swap", "blue")):
            (root / one).rename(root / other)
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]


def test_the_version_of_an_archive_changes_with_its_content(image_folder, tmp_path):
    root = image_folder()
    archive = _archive(root, tmp_path / "a.tgz")
    before = source_version(str(archive), config=DataConfig())
    assert source_version(str(archive), config=DataConfig()) == before
    (root / "red/0000.png").unlink()
    time.sleep(0.01)
    _archive(root, archive)
    assert source_version(str(archive), config=DataConfig()) != before


def test_the_version_of_the_digits_names_scikit_learn():
    assert source_version("digits", config=DataConfig()).startswith("digits-1.")


def test_a_full_disk_is_told_and_leaves_nothing_behind(image_folder, tmp_path, monkeypatch):
    def write_to_a_full_disk(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = _archive(image_folder(), tmp_path / "a.tgz")
    with monkeypatch.context() as patched:
        patched.setattr(local.shutil, "copyfileobj", write_to_a_full_disk)
        with pytest.raises(DarkroomError, match=r"disk of .* is full"):
            _ingest(archive, tmp_path / "store")
    assert list((tmp_path / "store/unpacked").iterdir()) == []
    assert len(_ingest(archive, tmp_path / "store").records) == 36


def test_an_interruption_while_unpacking_leaves_nothing_behind(image_folder, tmp_path, monkeypatch):
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    archive = _archive(image_folder(), tmp_path / "a.tgz")
    monkeypatch.setattr(local.shutil, "copyfileobj", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _ingest(archive, tmp_path / "store")
    assert list((tmp_path / "store/unpacked").iterdir()) == []


@pytest.mark.skipif(not _CLOTHING.exists(), reason="the real photographs are not there")
def test_real_photographs_are_described(tmp_path):
    assert describe_source(str(_CLOTHING), config=DataConfig()).line.endswith(
        "3,409 images in 10 classes (3,068 train, 341 validation; test will be taken from train)"
    )


@pytest.mark.slow
def test_sixty_thousand_files_are_ingested_in_seconds(tmp_path):
    for label in range(100):
        folder = tmp_path / "images" / f"class {label}"
        folder.mkdir(parents=True)
        for number in range(600):
            (folder / f"{number}.png").write_bytes(f"{label} {number}".encode())
    started = time.process_time()
    source_version(str(tmp_path / "images"), config=DataConfig())
    versioned = time.process_time()
    assert len(_ingest(tmp_path / "images", tmp_path / "store").records) == 60_000
    assert versioned - started < 20
    assert time.process_time() - versioned < 60
