"""Write and read a model bundle: weights, network and description, as data and never as code."""

import base64
import gzip
import io
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, cast

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from safetensors import SafetensorError, safe_open

from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.files import atomic_path, sha256_of
from darkroom.base.values import digest_of
from darkroom.data.archives import HARMLESS_BYTES, MAX_RATIO, ShortNamed
from darkroom.images import Preprocessing
from darkroom.models.engine import DEFAULT_ENGINE, INEXACT, EngineName

# --- archive reading ---
# Taking a few known files out of a tar archive that anybody may have made.
#
# Nothing but those files is written, and nothing that the archive says of them is believed:
# neither owner, mode and time, nor that a link is a file.

MAX_BYTES = 8 * 2**30
"""Of all the files together, unpacked."""

_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_DAMAGE = (
    tarfile.TarError,
    EOFError,
    OSError,
    zlib.error,
    ValueError,  # numbers in headers that are none
    OverflowError,
    RecursionError,  # headers that announce headers that announce headers …
)


def extract(archive: Path, *, folder: Path, names: Collection[str]) -> None:
    """Write the named files, all of which have to be there, into `folder`.

    Raises:
        UserError: no tar or tar.gz; or one with other members, links, devices, the same name
            twice, or more bytes than `MAXIMUM_BYTES` or than any weights could shrink to.
        DarkroomError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left, budget = set(names), _budget(archive)
    with _damage_explained(archive), _opened(archive) as tar:
        for member in tar:
            if member.isdir() and member.name == ".":
                continue  # `tar -C folder .` writes it
            name, budget = member.name.removeprefix("./"), budget - member.size
            problem = _entry_problem(member, name=name, names=names, left=left, budget=budget)
            if problem:
                raise UserError(f"{problem} in the bundle {str(archive)!r}")
            _write(tar, member=member, path=folder / name)
            left.remove(name)
    if left:
        raise UserError(f"the bundle {str(archive)!r} holds no {', no '.join(sorted(left))}")


def _budget(archive: Path) -> int:
    """Bytes that it may unpack to: zeros would shrink to a thousandth, weights hardly do."""
    return min(MAX_BYTES, max(HARMLESS_BYTES, MAX_RATIO * archive.stat().st_size))


def _entry_problem(
    member: tarfile.TarInfo, *, name: str, names: Collection[str], left: set[str], budget: int
) -> str | None:
    shown = f"{member.name!r:.100}"
    if name not in names:
        return f"unexpected {shown} (expected: {', '.join(names)})"
    if not member.isreg() or member.issparse():
        return f"unexpected kind of file, such as a link or a device: {shown}"
    if name not in left:
        return f"unexpected second {shown}"
    if member.size < 0:
        return f"negative size of {shown}"
    if budget < 0:
        return f"{shown} is too large: all of it exceeds what weights can shrink to, or 8 GiB,"
    return None


def _write(tar: tarfile.TarFile, *, member: tarfile.TarInfo, path: Path) -> None:
    source = cast(IO[bytes], tar.extractfile(member))  # None only for what is no regular file
    with path.open("xb") as target:
        shutil.copyfileobj(source, target)
    if path.stat().st_size != member.size:
        raise EOFError(f"{member.name!r} ends too early")


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    with archive.open("rb") as packed:
        start = packed.read(len(_ZIP))
        packed.seek(0)
        if start == _ZIP:
            raise tarfile.ReadError("it is a zip, not a tar.gz")
        content = gzip.GzipFile(fileobj=packed) if start.startswith(_GZIP) else packed
        with tarfile.open(fileobj=content, mode="r|", tarinfo=ShortNamed) as tar:
            yield tar


@contextmanager
def _damage_explained(archive: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the content's
            raise DarkroomError(f"{str(archive)!r} cannot be unpacked: {error}") from error
        reason = str(error) or "it ends too early"
        raise UserError(f"{str(archive)!r} is no readable model bundle: {reason}") from error


# --- parity ---
# A picture and what the trained network says of it: proof that a server computes the same.
#
# Stored in the bundle when it is packed, computed there by torch. Whoever loads the bundle
# decodes and classifies the picture again: another Pillow, another engine, another processor
# or a change of the preprocessing shows before the first request.

MAX_DIFFERENCE = 1e-3
"""Of a probability; float32 rounding stays below 1e-5."""

MAX_INEXACT_DIFFERENCE = 0.1
"""For engines that compute with bfloat16, whose 8 bits differ by up to 0.3 in a logit."""

_SIZE = (320, 240)
_QUALITY = 90


class Parity(BaseModel):
    """The picture, and the probabilities of the classes in their order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str = Field(repr=False)
    """A JPEG, in base64."""
    probabilities: tuple[float, ...] = Field(repr=False)

    @property
    def encoded(self) -> bytes:
        """The JPEG."""
        return base64.b64decode(self.image)


