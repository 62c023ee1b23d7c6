"""The doors in a container's walls: the only ways in and out of its own network.

A container's network namespace has nothing but a loopback of its own. Sockets that listen there
are made by its first process (init_process.py) and handed to us, so that what a job sends to the
emulator's address arrives here; and for each connection that we want to a program inside, one is
made there and handed over. Nothing else leads out: neither to this machine's loopback nor to any
other address.
"""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Sequence

Answer = Callable[[socket.socket], None]
"""Takes a connection that a job has made, and answers it."""

_SECONDS_TO_SET_UP = 20
_SECONDS_TO_CONNECT = 5
_MESSAGE_BYTES = 4096
_PIECE_BYTES = 1 << 18


class Doors:
    """The emulator's side of one container's control socket.

    Args:
        control: SOCK_SEQPACKET.
        answers: who answers at each of the sockets that the container listens with.
    """

    def __init__(self, control: socket.socket, *, answers: Sequence[Answer]) -> None:
        self._control = control
        self._answers = answers
        self._listening: list[socket.socket] = []
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self.walls: dict[str, bool] = {}
        """What the container's first process could build, once `wait` has returned True."""
        threading.Thread(target=self._set_up, daemon=True, name="doors").start()

    def wait(self, seconds: float = _SECONDS_TO_SET_UP) -> bool:
        """Wait for the container to be set up; False where it could not be."""
        return self._ready.wait(seconds) and bool(self.walls)

    def connect(self, port: int, *, timeout: float | None) -> socket.socket:
        """A connection to a port of the container's loopback.

        Raises:
            OSError: nobody listens there, or the container has ended.
        """
        if not self.wait():
            raise ConnectionRefusedError("the container has not come up")
        with self._lock:
            self._control.settimeout(_SECONDS_TO_CONNECT)
            self._control.send(f"connect {port}".encode())
            _, found, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES, 1)
        if not found:
            raise ConnectionRefusedError(f"nobody listens on port {port} of the container")
        connection = socket.socket(fileno=found[0])
        connection.settimeout(timeout)
        return connection

    def close(self) -> None:
        """Take no more connections; those that are open end with their processes."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()
        for listening in self._listening:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()

    def _set_up(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._control.settimeout(_SECONDS_TO_SET_UP)
            message, found, _, _ = socket.recv_fds(
                self._control, _MESSAGE_BYTES, len(self._answers)
            )
            self._listening = [socket.socket(fileno=number) for number in found]
            for listening, answer in zip(self._listening, self._answers, strict=True):
                listening.settimeout(None)
                threading.Thread(
                    target=_accept, args=(listening, answer), daemon=True, name="door"
                ).start()
            self.walls = dict(json.loads(message))
        self._ready.set()


def relay_to(port: int) -> Answer:
    """Pass connections on to a port of this machine's loopback."""

    def answer(inner: socket.socket) -> None:
        try:
            outer = socket.create_connection(("127.0.0.1", port), timeout=_SECONDS_TO_CONNECT)
        except OSError:
            inner.close()
            return
        outer.settimeout(None)
        back = threading.Thread(target=_pump, args=(outer, inner), daemon=True)
        back.start()
        _pump(inner, outer)
        back.join()
        inner.close()
        outer.close()

    return lambda inner: threading.Thread(target=answer, args=(inner,), daemon=True).start()


def _accept(listening: socket.socket, answer: Answer) -> None:
    with contextlib.suppress(OSError):  # it was closed
        while True:
            connection, _ = listening.accept()
            answer(connection)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE_BYTES):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
