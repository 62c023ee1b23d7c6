"""The `serve` program: model bundles over HTTP, by SageMaker's hosting contract.

    serve                     in a container: /opt/ml/model on port 8080 of every interface
    serve runs/model.tar.gz   on a laptop: that bundle on 127.0.0.1
    serve --models FOLDER     all bundles of a folder, by X-Amzn-SageMaker-Target-Model

The base install is enough. This process is the supervisor (supervisor.py), and imports only
what that needs; the one that serves is its child (process.py).
"""

import argparse
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from darkroom.base.errors import DarkroomError, UserError
from darkroom.serving.logs import EventLog, write_if_read
from darkroom.serving.supervisor import Journal, Task, Witness, supervise

_PORT_VARIABLE = "SAGEMAKER_BIND_TO_PORT"
_SCRIPT_VARIABLE = "SAGEMAKER_PROGRAM"
_MULTI_MODEL_VARIABLE = "SAGEMAKER_MULTI_MODEL"
_EVERY_INTERFACE = "0.0.0.0"  # noqa: S104 — a container is reached from outside


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C. Returns the exit code."""
    options = _parser().parse_args(arguments)
    with _told_to_the_user() as outcome:
        outcome.code = _serve(options)
    return outcome.code


@dataclass
class _Outcome:
    code: int = 0


@contextmanager
def _told_to_the_user() -> Iterator[_Outcome]:
    """Errors that a person is meant to read become one message and an exit code."""
    outcome = _Outcome()
    try:
        yield outcome
    except DarkroomError as error:
        print(f"serve: {error}", file=sys.stderr)
        outcome.code = error.exit_code


def _serve(options: argparse.Namespace) -> int:
    if script := os.environ.get(_SCRIPT_VARIABLE):
        raise UserError(
            f"${_SCRIPT_VARIABLE} names a script, {script!r}, and this image serves Darkroom's "
            "models alone: use an image that runs scripts (SageMaker's framework containers), or "
            "leave the script out"
        )
    task = _task(options)
    with _listen(options, in_container=task.in_container) as listening:
        journal = Journal() if task.is_multi_model else None
        witness = Witness()

        def serve(restarts: int, ready: Callable[[], None]) -> int:
            # Nothing here multiplies matrices with it, and it would start threads before the
            # source of decoders is forked.
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
            from darkroom.serving.decoder_process import DecoderSource

            source = DecoderSource()
            from darkroom.serving.process import serve_task

            with _told_to_the_user() as outcome:
                serve_task(
                    task,
                    listening=listening,
                    journal=journal,
                    source=source,
                    witness=witness,
                    restarts=restarts,
                    ready=ready,
                )
            return outcome.code

        return supervise(serve, say=_say, witness=witness)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serve",
        description="Serve model bundles over HTTP: GET /ping, POST /invocations.",
        epilog="Without MODEL: the model folder of a SageMaker container, /opt/ml/model. Every "
        "option is also an environment variable, DARKROOM_SERVE_WORKERS and so on.",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="MODEL",
        help="bundle folder or model.tar.gz; the word 'serve' before it is ignored, "
        "as SageMaker starts a container with it",
    )
    parser.add_argument(
        "--models",
        type=Path,
        metavar="FOLDER",
        help="serve all bundles of a folder, each loaded when it is first asked",
    )
    parser.add_argument(
        "--port", type=_port, help=f"port; 0: any free one (default: ${_PORT_VARIABLE} or 8080)"
    )
    parser.add_argument(
        "--host",
        help="interface to listen on (default: 127.0.0.1, or all of them in a container)",
    )
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    _add_settings(parser)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("settings").add_argument
    add("--workers", metavar="N", help="images answered at once (default: the cores)")
    add("--engine", metavar="NAME", help="onnxruntime, openvino or torch (default: the bundle's)")
    add("--maximum-batch", metavar="N", help="waiting images that are run together (default: 8)")
    add("--maximum-waiting", metavar="N", help="requests under way, then 503 (default: 64/worker)")
    add("--maximum-body-bytes", metavar="N", help="of a request (default: 6 MiB)")
    add("--memory-limit-mb", metavar="N", help="for all models together (default: 60 %% of all)")
    add("--decode-memory-mb", metavar="N", help="for decoding (default: 30 %% of all)")
    add("--decode-seconds", metavar="N", help="of processor time, for one image (default: 10)")
    add("--allowed-hosts", metavar="HOST,…", help="names that it is reached by, or *")
    add("--allow-urls", action="store_true", default=None, help="fetch images from public URLs")
    add("--url-hosts", metavar="HOST,…", help="fetch from these hosts alone; *.example.com works")
    add("--url-https-only", action="store_true", default=None, help="fetch by https alone")
    add("--capture", metavar="PLACE", help="folder or s3:// prefix to store requests in")
    add("--capture-percent", metavar="P", help="share of the requests stored (default: 100)")
    add("--log", metavar="KIND", help="json, text or none (default: json in a container)")
    add("--no-page", dest="page", action="store_false", default=None, help="no page at /")


_NO_SETTINGS = ("words", "models", "port", "host", "fd")


def _task(options: argparse.Namespace) -> Task:
    flags = {name: value for name, value in vars(options).items() if name not in _NO_SETTINGS}
    named = _model(options.words)
    if named and options.models:
        raise UserError(f"MODEL {str(named)!r} or --models {str(options.models)!r}: not both")
    is_multi = options.models is not None or (named is None and _is_multi_model_container())
    in_container = named is None and options.models is None
    place = named or options.models or _container_place(is_multi_model=is_multi)
    if options.models and not options.models.is_dir():
        raise UserError(f"--models {str(options.models)!r} is no folder; name one with bundles")
    return Task(place, is_multi_model=is_multi, in_container=in_container, flags=flags)


def _model(words: Sequence[str]) -> Path | None:
    """The bundle that was named; None: the container's."""
    paths = list(words[1:] if words[:1] == ["serve"] else words)
    if len(paths) > 1:
        raise UserError(
            f"one model at a time, not {len(paths)}: {', '.join(map(repr, paths))}; "
            "several are served by --models FOLDER"
        )
    return Path(paths[0]) if paths else None


def _is_multi_model_container() -> bool:
    return os.environ.get(_MULTI_MODEL_VARIABLE, "").lower() == "true"


def _container_place(*, is_multi_model: bool) -> Path:
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
    return base / ("models" if is_multi_model else "model")


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port; allowed are 0 to 65535")
    return port


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
        reason = (
            os.strerror(error.errno) if error.errno else error
        )  # create_server adds the address
        raise DarkroomError(
            f"cannot listen on port {port} of {host!r} ({reason}): "
            "stop what uses it, or choose another with --port"
        ) from error


def _default_port() -> int:
    text = os.environ.get(_PORT_VARIABLE, "8080")
    if not text.isdecimal() or int(text) > 65535:
        raise UserError(f"${_PORT_VARIABLE} is {text!r}; it must be a port, 0 to 65535")
    return int(text)


def _say(event: str, **fields: object) -> None:
    """The supervisor's own words, on stderr; it waits for nobody to read them."""
    write_if_read(sys.stderr.fileno(), EventLog("text").line(event, **fields))


if __name__ == "__main__":
    sys.exit(main())