def allowed_difference(exact: float, *, engines: Iterable[str]) -> float:
    """How far probabilities may lie apart that these engines have computed of one image.

    Args:
        exact: the same for engines that compute in float32.
    """
    is_inexact = not INEXACT.isdisjoint(engines)
    return max(exact, MAX_INEXACT_DIFFERENCE) if is_inexact else exact


def parity_picture() -> bytes:
    """A JPEG of waves in all three colours: nobody's photograph, the same each time."""
    width, height = _SIZE
    x, y = np.meshgrid(np.linspace(0, 9, width), np.linspace(0, 7, height))
    waves = [np.sin(x + y), np.sin(2 * x - y), np.cos(x * y / 3)]
    pixels = (127.5 * (1 + np.stack(waves, axis=-1))).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


# --- bundle ---

METADATA_FILE = "model.json"
ONNX_FILE = "model.onnx"
WEIGHTS_FILE = "model.safetensors"
ARCHIVE_FILE = "model.tar.gz"
FILES = (METADATA_FILE, ONNX_FILE, WEIGHTS_FILE)
_MAX_METADATA_BYTES = 16 * 2**20
"""The names of a hundred thousand classes."""

_PROBLEMS_SHOWN = 10


class ExportCheck(BaseModel):
    """How well the ONNX network agrees with torch on the validation images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int
    maximum_probability_difference: float
    top1_agreement: float
    """Share of the images with the same most probable class; 1.0 or the packing is refused."""


class BundleMetadata(BaseModel):
    """What model.json says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(default=1, ge=1, le=1)
    architecture: str
    classes: tuple[str, ...] = Field(min_length=2)
    """In the order of the network's outputs."""
    preprocessing: Preprocessing
    hyperparameters: dict[str, int | float | str | bool]
    metrics: dict[str, float]
    """Of the validation split, at the epoch that was kept."""
    data_fingerprint: str
    versions: dict[str, str]
    """Of the packages that made the bundle."""
    export_check: ExportCheck
    engine: EngineName = DEFAULT_ENGINE
    """What `compile_model` chose to run the network; servers that lack it take the default."""
    parity: Parity | None = None
    """What a server has to compute before it serves; older bundles have none."""
    files: dict[str, str]
    """SHA-256 by file name."""
    seal: str = ""
    """SHA-256 of what an answer depends on beside the network: the classes in their order, and
    the preprocessing. Older bundles have none."""

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name, count in Counter(classes).items() if count > 1]
        if twice:
            raise ValueError(f"several outputs are called {twice[0]!r}; each needs its own name")
        return classes

    def sealed(self) -> "BundleMetadata":
        """The same with its seal."""
        return self.model_copy(update={"seal": self._what_seals()})

    @property
    def is_as_sealed(self) -> bool:
        """Whether classes and preprocessing are those that were packed, as far as is known."""
        return self.seal in ("", self._what_seals())

    def _what_seals(self) -> str:
        content = self.model_dump(mode="json", include={"classes", "preprocessing", "files"})
        return digest_of(content)

    @property
    def version(self) -> str:
        """Twelve hexadecimal digits that change with whatever changes an answer.

        The network, the classes in their order, the preprocessing, and the engine. Of older
        bundles, which have no seal, they change with the weights alone.
        """
        if not self.seal:
            return self.files.get(WEIGHTS_FILE, "")[:12]
        return sha256(" ".join([self.seal, *self.compiled_for]).encode()).hexdigest()[:12]

    @property
    def compiled_for(self) -> list[str]:
        """The engine, where it is not the default: a part of what tells bundles apart."""
        return [] if self.engine == DEFAULT_ENGINE else [self.engine]

    @property
    def place(self) -> str:
        """Name of a folder of its own: the version, and the engine that was chosen for it."""
        return "-".join([self.version, *self.compiled_for])


