"""What requests may hold, what answers come as, and what is asked for beside the classes."""

import asyncio
import base64
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darkroom.models.prediction import Predictor
from darkroom.serving.app import create_app
from darkroom.serving.content import read_files
from darkroom.serving.limits import MAX_IMAGES
from served import Client, encoded, served
from small_bundles import CLASSES, write_small_bundle

BOUNDARY = "a-line-between"


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(write_small_bundle(tmp_path_factory.mktemp("model") / "bundle"))


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[Client]:
    with served(create_app(predictor)) as client:
        yield client


def form(*files: bytes, name: str = "file") -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}{number}"; '
        f'filename="{number}.png"\r\nContent-Type: image/png\r\n\r\n'.encode()
        + file
        + b"\r\n"
        for number, file in enumerate(files)
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def send_form(client: Client, body: bytes) -> Any:
    return client.send(body=body, content_type=f"multipart/form-data; boundary={BOUNDARY}")


def npy(array: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def send_json(client: Client, content: Any) -> Any:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return client.send(body=body, content_type="application/json")


def test_a_form_with_several_images_is_answered_in_its_order(client: Client) -> None:
    answer = send_form(client, form(encoded("blue"), encoded("red"), encoded("green")))
    assert [row["class"] for row in answer.content["predictions"]] == ["blue", "red", "green"]
    assert answer.content["model_version"] == answer.headers["x-model-version"]


def test_a_form_with_one_image_is_a_list_of_one(client: Client) -> None:
    assert len(send_form(client, form(encoded())).content["predictions"]) == 1


@pytest.mark.parametrize("kind", ["image/jpg", "IMAGE/JPEG", "image/JPG; q=1"])
def test_what_others_call_a_jpeg_is_one(client: Client, kind: str) -> None:
    answer = client.send(body=encoded(kind="JPEG"), content_type=kind)
    assert (answer.status, answer.content["class"]) == (200, "red")


def test_base64_images_are_answered_as_they_are_asked(client: Client) -> None:
    red, blue = (base64.b64encode(encoded(colour)).decode() for colour in ("red", "blue"))
    assert send_json(client, {"image": red}).content["class"] == "red"
    assert send_json(client, {"image": f"data:image/png;base64,{blue}"}).content["class"] == "blue"
    for kind in ("data:image/JPEG;", "data:image/jpg;name=b.jpg;", "DATA:image/png;"):
        assert send_json(client, {"image": f"{kind}base64,{blue}"}).content["class"] == "blue", kind
    wrapped = base64.encodebytes(encoded("blue")).decode()
    assert "\n" in wrapped.strip()
    assert send_json(client, {"image": wrapped}).content["class"] == "blue"
    assert send_json(client, {"image": wrapped.replace("\n", "\r\n")}).content["class"] == "blue"
    several = send_json(client, {"images": [blue, red]}).content["predictions"]
    assert [row["class"] for row in several] == ["blue", "red"]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", ">f4"])
def test_preprocessed_arrays_are_answered_like_their_images(
    client: Client, predictor: Predictor, dtype: str
) -> None:
    images = np.stack([predictor.prepare(encoded(colour)) for colour in ("red", "green")])
    answer = client.send(body=npy(images.astype(dtype)), content_type="application/x-npy")
    assert [row["class"] for row in answer.content["predictions"]] == ["red", "green"]
    single = client.send(body=npy(images[1].astype(dtype)), content_type="application/x-npy")
    assert single.content["class"] == "green"


def test_an_array_in_fortrans_order_is_the_same_array(client: Client, predictor: Predictor) -> None:
    image = np.asfortranarray(predictor.prepare(encoded("blue")))
    answer = client.send(body=npy(image), content_type="application/x-npy")
    assert answer.content["class"] == "blue"


def test_a_csv_has_a_line_for_each_class_of_each_image(client: Client) -> None:
    answer = client.send(body=encoded("red"), headers={"Accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert (rows[0]["image"], rows[0]["class"]) == ("1", "red")


def test_an_npy_answer_holds_all_probabilities(client: Client, predictor: Predictor) -> None:
    answer = client.send(body=encoded("red"), headers={"Accept": "application/x-npy"})
    got = np.load(io.BytesIO(answer.content), allow_pickle=False)
    np.testing.assert_allclose(got, predictor.predict([encoded("red")]), atol=1e-6)
    assert got.shape == (1, len(CLASSES))


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("text/*", "text/csv"),
        ("text/html, text/csv;q=0.5", "text/csv"),
        ("application/json;q=0.1, application/x-npy", "application/x-npy"),
        ("application/json;q=0, text/csv", "text/csv"),
    ],
)
def test_the_accept_header_chooses_the_answers_form(client: Client, accept: str, kind: str) -> None:
    answer = client.send(body=encoded(), headers={"Accept": accept})
    assert answer.headers["content-type"].partition(";")[0] == kind


@pytest.mark.parametrize(
    "accept", ["image/png", "application/json;q=0", "application/json;q=x", "text/csv," * 65]
)
def test_an_answer_that_does_not_exist_is_told_which_do(client: Client, accept: str) -> None:
    answer = client.send(body=encoded(), headers={"Accept": accept})
    assert answer.status == 406
    assert "application/x-npy" in answer.content["error"]


def test_details_say_how_the_answer_came_to_be(client: Client) -> None:
    details = client.send(path="/invocations?details=true", body=encoded()).content["details"]
    assert details["engine"] == "onnxruntime"
    assert details["batch_size"] == 1
    assert details["predict_ms"] > 0
    custom = client.send(body=encoded(), custom_attributes="top_k=1;details=on")
    assert custom.content["details"]
    assert len(custom.content["top_k"]) == 1


@pytest.mark.parametrize(("query", "words"), [("details=perhaps", "true or false"), ("k=3", "'k'")])
def test_an_option_that_is_none_is_refused(client: Client, query: str, words: str) -> None:
    answer = client.send(path=f"/invocations?{query}", body=encoded())
    assert answer.status == 400
    assert words in answer.content["error"]


def test_the_time_that_was_spent_is_in_a_header(client: Client) -> None:
    header = client.send(body=encoded()).headers["server-timing"]
    assert {part.partition(";")[0] for part in header.split(", ")} == {"decode", "queue", "predict"}


REFUSED_JSON: list[tuple[Any, str]] = [
    (b"{", "no valid JSON"),
    (b"[" * 100_000, "more than images or URLs"),
    (b"[" * 4000, "no valid JSON"),
    (b"\xff\xfe", "no valid JSON"),
    ([], "accepted is"),
    ({}, "accepted is"),
    ({"url": "a", "urls": ["b"]}, "accepted is"),
    ({"picture": "a"}, "picture"),
    ({"images": []}, "at least one"),
    ({"images": "abc"}, "list"),
    ({"images": [1]}, "no text"),
    ({"image": {"$ref": "x"}}, "no text"),
    ({"image": "no base64!"}, "image 1 is no valid base64"),
    ({"image": "bm8gaW1hZ2U="}, "not an image"),
    ({"images": ["bm8gaW1hZ2U="]}, "not an image"),
    ({"url": "https://example.com/a.jpg"}, "--allow-urls"),
]


@pytest.mark.parametrize(("content", "words"), REFUSED_JSON, ids=lambda value: str(value)[:30])
def test_json_that_is_no_question_is_refused(client: Client, content: Any, words: str) -> None:
    answer = send_json(client, content)
    assert answer.status == 400
    assert words in answer.content["error"]


REFUSED_FORMS: list[tuple[bytes, str]] = [
    (b"no form", "form"),
    (f"--{BOUNDARY}--\r\n".encode(), "no file"),
    (form(encoded(), b"no image"), "image 2: not an image"),
    (form(encoded(), encoded())[:-8], "cut off"),  # the first of them is whole
    (form(encoded())[:-30], "cut off"),
    (
        b'--%s\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--%s--\r\n'
        % (BOUNDARY.encode(), BOUNDARY.encode()),
        "file field",
    ),
]


@pytest.mark.parametrize(("body", "words"), REFUSED_FORMS)
def test_a_form_without_usable_images_is_refused(client: Client, body: bytes, words: str) -> None:
    answer = send_form(client, body)
    assert answer.status == 400
    assert words in answer.content["error"]


def test_a_form_without_a_boundary_is_refused(client: Client) -> None:
    answer = client.send(body=form(encoded()), content_type="multipart/form-data")
    assert answer.status == 400


def test_too_many_images_are_refused(client: Client) -> None:
    many = MAX_IMAGES + 1
    assert send_form(client, form(*[encoded()] * many)).status == 413
    text = base64.b64encode(encoded()).decode()
    assert send_json(client, {"images": [text] * many}).status == 413
    arrays = np.zeros((many, 3, 16, 16), dtype=np.float32)
    assert client.send(body=npy(arrays), content_type="application/x-npy").status == 413


class Pickled:
    """Would be noticed if anybody unpickled it."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("unpickled"),)


def header(text: str) -> bytes:
    content = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content


REFUSED_ARRAYS: list[tuple[bytes, str]] = [
    (b"no array", "no .npy file"),
    (npy(np.zeros((3, 16, 16), dtype=np.int64)), "int64"),
    (npy(np.zeros((3, 8, 8), dtype=np.float32)), "(3, 8, 8)"),
    (npy(np.zeros((0, 3, 16, 16), dtype=np.float32)), "no image"),
    (npy(np.full((3, 16, 16), np.nan, dtype=np.float32)), "not finite"),
    (npy(np.zeros((3, 16, 16), dtype=np.float32))[:-9], "bytes follow"),
    (header("{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000000,)}"), "bytes follow"),
    (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"), "bytes follow"),
    (header("{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}") + bytes(4), "whole"),
    (header("{'descr': '|O', 'fortran_order': False, 'shape': ()}"), "object"),
    (header("__import__('os').abort()"), "no .npy file"),
    (header("(" * 3000), "no .npy file"),
]


@pytest.mark.parametrize(("body", "words"), REFUSED_ARRAYS)
def test_an_array_that_is_no_image_is_refused(client: Client, body: bytes, words: str) -> None:
    answer = client.send(body=body, content_type="application/x-npy")
    assert answer.status == 400
    assert words in answer.content["error"]


def test_a_pickle_is_refused_without_being_read(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    body = npy(np.array([Pickled()], dtype=object), allow_pickle=True)
    answer = client.send(body=body, content_type="application/x-npy")
    assert answer.status == 400
    assert not (tmp_path / "unpickled").exists()


def test_batch_transform_is_told_what_to_ask_for(client: Client) -> None:
    parameters = client.send("GET", "/execution-parameters").content
    assert parameters["BatchStrategy"] == "SINGLE_RECORD"
    assert parameters["MaxPayloadInMB"] == 6


def test_a_form_that_is_slow_to_parse_holds_up_nobody_else() -> None:
    """Carriage returns are what the parser is slowest with: each may begin a boundary."""
    content = b"\r" * 3_000_000
    body = form(content)

    async def parse_beside_others() -> tuple[list[bytes], int]:
        parsing = asyncio.create_task(
            read_files(body, content_type=f"multipart/form-data; boundary={BOUNDARY}")
        )
        served = 0
        while not parsing.done():
            await asyncio.sleep(0)
            served += 1
        return await parsing, served

    files, served = asyncio.run(parse_beside_others())
    assert files == [content]
    assert served > 20
