"""The `serve` program: a model bundle over HTTP, by SageMaker's hosting contract.

    serve                     in a container: /opt/ml/model on port 8080 of every interface
    serve runs/model.tar.gz   on a laptop: that bundle on 127.0.0.1

The base install is enough; what HTTP requests are answered with is serving_app.py.
"""

import argparse
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from darkroom.errors import DarkroomError, UserError

_PORT_VARIABLE = "SAGEMAKER_BIND_TO_PORT"
_DRAIN_SECONDS = 25  # SageMaker kills a container 30 s after SIGTERM
_EVERY_INTERFACE = "0.0.0.0"  # noqa: S104 — a container is reached from outside


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _serve(options)
    except DarkroomError as error:
        print(f"serve: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        pass
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serve",
        description="Serve a model bundle over HTTP: GET /ping, POST /invocations.",
        epilog="Without MODEL: the model folder of a SageMaker container, /opt/ml/model.",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="MODEL",
        help="bundle folder or model.tar.gz; the word 'serve' before it is ignored, "
        "as SageMaker starts a container with it",
    )
    parser.add_argument(
        "--port", type=_port, help=f"port; 0: any free one (default: ${_PORT_VARIABLE} or 8080)"
    )
    parser.add_argument(
        "--host",
        help="interface to listen on (default: 127.0.0.1, or all of them in a container)",
    )
    parser.add_argument("--workers", type=int, help="images answered at once (default: the cores)")
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port; allowed are 0 to 65535")
    return port


def _serve(options: argparse.Namespace) -> None:
    from darkroom.serving.parent_watch import end_with_parent

    signal.signal(signal.SIGTERM, _end)
    end_with_parent()
    model = _model(options.words)
    listening = _listen(options, in_container=model is None)
    with listening:
        _run(model or _container_model(), listening=listening, workers=options.workers)


def _run(model: Path, *, listening: socket.socket, workers: int | None) -> None:
    import uvicorn

    from darkroom.prediction import Predictor, available_cores
    from darkroom.serving.app import create_app

    # One thread inside the network for each image that is answered: threads of one image
    # wait for each other, and lose as soon as anything else runs on the machine.
    predictor = Predictor.load(model, threads=1)
    app = create_app(predictor, workers=workers or available_cores())
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
    )
    host, port = listening.getsockname()[:2]
    print(
        f"serving {str(model)!r} (version {predictor.metadata.version}) on http://{host}:{port}",
        flush=True,
    )
    server.run(sockets=[listening])


def _model(words: Sequence[str]) -> Path | None:
    """The bundle that was named; None: the container's."""
    paths = list(words[1:] if words[:1] == ["serve"] else words)
    if len(paths) > 1:
        raise UserError(f"one model at a time, not {len(paths)}: {', '.join(map(repr, paths))}")
    return Path(paths[0]) if paths else None


def _container_model() -> Path:
    return Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml")) / "model"


def _listen(options: argparse.Namespace, *, in_container: bool) -> socket.socket:
    """The listening socket: inherited from the parent by number, or newly bound."""
    if options.fd is not None:
        return socket.socket(fileno=options.fd)
    public = in_container or _PORT_VARIABLE in os.environ
    host = options.host or (_EVERY_INTERFACE if public else "127.0.0.1")
    port = options.port if options.port is not None else _default_port()
    try:
        return socket.create_server((host, port), backlog=1024)
    except OSError as error:
        raise DarkroomError(
            f"cannot listen on port {port} of {host!r} ({error.strerror or error}): "
            "stop what uses it, or choose another with --port"
        ) from error


def _default_port() -> int:
    text = os.environ.get(_PORT_VARIABLE, "8080")
    if not text.isdecimal() or int(text) > 65535:
        raise UserError(f"${_PORT_VARIABLE} is {text!r}; it must be a port, 0 to 65535")
    return int(text)


def _end(signum: int, frame: object) -> None:
    """End with code 0: uvicorn has drained by the time it hands the signal on."""
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
