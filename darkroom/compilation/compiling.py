"""A bundle that says which engine runs it best."""

import shutil
from pathlib import Path

from darkroom.engines.protocol import EngineName
from darkroom.errors import UserError
from darkroom.files import atomic_path, link_or_copy, write_text
from darkroom.model.bundle import METADATA_FILE, ONNX_FILE, WEIGHTS_FILE, Bundle


def bundle_for(bundle: Bundle, *, engine: EngineName, folder: Path) -> Bundle:
    """The bundle as `folder`, compiled for an engine; weights and network are the same files.

    Raises:
        UserError: `folder` exists and is no bundle.
    """
    if folder.exists() and not (folder / METADATA_FILE).is_file():
        raise UserError(f"{str(folder)!r} exists and is no model bundle: name another folder")
    metadata = bundle.metadata.model_copy(update={"engine": engine})
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name in (ONNX_FILE, WEIGHTS_FILE):
            link_or_copy(bundle.folder / name, temporary / name)
        write_text(temporary / METADATA_FILE, metadata.model_dump_json(indent=1))
        shutil.rmtree(folder, ignore_errors=True)
    return Bundle(folder, metadata)