@dataclass(frozen=True)
class Bundle:
    """A bundle on this machine."""

    folder: Path
    metadata: BundleMetadata


def read_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`, checked.

    Raises:
        UserError: something is missing, malformed, or not what was packed.
    """
    return Bundle(folder, read_metadata(folder))


def read_metadata(folder: Path) -> BundleMetadata:
    """Read a bundle folder's metadata and check every file against it.

    Raises:
        UserError: something is missing, malformed, or not what was packed.
    """
    path = folder / METADATA_FILE
    if not path.is_file():
        raise UserError(
            f"{str(folder)!r} is no model bundle: it holds no {METADATA_FILE}; "
            f"name a bundle folder or a {ARCHIVE_FILE}"
        )
    metadata = _parsed(path)
    if not metadata.is_as_sealed:
        raise UserError(
            f"the classes, their order or the preprocessing in {str(path)!r} were edited since "
            "the bundle was packed, and the network would be misread: fetch or train it again"
        )
    problems = [
        f"{name!r} of the bundle {str(folder)!r} {problem}: fetch or train the bundle again"
        for name in (ONNX_FILE, WEIGHTS_FILE)
        if (problem := _problem(folder / name, digest=metadata.files.get(name)))
    ]
    if problems:
        raise UserError(problems)
    _check_header(folder / WEIGHTS_FILE)
    return metadata


def pack(folder: Path, archive: Path) -> None:
    """Write a bundle folder as a tar.gz whose bytes depend on the files' content alone."""
    with (
        atomic_path(archive) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0, compresslevel=1) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tar,
    ):
        for name in FILES:
            tar.add(folder / name, arcname=name, filter=_anonymous)


@contextmanager
def open_bundle(path: Path) -> Iterator[Path]:
    """Yield the folder of a bundle; an archive is unpacked for the time of the block.

    Raises:
        UserError: neither a bundle folder nor an archive of one.
    """
    if path.is_dir():
        yield path
        return
    with TemporaryDirectory(prefix="darkroom-bundle-") as scratch:
        unpack(path, Path(scratch))
        yield Path(scratch)


def content_file(path: Path) -> Path:
    """The file whose content stands for all of a bundle, or of a file of weights.

    A bundle folder's metadata has the digests of its other files.
    """
    return path / METADATA_FILE if path.is_dir() else path


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the three files of a bundle archive, and nothing else, into `folder`.

    Raises:
        UserError: missing, not a tar archive, or with unexpected or missing members.
        DarkroomError: the files cannot be written.
    """
    if not archive.is_file():
        raise UserError(f"no model bundle at {str(archive)!r}")
    extract(archive, folder=folder, names=FILES)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that the metadata vouches for."""
    return {name: sha256_of(folder / name) for name in (ONNX_FILE, WEIGHTS_FILE)}


def _parsed(path: Path) -> BundleMetadata:
    size = path.stat().st_size
    if size > _MAX_METADATA_BYTES:
        raise UserError(
            f"{str(path)!r} is not valid bundle metadata: {size:,} bytes; "
            f"at most {_MAX_METADATA_BYTES:,}"
        )
    try:
        return BundleMetadata.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, found['loc'])) or 'content'}: {found['msg']}"
            for found in error.errors(include_url=False)[:_PROBLEMS_SHOWN]
        ]
        message = f"{str(path)!r} is not valid bundle metadata: {'; '.join(problems)}"
        raise UserError(message) from error


def _problem(path: Path, *, digest: str | None) -> str | None:
    if not path.is_file():
        return "is missing"
    if sha256_of(path) != digest:
        return "is not the file that was packed (its SHA-256 differs)"
    return None


def _check_header(path: Path) -> None:
    """Whether it holds tensors; their values are not read."""
    try:
        with safe_open(path, framework="numpy") as weights:
            count = len(list(weights.keys()))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{str(path)!r} is no safetensors file: {error}") from error
    if not count:
        raise UserError(f"{str(path)!r} holds no tensors: it is not the weights of a network")


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    member.mode = 0o644
    return member
