"""What `predict` finds in files, folders, archives, URLs and standard input."""

import gzip
import io
import os
import random
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from PIL import Image

from darkroom.batch.prediction import predict_images, predict_sources
from darkroom.data import inputs
from darkroom.data.found_image import FoundImage
from darkroom.data.inputs import count, images_of, look_at
from darkroom.models.prediction import Predictor
from old_zips import zip_in
from small_bundles import write_small_bundle

PICTURES = {"a/red/1.png": "red", "a/blue/2.jpg": "blue", "b/3.png": "lime"}

NOISE = random.Random(1).randbytes(200_000)
"""It does not get smaller, so that half an archive of it holds half of it."""


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor.load(write_small_bundle(tmp_path / "bundle"), threads=1)


def content_of(name: str) -> bytes:
    stream = io.BytesIO()
    kind = "JPEG" if name.endswith(".jpg") else "PNG"
    Image.new("RGB", (20, 24), PICTURES[name]).save(stream, kind)
    return stream.getvalue()


def write_zip(path: Path, more: Mapping[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in PICTURES:
            archive.writestr(name, content_of(name))
        for name, content in (more or {}).items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, *, mode: str) -> Path:
    with tarfile.open(path, mode) as archive:
        for name in PICTURES:
            content = content_of(name)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_folder(root: Path) -> Path:
    for name in PICTURES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content_of(name))
    return root


def found(*sources: str | Path) -> list[FoundImage]:
    return list(images_of(look_at([str(source) for source in sources])))


@pytest.mark.parametrize("by", ["name", "pipe"])
def test_a_zip_of_an_old_packer_is_read_as_told(tmp_path: Path, by: str) -> None:
    pictures = {name: content_of("b/3.png") for name in ("ソファ/1.png", "帽子/2.png")}
    archive = zip_in("cp932", tmp_path / "x.zip", pictures)
    source, stdin = (str(archive), None) if by == "name" else ("-", archive.open("rb"))

    def rows(encoding: str) -> list[FoundImage]:
        if stdin:
            stdin.seek(0)
        return list(images_of(look_at([source]), zip_encoding=encoding, stdin=stdin))

    (refused,) = rows("")
    assert refused.error is not None
    assert "predict: --zip-encoding" in refused.error
    assert [row.folders[0] for row in rows("cp932")] == ["ソファ", "帽子"]
    assert [row.source.rpartition("/")[2] for row in rows("cp932")] == ["1.png", "2.png"]
    (wrong,) = rows("utf-8")
    assert "not 'utf-8', as data.zip_encoding" in str(wrong.error)
    if stdin:
        stdin.close()


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_is_classified_as_its_folder_is(
    kind: str, predictor: Predictor, tmp_path: Path
) -> None:
    path = tmp_path / "pictures"
    archive = write_zip(path) if kind == "zip" else write_tar(path, mode=kind)
    rows = predict_sources([str(archive)], predictor=predictor)
    assert [row.source for row in rows] == [f"{archive}/{name}" for name in PICTURES]
    assert [row.class_name for row in rows] == ["red", "blue", "green"]


def test_folders_tell_the_class_however_deep_below_it_an_image_lies(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "x.zip", {"red/deep/deeper/4.png": content_of("b/3.png")})
    folder = write_folder(tmp_path / "green")
    known = {"red", "blue", "green"}
    assert [one.label(known) for one in found(archive)] == ["red", "blue", None, "red"]
    assert [one.label(known) for one in found(folder)] == ["blue", "red", "green"]
    assert [one.label(known) for one in found(folder / "a/red/1.png")] == ["red"]
    assert [one.label(known) for one in found(folder / "b/3.png")] == [None]


