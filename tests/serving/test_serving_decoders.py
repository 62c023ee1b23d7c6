"""Images are decoded in processes that may be killed; by the front door."""

import base64
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from test_serving_content import REFUSED_JSON
from test_serving_supervisor import Supervisor, running, server_of

from darkroom.models.prediction import Predictor
from darkroom.serving import content as npy
from darkroom.serving.decoders import MemoryBudget
from hostile.costly import bmp_rle, costly_images
from hostile.images import encoded, picture
from served import Answer, Client
from small_bundles import write_small_bundle

PATIENCE = 30.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[tuple[Supervisor, Client]]:
    with running(str(bundle), "--decode-seconds", "1", "--decode-memory-mb", "300") as found:
        yield found
        assert found[1].send("GET", "/ping").content["restarts"] == 0


def slow_image(mark: int = 0) -> bytes:
    """Seconds of processor time, in 21 kB."""
    return bmp_rle(b"\1\xff\0\0" * 5000, bits=8, compression=1) + bytes([mark])


def slow_decoder(supervisor: Supervisor) -> psutil.Process:
    """The one that has left the quick lane, as soon as there is one."""
    server, until = server_of(supervisor), time.monotonic() + PATIENCE
    while time.monotonic() < until:
        for process in server.children(recursive=True):
            if _niceness(process) > _niceness(server):
                return process
    raise AssertionError("no image took long")


def _niceness(process: psutil.Process) -> int:
    try:
        return int(process.nice())
    except psutil.NoSuchProcess:
        return 0


def live_decoders(supervisor: Supervisor) -> list[psutil.Process]:
    (source,) = server_of(supervisor).children()
    return [d for d in source.children() if d.status() != psutil.STATUS_ZOMBIE]


def end_decoders(supervisor: Supervisor) -> None:
    """They become zombies, until the server looks at them."""
    (source,) = server_of(supervisor).children()
    for decoder in source.children():
        decoder.kill()
        psutil.wait_procs([decoder], timeout=1)


def metrics(client: Client) -> bytes:
    content: bytes = client.send("GET", "/metrics").content
    return content


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


def send_aside(client: Client, body: bytes) -> tuple[threading.Thread, list[Answer]]:
    answers = list[Answer]()
    thread = threading.Thread(target=lambda: answers.append(client.send(body=body)))
    thread.start()
    return thread, answers


def test_a_decoder_says_what_this_process_says(
    server: tuple[Supervisor, Client], bundle: Path
) -> None:
    _, client = server
    predictor = Predictor.load(bundle, threads=1)
    for body in (
        encoded(picture(640, 480), "JPEG"),
        encoded(picture(300, 400), "PNG"),
        encoded(Image.new("RGBA", (1500, 1000), (9, 99, 200, 99)), "WEBP"),
    ):
        answer = client.send(body=body, headers={"Accept": "application/x-npy"})
        assert answer.content == npy.write(predictor.predict([body]))


@pytest.mark.slow
def test_what_takes_too_long_is_ended_named_and_refused_when_it_comes_again(
    server: tuple[Supervisor, Client],
) -> None:
    _, client = server
    first = client.send(body=slow_image())
    assert (first.status, first.content["error"]) == (400, "decoding it takes longer than 1 s")
    started = time.monotonic()
    again = client.send(body=slow_image())
    assert again.status == 400
    assert "refused before" in again.content["error"]
    assert time.monotonic() - started < 0.8
    assert client.send(body=encoded(picture(), "PNG")).status == 200


def test_what_can_never_fit_is_refused_with_the_setting(server: tuple[Supervisor, Client]) -> None:
    _, client = server
    bomb = encoded(Image.new("RGBA", (5000, 5000)), "WEBP", lossless=True, quality=0, method=0)
    assert len(bomb) < 2000
    answer = client.send(body=bomb)
    assert answer.status == 413
    assert "--decode-memory-mb" in answer.content["error"]


def test_a_decoder_that_is_killed_is_want_of_memory_and_no_fault_of_the_image(
    server: tuple[Supervisor, Client],
) -> None:
    supervisor, client = server
    thread, answers = send_aside(client, slow_image(2))
    slow_decoder(supervisor).kill()
    thread.join(PATIENCE)
    assert answers[0].status == 503
    assert int(answers[0].headers["retry-after"]) > 0
    assert "memory" in answers[0].content["error"]


def test_a_crash_costs_only_the_image_that_caused_it(server: tuple[Supervisor, Client]) -> None:
    supervisor, client = server
    thread, answers = send_aside(client, slow_image(1))
    slow_decoder(supervisor).send_signal(signal.SIGSEGV)
    thread.join(PATIENCE)
    assert answers[0].status == 400
    assert "SIGSEGV" in answers[0].content["error"]
    assert "refused before" in client.send(body=slow_image(1)).content["error"]


