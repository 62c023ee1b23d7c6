"""The `serve` program and what it answers over HTTP."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from darkroom.base.errors import DarkroomError
from darkroom.models.bundle import ONNX_FILE, pack
from darkroom.models.prediction import Predictor
from darkroom.serving import program as serving
from darkroom.serving.app import ServerContext, create_app
from darkroom.serving.limits import MAX_BODY_BYTES
from darkroom.serving.settings import ServingSettings
from served import Answer, Client, encoded, program, served
from small_bundles import write_small_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("model") / "bundle")


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return Predictor.load(bundle, threads=1)


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[Client]:
    with served(create_app(predictor)) as client:
        yield client


def test_ping_answers_when_the_model_works(client: Client, predictor: Predictor) -> None:
    answer = client.send("GET", "/ping")
    assert answer.status == 200
    assert answer.content["model_version"] == predictor.metadata.version


def test_a_model_that_cannot_be_run_is_not_served(bundle: Path) -> None:
    class Broken(Predictor):
        def self_test(self) -> None:
            raise DarkroomError("the network's output is not finite")

    with pytest.raises(DarkroomError, match="not finite"):
        create_app(Broken.load(bundle))


def test_an_image_is_answered_with_class_probability_and_top_k(
    client: Client, predictor: Predictor
) -> None:
    body = encoded("red")
    answer = client.send(body=body)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.content["class"] == "red"
    assert answer.content["top_k"][0]["class"] == "red"
    expected = predictor.predict([body])[0]
    assert answer.content["probability"] == pytest.approx(float(expected[2]), abs=1e-6)
    assert sum(item["probability"] for item in answer.content["top_k"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("image/jpeg", "JPEG"),
        ("image/png", "PNG"),
        ("image/webp", "WEBP"),
        ("image/bmp", "BMP"),
        ("application/x-image", "JPEG"),
        ("application/octet-stream", "PNG"),
        ("IMAGE/JPEG; charset=binary", "JPEG"),
        (None, "PNG"),
    ],
)
def test_each_accepted_type_is_answered(
    client: Client, content_type: str | None, kind: str
) -> None:
    answer = client.send(body=encoded("blue", kind=kind), content_type=content_type)
    assert (answer.status, answer.content["class"]) == (200, "blue")


@pytest.mark.parametrize(("asked", "given"), [("1", 1), ("2", 2), ("3", 3), ("99", 3)])
def test_top_k_is_chosen_by_the_query(client: Client, asked: str, given: int) -> None:
    answer = client.send(path=f"/invocations?top_k={asked}", body=encoded())
    assert len(answer.content["top_k"]) == given


@pytest.mark.parametrize(("attributes", "given"), [("top_k=1", 1), ("trace=7", 3)])
def test_top_k_is_chosen_by_sagemakers_custom_attributes(
    client: Client, attributes: str, given: int
) -> None:
    answer = client.send(body=encoded(), custom_attributes=attributes)
    assert len(answer.content["top_k"]) == given


@pytest.mark.parametrize("value", ["0", "-1", "many", "", "1.5", "²"])
def test_a_top_k_that_is_no_count_is_refused(client: Client, value: str) -> None:
    query = value.encode().hex(" ").upper().split(" ") if value else []
    path = "/invocations?top_k=" + "".join(f"%{byte}" for byte in query)
    answer = client.send(path=path, body=encoded())
    assert answer.status == 400
    assert "top_k" in answer.content["error"]


def test_a_wrong_content_type_is_told_what_is_accepted(client: Client) -> None:
    answer = client.send(body=b"{}", content_type="text/html")
    assert answer.status == 415
    assert "'text/html'" in answer.content["error"]
    assert "image/jpeg" in answer.content["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"no picture at all", "not an image"),
        (encoded(kind="JPEG", size=(200, 200))[:900], "broken image"),
        (encoded(size=(4000, 100)), "times the shorter"),
        (encoded(kind="GIF"), "not an image in one of the formats"),
    ],
)
def test_a_body_that_is_no_usable_image_is_refused(client: Client, body: bytes, words: str) -> None:
    answer = client.send(body=body)
    assert answer.status == 400
    assert words in answer.content["error"]


def test_a_declared_oversize_is_refused(client: Client) -> None:
    answer = client.send(body=bytes(MAX_BODY_BYTES + 1))
    assert answer.status == 413
    assert f"{MAX_BODY_BYTES:,}" in answer.content["error"]


def test_a_streamed_oversize_is_refused_while_it_is_read(client: Client) -> None:
    chunks = (bytes(2**20) for _ in range(8))
    assert client.send(body=chunks).status == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/other", 404),
        ("GET", "/ping/", 404),
        ("GET", "/invocations", 405),
        ("POST", "/ping", 405),
    ],
)
def test_other_routes_and_methods_are_told_which_exist(
    client: Client, method: str, path: str, status: int
) -> None:
    answer = client.send(method, path)
    assert answer.status == status
    assert "POST /invocations" in answer.content["error"]


def test_nothing_of_an_unexpected_failure_leaves_the_server(bundle: Path) -> None:
    class Failing(Predictor):
        def prepare(self, image: bytes | Path, **options: Any) -> Any:
            raise RuntimeError("secret detail")

    with served(create_app(Failing.load(bundle))) as client:
        answer = client.send(body=encoded())
    assert answer.status == 500
    assert answer.content == {"error": "internal error; see the server's log"}


def test_more_requests_than_there_is_room_for_are_sent_away(bundle: Path) -> None:
    around = ServerContext(ServingSettings(workers=1, maximum_waiting=1))
    entered, leave = threading.Event(), threading.Event()

    class Slow(Predictor):
        def prepare(self, image: bytes | Path, **options: Any) -> Any:
            entered.set()
            leave.wait(30)
            return super().prepare(image, **options)

    with served(create_app(Slow.load(bundle), surroundings=around)) as client:
        statuses: list[int] = []
        first = threading.Thread(target=lambda: statuses.append(client.send(body=encoded()).status))
        first.start()
        entered.wait(30)
        refused = client.send(body=encoded())
        assert client.send("GET", "/ping").status == 200
        leave.set()
        first.join()
    assert refused.status == 503
    assert refused.headers["retry-after"] == "1"
    assert statuses == [200]


def test_a_client_that_hangs_up_leaves_the_server_healthy(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nx")
    assert client.send(body=encoded()).status == 200


def test_many_clients_at_once_are_all_answered(client: Client) -> None:
    async def all_of_them() -> list[Answer]:
        calls = (asyncio.to_thread(client.send, body=encoded(c)) for c in ("red", "blue") * 8)
        return await asyncio.gather(*calls)

    answers = asyncio.run(all_of_them())
    assert [answer.content["class"] for answer in answers] == ["red", "blue"] * 8


# The program.


def test_the_program_serves_an_archive_and_ends_at_sigterm(bundle: Path, tmp_path: Path) -> None:
    pack(bundle, tmp_path / "model.tar.gz")
    with program("serve", str(tmp_path / "model.tar.gz"), "--port", "0") as child:
        line = child.stdout.readline()
        assert line.startswith("serving ")
        assert "http://127.0.0.1:" in line
        port = int(line.rsplit(":", 1)[1])
        assert Client(port).send("GET", "/ping").status == 200
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0
        assert child.stderr.read() == ""


def test_in_a_container_the_model_folder_is_served_to_everyone(bundle: Path) -> None:
    environment = {"SAGEMAKER_BASE_DIR": str(bundle.parent), "SAGEMAKER_BIND_TO_PORT": "0"}
    bundle.with_name("model").symlink_to(bundle)
    with program("serve", **environment) as child:
        assert "http://0.0.0.0:" in child.stdout.readline()
        child.terminate()


def test_serving_needs_only_the_base_install(bundle: Path) -> None:
    check = (
        "import sys; from pathlib import Path; import darkroom.serving.program\n"
        "from darkroom.models.prediction import Predictor\n"
        "from darkroom.serving.app import create_app\n"
        f"create_app(Predictor.load(Path({str(bundle)!r})))\n"
        "extras = {'torch', 'requests', 'typer', 'click', 'rich', 'zenml', 'onnx', 'yaml'}\n"
        "sys.exit(str(extras & set(sys.modules)) if extras & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_help_imports_nothing_heavy() -> None:
    check = (
        "import sys, darkroom.serving.program\n"
        "try: darkroom.serving.program.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'pydantic', 'onnxruntime', 'starlette', 'uvicorn'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True)
    assert "MODEL" in done.stdout
    assert time.perf_counter() - started < 5


def test_a_changed_byte_is_one_line_and_exit_code_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    content = bytearray((bundle / ONNX_FILE).read_bytes())
    content[0] ^= 1
    (bundle / ONNX_FILE).write_bytes(content)
    assert serving.main([str(bundle), "--port", "0"]) == 2
    captured = capfd.readouterr().err
    assert captured.count("\n") == 1
    assert "SHA-256 differs" in captured


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["missing"], "no model bundle"), (["a", "b"], "one model at a time")],
)
def test_a_bad_model_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert serving.main([*arguments, "--port", "0"]) == 2
    assert words in capfd.readouterr().err


def test_a_port_in_use_is_one_line_and_exit_code_1(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert serving.main([str(bundle), "--port", port]) == 1
    captured = capsys.readouterr().err
    assert port in captured
    assert "--port" in captured


def test_a_port_of_the_environment_that_is_none_is_the_users_mistake(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", "http")
    assert serving.main([str(bundle)]) == 2
    assert "'http'" in capsys.readouterr().err


@pytest.fixture(autouse=True)
def signal_handlers_are_put_back() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
