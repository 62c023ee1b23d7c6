"""Names made from a data source: for runs, and for the experiment and model of people's own."""

import hashlib
import re
from urllib.parse import unquote

_SAYS_NOTHING = frozenset(
    ("archive", "data", "dataset", "download", "images", "main", "master", "photos", "pictures")
)
"""Last parts of a path that many sources share; the part before tells more."""


def short_name(source: str) -> str:
    """The last part of a path or URI, without its ending: 's3://b/dogs.tar.gz' gives 'dogs'."""
    return _plain(_parts(source)[-1]) or "data"


def own_name(source: str) -> str:
    """A name that experiment and model can have, the same for the same source.

    A part that says nothing gives way to the one before it: '/home/me/flowers/images' gives
    'flowers'. Names in other scripts than Latin get a digest, to be told apart.
    """
    parts = _parts(source)
    names = [name for part in reversed(parts) if (name := _plain(part))]
    name = next((name for name in names if name not in _SAYS_NOTHING), "")
    if not _plain(parts[-1]) or not name:
        digest = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:6]
        name = f"images-{digest}"
    # The digits' experiment holds runs that nothing of one's own can be compared with.
    return f"{name}-images"[:80] if name == "digits" else name[:80]


def _parts(source: str) -> list[str]:
    location = re.sub(r"^[a-z0-9+]+:(//)?", "", source.split("?")[0].split("#")[0])
    parts = [unquote(part) for part in re.split(r"[/:\\]", location) if part]
    return [re.sub(r"\.[^.]{1,5}$", "", part.removesuffix(".gz")) or part for part in parts] or [""]


def _plain(part: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", part).strip("-").lower()
