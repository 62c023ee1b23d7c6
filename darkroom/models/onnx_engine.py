"""ONNX Runtime, the default engine: model.onnx on the CPU, without torch."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxruntime

from darkroom.base.errors import DarkroomError, UserError
from darkroom.models.engine import INPUT_NAME, OUTPUT_NAME, EngineName, Floats

_SECONDS_BETWEEN_LOOKS = 0.5
_ERRORS_ONLY = 3  # ONNX Runtime's log severity


class OnnxRuntimeEngine:
    """A network in ONNX Runtime.

    Args:
        path: float32 (N, 3, S, S) `images` to (N, C) `logits`.
        threads: inside the network, for each call.

    Raises:
        UserError: ONNX Runtime refuses the file, or it is no image classifier.

    A network may hold a loop without end: `seconds`, where it is set, ends every call.
    """

    name: EngineName = "onnxruntime"

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        image_size: int,
        classes: int,
        seconds: float | None = None,
    ) -> None:
        self._seconds = seconds
        self._session = open_session(path, threads=threads)
        _check_fit(self._session, path=path, image_size=image_size, classes=classes)

    def run(self, batch: Floats) -> Floats:
        """(N, 3, S, S) images to (N, C) logits."""
        options = onnxruntime.RunOptions()
        try:
            with _DEADLINES.ending(options, seconds=self._seconds):
                ran = self._session.run([OUTPUT_NAME], {INPUT_NAME: batch}, options)
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            if options.terminate:
                raise DarkroomError(
                    f"the network did not end within {self._seconds:g} s, and was stopped"
                ) from error
            raise
        logits: Floats = ran[0]
        return logits


class _Deadlines:
    """Ends calls of ONNX Runtime that take too long; one thread for all of them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: dict[int, tuple[float, onnxruntime.RunOptions]] = {}
        self._is_watched = False

    @contextmanager
    def ending(self, options: onnxruntime.RunOptions, *, seconds: float | None) -> Iterator[None]:
        """End a call with those options if the block takes longer."""
        if seconds is None:
            yield
            return
        with self._changed:
            self._running[id(options)] = time.monotonic() + seconds, options
            if not self._is_watched:
                self._is_watched = True
                threading.Thread(target=self._watch, name="deadlines", daemon=True).start()
        try:
            yield
        finally:
            with self._changed:
                del self._running[id(options)]

    def _watch(self) -> None:
        while True:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            with self._changed:
                now = time.monotonic()
                for until, options in self._running.values():
                    if now > until:
                        options.terminate = True


_DEADLINES = _Deadlines()


def open_session(path: Path, *, threads: int) -> onnxruntime.InferenceSession:
    """Load an ONNX file into ONNX Runtime on the CPU.

    Raises:
        UserError: ONNX Runtime refuses the file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    # An arena keeps the activations of the largest batch for good (20 to 40 MB a model) and
    # saves no time that could be measured.
    options.enable_cpu_mem_arena = False
    # Threads that spin while they wait take the cores that decode the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            path, sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise UserError(f"ONNX Runtime cannot load {str(path)!r}: {error}") from error


def _check_fit(
    session: onnxruntime.InferenceSession, *, path: Path, image_size: int, classes: int
) -> None:
    inputs = {value.name: list(value.shape) for value in session.get_inputs()}
    outputs = {value.name: list(value.shape) for value in session.get_outputs()}
    expected = [3, image_size, image_size], [classes]
    if (inputs.get(INPUT_NAME, [])[1:], outputs.get(OUTPUT_NAME, [])[1:]) != expected:
        raise UserError(
            f"the network {str(path)!r} maps {inputs} to {outputs}, but its bundle's "
            f"metadata asks for images of {image_size}×{image_size} pixels and "
            f"{classes} classes: train the bundle again"
        )