def test_nothing_of_an_archive_is_written_anywhere(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_zip(tmp_path / "x.zip", {"../outside.png": b"", "notes.txt": b"text"})
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    rows = predict_sources([str(archive)], predictor=predictor)
    assert sorted(tmp_path.rglob("*")) == before
    assert [row.class_name for row in rows] == ["red", "blue", "green", None]
    assert "leads out of the folder" in str(rows[-1].error)
    assert rows[-1].source == str(archive)


def test_an_archive_that_ends_too_early_is_used_as_far_as_it_goes(
    predictor: Predictor, tmp_path: Path
) -> None:
    archive = tmp_path / "x.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        for name, content in {"1.png": content_of("a/red/1.png"), "2.png": NOISE}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    archive.write_bytes(archive.read_bytes()[:100_000])
    rows = predict_sources([str(archive)], predictor=predictor)
    assert rows[0].class_name == "red"
    assert "cannot be read" in str(rows[-1].error)
    assert str(archive) in str(rows[-1].error)


def test_a_broken_entry_is_a_row_and_the_others_are_classified(
    predictor: Predictor, tmp_path: Path
) -> None:
    archive = write_zip(tmp_path / "x.zip")
    content = archive.read_bytes()
    picture = content_of("a/blue/2.jpg")
    archive.write_bytes(content.replace(picture, bytes(len(picture))))
    rows = predict_sources([str(archive)], predictor=predictor)
    assert [row.class_name for row in rows] == ["red", None, "green"]
    assert "CRC" in str(rows[1].error)


def test_entries_and_archives_beyond_the_limits_are_rows(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_zip(tmp_path / "x.zip", {"large.png": bytes(5000), ".hidden.png": b""})
    monkeypatch.setattr(inputs, "MAX_IMAGE_BYTES", 4000)
    rows = predict_sources([str(archive)], predictor=predictor)
    assert [bool(row.error) for row in rows] == [False, False, False, True]
    assert "larger than" in str(rows[-1].error)
    monkeypatch.setattr(inputs, "MAX_FILES", 2)
    assert "more than 2 files" in str(
        predict_sources([str(archive)], predictor=predictor)[-1].error
    )


def test_an_archive_without_images_says_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.docx", "w") as archive:
        archive.writestr("word/document.xml", "text")
    (row,) = found(tmp_path / "x.docx")
    assert row.error == "the archive holds no images"


def test_rows_are_known_beforehand_where_nothing_has_to_be_opened(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    assert count(look_at([str(folder), "missing.png", str(folder / "b/3.png")])) == 5
    archive = write_zip(tmp_path / "x.zip")
    assert count(look_at([str(folder), str(archive)])) is None


def test_what_is_no_source_is_a_row_that_says_why(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    rows = found("s3://bucket/cats", tmp_path / "pipe", "x" * 5000, "", tmp_path / "missing")
    assert "unknown kind of address" in str(rows[0].error)
    assert "neither a file nor a folder" in str(rows[1].error)
    assert "cannot be read: File name too long" in str(rows[2].error)
    assert [row.error for row in rows[3:]] == ["names nothing", "no such file or folder"]


def test_a_name_that_is_no_text_can_be_written(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"\xff.png")
    with open(path, "wb") as file:
        file.write(content_of("b/3.png"))
    (row,) = found(tmp_path / os.fsdecode(b"\xff.png"))
    assert row.source.encode().endswith(rb"\udcff.png")
    assert row.error is None


@pytest.mark.parametrize("kind", ["image", "archive", "nothing"])
def test_standard_input_is_an_image_or_an_archive(kind: str, tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "x.zip")
    content = {"image": content_of("b/3.png"), "archive": archive.read_bytes(), "nothing": b""}
    rows = list(images_of(look_at(["-"]), stdin=io.BytesIO(content[kind])))
    expected = {
        "image": ["-"],
        "archive": [f"-/{name}" for name in PICTURES],
        "nothing": ["-"],
    }
    assert [row.source for row in rows] == expected[kind]
    assert bool(rows[0].error) == (kind == "nothing")


def test_only_a_few_images_are_held_at_a_time(predictor: Predictor) -> None:
    taken = 0

    def images() -> Iterator[FoundImage]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield FoundImage(str(number), content=content_of("b/3.png"))

    rows = predict_images(images(), predictor=predictor)
    assert next(rows)[1].class_name == "green"
    assert taken <= 32
    rows.close()


class _Pictures(BaseHTTPRequestHandler):
    files: Mapping[str, bytes] = {}

    def do_GET(self) -> None:
        content = self.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        if "encoded" in self.path:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        with suppress(ConnectionError):  # whoever has seen enough hangs up
            self.wfile.write(content or b"")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    archive = write_tar(tmp_path / "x.tar.gz", mode="w:gz").read_bytes()
    _Pictures.files = {"/red.png": content_of("a/red/1.png"), "/all": archive, "/large": bytes(999)}
    with HTTPServer(("127.0.0.1", 0), _Pictures) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_urls_are_fetched_and_unreachable_ones_are_rows(predictor: Predictor, site: str) -> None:
    urls = [f"{site}/red.png", f"{site}/other.png", "http://127.0.0.1:1/a.png", "http://"]
    one, missing, unreachable, wrong = predict_sources(urls, predictor=predictor)
    assert one.class_name == "red"
    assert "HTTP status 404" in str(missing.error)
    assert "no connection" in str(unreachable.error)
    assert "cannot be fetched" in str(wrong.error)


def test_a_url_of_an_archive_is_one_by_its_content(predictor: Predictor, site: str) -> None:
    rows = predict_sources([f"{site}/all"], predictor=predictor)
    assert [row.source for row in rows] == [f"{site}/all/{name}" for name in PICTURES]
    assert [row.class_name for row in rows] == ["red", "blue", "green"]


def test_what_is_encoded_unasked_is_decoded_and_what_is_only_labelled_is_taken_as_it_is(
    predictor: Predictor, site: str
) -> None:
    picture = content_of("a/red/1.png")
    _Pictures.files = {
        "/encoded.png": gzip.compress(picture),
        "/encoded-not.png": picture,
        "/encoded.tgz": _Pictures.files["/all"],
    }
    rows = predict_sources([f"{site}{path}" for path in _Pictures.files], predictor=predictor)
    assert [row.class_name for row in rows] == ["red", "red", "red", "blue", "green"]


def test_a_web_page_in_place_of_an_image_is_named(site: str) -> None:
    _Pictures.files = {"/page.png": b"<!doctype html><title>Log in</title>"}
    (row,) = found(f"{site}/page.png")
    assert "a web page, not an image" in str(row.error)


def test_a_url_that_sends_too_much_is_given_up(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_IMAGE_BYTES", 900)
    (row,) = found(f"{site}/large")
    assert "larger than" in str(row.error)


def test_a_url_that_takes_too_long_is_given_up(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_IMAGE_SECONDS", -1)
    (row,) = found(f"{site}/red.png")
    assert "not fetched within" in str(row.error)


@pytest.mark.parametrize("rest", ["127.0.0.1:1/a.png?id=3", "127.0.0.1:99999/", "/", "[::1/"])
def test_a_password_in_a_url_is_in_no_row(rest: str) -> None:
    (row,) = found(f"http://me:secret@{rest}")
    assert row.source == f"http://{rest}"
    assert "secret" not in str(row)


def test_sources_are_looked_at_without_fetching_anything() -> None:
    assert inputs.look_at(["http://127.0.0.1:1/x", "-"])[0].images is None