def test_a_decoder_that_dies_while_it_waits_costs_nobody_anything(
    server: tuple[Supervisor, Client],
) -> None:
    supervisor, client = server
    assert client.send(body=encoded(picture(), "PNG")).status == 200
    end_decoders(supervisor)
    assert client.send(body=encoded(picture(), "PNG")).status == 200


def test_without_a_source_of_decoders_the_process_is_replaced(bundle: Path) -> None:
    with running(str(bundle)) as (supervisor, client):
        (source,) = server_of(supervisor).children()
        source.kill()
        until = time.monotonic() + PATIENCE
        while source.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
            time.sleep(0.01)
        with pytest.raises(OSError):  # noqa: PT011 - however the connection breaks
            client.send(body=encoded(picture(), "PNG"))
        assert client.send(body=encoded(picture(), "PNG")).status == 200
        assert client.send("GET", "/ping").content["restarts"] == 1


@pytest.mark.slow
def test_nothing_is_left_when_the_server_is_killed(bundle: Path) -> None:
    with running(str(bundle)) as (supervisor, client):
        assert client.send(body=encoded(picture(), "PNG")).status == 200
        server = server_of(supervisor)
        all_of_it = server.children(recursive=True)
        assert len(all_of_it) == 2
        server.kill()
        assert psutil.wait_procs(all_of_it, timeout=PATIENCE)[1] == []
        assert client.send("GET", "/ping").content["restarts"] == 1


@pytest.mark.slow
def test_lack_of_memory_is_told_as_such(bundle: Path) -> None:
    """Under `ulimit -v`, as in a container that is too small."""
    large = encoded(Image.new("RGBA", (4900, 4900), "red"), "PNG")
    program = (
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (700_000 * 1024,) * 2)\n"
        f"sys.argv = ['serve', {str(bundle)!r}, '--port', '0', '--decode-memory-mb', '2000']\n"
        "runpy.run_module('darkroom.serving.program', run_name='__main__')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            client = Client(int(child.stdout.readline().strip().rsplit(":", 1)[1]))
            small = client.send(body=encoded(picture(), "PNG"))
            assert small.status == 200
            answer = client.send(body=large)
            assert answer.status in (200, 503)
            assert answer.status == 200 or "memory" in answer.content["error"]
        finally:
            child.terminate()
            child.wait(PATIENCE)
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_memory_is_granted_in_the_order_in_which_it_was_asked_for() -> None:
    budget, order = MemoryBudget(10), list[int]()
    assert budget.take(8, seconds=1)
    threads = []
    for size in (9, 1):
        thread = threading.Thread(target=lambda size=size: _take(budget, size, order))
        thread.start()
        threads.append(thread)
        while len(budget._waiting) < len(threads):
            time.sleep(0.001)
    budget.give_back(8)
    for thread in threads:
        thread.join()
    assert order == [9, 1]
    assert not budget.take(11, seconds=0.01)
    assert budget.take(10, seconds=1)


def _take(budget: MemoryBudget, size: int, order: list[int]) -> None:
    assert budget.take(size, seconds=PATIENCE)
    order.append(size)
    budget.give_back(size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to_all"),
    [(signal.SIGTERM, False), (signal.SIGINT, True), (signal.SIGHUP, True), (signal.SIGHUP, False)],
)
def test_an_end_while_an_image_is_decoded_answers_it_and_leaves_no_process(
    bundle: Path, number: signal.Signals, to_all: bool
) -> None:
    """A terminal sends its signals to all processes of the group."""
    with running(str(bundle), "--decode-seconds", "1") as (supervisor, client):
        server = server_of(supervisor)
        thread, answers = send_aside(client, slow_image())
        slow_decoder(supervisor)
        processes = [server, *server.children(recursive=True)]
        assert len(processes) >= 3
        (os.killpg if to_all else os.kill)(supervisor.pid, number)
        thread.join(PATIENCE)
        assert (answers[0].status, answers[0].content["error"][-3:]) == (400, "1 s")
        assert supervisor.wait(PATIENCE) == 0
        assert psutil.wait_procs(processes, timeout=PATIENCE)[1] == []
        assert "decoder_ended reason=SIGXCPU sha256=" in supervisor.stdout.read()


