"""Names made from a data source: for runs, and for the experiment and model of people's own."""

import hashlib
import re
import unicodedata
from urllib.parse import unquote

_SAYS_NOTHING = frozenset(
    ("archive", "data", "dataset", "download", "images", "main", "master", "photos", "pictures")
)
"""Last parts of a path that many sources share; the part before tells more."""


_DIGITS = 6
_ARCHIVE_ENDING = re.compile(r"\.(zip|tgz|tbz2?|txz|tar(\.(gz|bz2|xz))?)$", re.IGNORECASE)
_LONGEST = 60
"""Of a name that others are made of: of folders with up to 255 bytes, of endpoints with 63."""


def short_name(source: str) -> str:
    """The last part of a path or URI, without its ending: 's3://b/dogs.tar.gz' gives 'dogs'."""
    return _plain(_parts(source)[-1])[:_LONGEST].strip("-") or "data"


def own_name(source: str) -> str:
    """A name that experiment and model can have, the same for the same source.

    A part that says nothing gives way to the one before it: '/home/me/flowers/images' gives
    'flowers'. What loses letters, since they are not Latin or too many, gets a digest: two
    sources whose names differ there must not share an experiment and a registered model.
    """
    part = next((one for one in reversed(_parts(source)) if _plain(one) not in _SAYS_NOTHING), "")
    name = _plain(part)
    if not name or len(name) > _LONGEST or _loses_letters(part):
        exact = unicodedata.normalize("NFC", source)
        digest = hashlib.sha256(exact.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]
        kept = name[: _LONGEST - 1 - _DIGITS].strip("-")
        return f"{kept or 'images'}-{digest}"
    # The digits' experiment holds runs that nothing of one's own can be compared with.
    return f"{name}-images" if name == "digits" else name


def _parts(source: str) -> list[str]:
    location = re.sub(r"^[a-z0-9+]+:(//)?", "", source.split("?")[0].split("#")[0])
    parts = [unquote(part) for part in re.split(r"[/:\\]", location) if part]
    return [_ARCHIVE_ENDING.sub("", part) or part for part in parts] or [""]


def _plain(part: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", _without_accents(part)).strip("-").lower()


def _loses_letters(part: str) -> bool:
    return any(letter.isalnum() and not letter.isascii() for letter in _without_accents(part))


def _without_accents(text: str) -> str:
    return "".join(
        letter
        for letter in unicodedata.normalize("NFKD", text)
        if not unicodedata.combining(letter)
    )
