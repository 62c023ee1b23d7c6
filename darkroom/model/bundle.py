"""The model bundle: data, never code.

A bundle is a folder, or the same packed as model.tar.gz with its files at the root:

    model.json          BundleMetadata: classes, preprocessing, digests of the other files, …
    model.onnx          the network as ONNX Runtime loads it: float32 (N, 3, S, S) to logits
    model.safetensors   the network's state_dict

Reading needs no torch. Every file's SHA-256 is checked against model.json, and the weights'
header is read, so that nothing is ever served that was not packed as a bundle.
"""

import gzip
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from safetensors import SafetensorError, safe_open

from darkroom.engines.protocol import DEFAULT_ENGINE, EngineName
from darkroom.errors import UserError
from darkroom.files import atomic_path, sha256_of
from darkroom.images import Preprocessing
from darkroom.model.archive_reading import extract
from darkroom.model.parity import Parity

METADATA_FILE = "model.json"
ONNX_FILE = "model.onnx"
WEIGHTS_FILE = "model.safetensors"
ARCHIVE_FILE = "model.tar.gz"
FILES = (METADATA_FILE, ONNX_FILE, WEIGHTS_FILE)
_MAXIMUM_METADATA_BYTES = 16 * 2**20
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
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

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
    if size > _MAXIMUM_METADATA_BYTES:
        raise UserError(
            f"{str(path)!r} is not valid bundle metadata: {size:,} bytes; "
            f"at most {_MAXIMUM_METADATA_BYTES:,}"
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