@pytest.mark.slow
def test_nothing_more_is_decoded_for_a_client_that_has_left(
    server: tuple[Supervisor, Client],
) -> None:
    """A minute of work; two images for each worker have begun."""
    supervisor, client = server
    images = [base64.b64encode(slow_image(mark)).decode() for mark in range(100, 164)]
    body = json.dumps({"images": images}).encode()
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: localhost\r\n" + head.encode())
        connection.sendall(body)
        slow_decoder(supervisor)
    wait_until(lambda: b'route="/invocations",status="499"} 1.0' in metrics(client))
    assert b"darkroom_requests_under_way 0.0" in metrics(client)
    end_decoders(supervisor)  # those that had begun; no other follows
    wait_until(lambda: not live_decoders(supervisor))
    large = encoded(Image.new("RGBA", (3000, 3000), "red"), "PNG")  # takes most of the memory
    assert client.send(body=large).content["class"] == "red"
    assert len(live_decoders(supervisor)) <= 1


@pytest.mark.slow
def test_a_server_outlives_its_terminal_where_it_is_told_to(bundle: Path) -> None:
    """As nohup does."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the program inherits it
    try:
        with running(str(bundle)) as (supervisor, client):
            os.killpg(supervisor.pid, signal.SIGHUP)
            assert client.send(body=encoded(picture(), "PNG")).status == 200
            assert client.send("GET", "/ping").content["restarts"] == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_24_bombs_at_once_end_nothing_and_stay_within_the_budget(bundle: Path) -> None:
    """1,104 bytes each; they took 728 MB each, eight at once, and ended the server for good."""
    bomb = costly_images()["WebP, lossless, RGBA"]()
    quiet = ("--log", "none")  # nobody reads what is written here, and a full pipe blocks
    with running(str(bundle), "--decode-memory-mb", "600", *quiet) as (supervisor, client):
        sent = [send_aside(client, bomb + bytes([number])) for number in range(24)]
        peak, right = 0.0, 0
        while any(thread.is_alive() for thread, _ in sent):
            assert client.send(body=encoded(picture(), "JPEG")).status == 200
            right += 1
            peak = max(peak, sum(map(_megabytes, server_of(supervisor).children(recursive=True))))
        statuses = {answers[0].status for _, answers in sent}
        assert statuses <= {200, 503}
        assert 200 in statuses
        assert right > 20
        assert peak < 1000
        assert client.send("GET", "/ping").content["restarts"] == 0


def _megabytes(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def test_large_json_is_parsed_by_a_decoder_and_not_in_the_event_loop(
    server: tuple[Supervisor, Client],
) -> None:
    supervisor, client = server
    end_decoders(supervisor)
    small, large = (b'{"image": ["%s"]}' % (b"\x7f" * size) for size in (100, 500_000))
    answer = client.send(body=small, content_type="application/json")
    assert answer.status == 400
    assert live_decoders(supervisor) == []
    answer = client.send(body=large, content_type="application/json")
    assert answer.status == 400
    assert len(live_decoders(supervisor)) == 1
    assert "'image' holds ['\\x7f\\x7f" in answer.content["error"]
    assert len(answer.content["error"]) < 300


@pytest.mark.parametrize(("content", "words"), REFUSED_JSON, ids=lambda value: str(value)[:30])
def test_large_json_is_answered_as_small_json_is(
    server: tuple[Supervisor, Client], content: object, words: str
) -> None:
    small = content if isinstance(content, bytes) else json.dumps(content).encode()
    for body in (small, small + b" " * 70_000):
        answer = server[1].send(body=body, content_type="application/json")
        assert answer.status == 400
        assert words in answer.content["error"]


def test_images_in_large_json_are_those_that_were_sent(server: tuple[Supervisor, Client]) -> None:
    _, client = server
    images = [encoded(Image.new("RGB", (300, 200), c), "BMP") for c in ("red", "blue", "green")]
    texts = [base64.b64encode(image).decode() for image in images]
    for given in (texts, [base64.encodebytes(image).decode() for image in images]):
        body = json.dumps({"images": given}).encode()
        answer = client.send(body=body, content_type="application/json")
        assert [p["class"] for p in answer.content["predictions"]] == ["red", "blue", "green"]
    body = json.dumps({"image": f"data:image/bmp;base64,{texts[1]}"}).encode()
    assert len(body) > 2**16
    answer = client.send(body=body, content_type="application/json")
    assert answer.content["class"] == "blue"


def test_arrays_are_answered_without_decoding(server: tuple[Supervisor, Client]) -> None:
    _, client = server
    array = np.zeros((1, 3, 16, 16), dtype=np.float32)
    answer = client.send(body=npy.write(array), content_type="application/x-npy")
    assert (answer.status, len(answer.content["predictions"])) == (200, 1)
