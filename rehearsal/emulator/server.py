"""The emulator as a program, and within a process.

python -m rehearsal.emulator.server --port 0 --folder FOLDER --port-file FILE
"""

import argparse
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehearsal.emulator.admission import ACCESS_KEY
from rehearsal.emulator.state import Settings, State


@dataclass(frozen=True)
class Running:
    """An emulator that answers."""

    url: str
    state: State

    def client(self, service: str) -> Any:  # noqa: ANN401  boto3 has no types here
        """A boto3 client for it, as a user's: its calls are counted, and met by faults."""
        from rehearsal.emulator.clients import isolated_session

        session = isolated_session("AKIAREHEARSALUSER000")
        return session.client(
            service, endpoint_url=self.url, region_name=self.state.settings.region
        )


@contextmanager
def emulator(
    folder: Path,
    *,
    port: int = 0,
    images: Mapping[str, Path | None] | None = None,
    region: str = "us-east-1",
    **more: Any,  # noqa: ANN401
) -> Iterator[Running]:
    """An emulator in this process, on a free port of loopback.

    Only one at a time: moto's memory belongs to the process; it is emptied at the end.

    Args:
        folder: all that jobs write lies below; made where it is missing.
        images: image URI → folder whose bin/ comes first on the PATH of its containers; None:
            this Python environment. Other images are refused.
        more: other fields of `Settings`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(folder=folder.resolve(), images=images or {}, region=region, **more)
    server, state = _server(settings, port=port)
    thread = threading.Thread(target=server.serve_forever, daemon=True, name="emulator")
    thread.start()
    state.start(state.clients.warm, name="clients")
    try:
        yield Running(url=state.url, state=state)
    finally:
        state.end()
        server.shutdown()
        server.server_close()
        thread.join()
        _forget_all()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, SIGINT, or until the parent that asked for it is gone."""
    from darkroom.serving.parent_watch import end_with_parent

    options = _parser().parse_args(arguments)
    os.environ["MOTO_ACCOUNT_ID"] = options.account
    _keep_large_objects_in(options.folder / "objects")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    end_with_parent()
    with emulator(
        options.folder,
        port=options.port,
        images={**dict.fromkeys(options.own_image), **dict(options.image)},
        region=options.region,
        account=options.account,
        access_key=options.access_key,
        jobs_at_once=options.jobs_at_once,
        stop_grace_seconds=options.stop_grace_seconds,
        services=tuple(options.service),
        sandboxed=False if options.no_sandbox else None,
    ) as running:
        for fault in options.fault:
            running.state.faults.add(fault)
        _announce(running.url, port_file=options.port_file)
        stopped.wait()
    return 0


def _server(settings: Settings, *, port: int) -> tuple[Any, State]:
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from werkzeug.serving import make_server

    from rehearsal.emulator.app import Application

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    os.environ.setdefault("S3_IGNORE_SUBDOMAIN_BUCKETNAME", "true")
    _forget_all()
    holder: list[Application] = []
    server = make_server(
        "127.0.0.1",
        port,
        lambda environ, start: holder[0](environ, start),
        threaded=True,
        request_handler=MotoRequestHandler,
    )

    def answer(connection: socket.socket) -> None:
        server.process_request(connection, ("127.0.0.1", 0))

    state = State(settings, url=f"http://127.0.0.1:{server.server_port}", answer=answer)
    holder.append(Application(state))
    return server, state


def _forget_all() -> None:
    """Empty moto's memory."""
    from moto.moto_api._internal.models import moto_api_backend

    moto_api_backend.reset()


def _keep_large_objects_in(folder: Path) -> None:
    """moto writes large objects to temporary files, which have no names and leave nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(folder)


def _announce(url: str, *, port_file: Path | None) -> None:
    if port_file is not None:
        temporary = port_file.with_name(f".{port_file.name}.new")
        temporary.write_text(url.rpartition(":")[2], encoding="utf-8")
        temporary.replace(port_file)
    sys.stdout.write(f"rehearsal: AWS is on {url}\n")
    sys.stdout.flush()


def image_option(text: str) -> tuple[str, Path]:
    """The image and the folder that `--image URI=FOLDER` names.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    uri, separator, folder = text.rpartition("=")
    if not uri or not separator or not Path(folder, "bin").is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not URI=FOLDER with a folder bin/ in it")
    return uri, Path(folder).resolve()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rehearsal.emulator.server")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--folder", type=Path, required=True, help="all is written below")
    parser.add_argument("--port-file", type=Path, help="where to write the port, once it answers")
    parser.add_argument(
        "--image",
        type=image_option,
        action="append",
        default=[],
        metavar="URI=FOLDER",
        help="FOLDER/bin/train and FOLDER/bin/serve are what a container of this image starts",
    )
    parser.add_argument(
        "--own-image",
        action="append",
        default=[],
        metavar="URI",
        help="the image that this Python environment stands for",
    )
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--account", default="123456789012")
    parser.add_argument(
        "--access-key",
        default=os.environ.get(ACCESS_KEY, ""),
        help=f"refuse requests signed with another; or ${ACCESS_KEY}, which nobody else sees",
    )
    parser.add_argument(
        "--jobs-at-once",
        type=int,
        default=0,
        help="0: no limit; a job that waits for others needs a place too",
    )
    parser.add_argument("--stop-grace-seconds", type=float, default=120)
    parser.add_argument(
        "--service",
        action="append",
        default=[],
        metavar="URL",
        help="another server on the loopback, reached by jobs whose request names one of these",
    )
    parser.add_argument("--no-sandbox", action="store_true", help="jobs as plain processes")
    parser.add_argument(
        "--fault", type=_fault, action="append", default=[], metavar="NAME[:key=value,…]"
    )
    return parser


def _fault(text: str) -> Any:  # noqa: ANN401
    from rehearsal.emulator.faults import parse_fault

    try:
        return parse_fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
