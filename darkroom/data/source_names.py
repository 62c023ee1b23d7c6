"""What a source string means."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from darkroom.base.errors import UserError

Kind = Literal["digits", "path", "http", "s3"]

ALLOWED = (
    "a folder, an archive (.zip, .tar, .tar.gz, .tar.bz2, .tar.xz), an http(s) URL of one, "
    "s3://bucket/prefix, polyvore:FOLDER, or 'digits'"
)
_POLYVORE = "polyvore:"


@dataclass(frozen=True, slots=True)
class Source:
    """A source string, taken apart."""

    kind: Kind
    location: str
    """Path, URL or URI; empty for the digits."""
    polyvore: bool = False
    """Whether the files there are the Polyvore data set, not class folders."""

    @property
    def public_name(self) -> str:
        """The source for people to read: without the passwords and signatures of a URL."""
        prefix = _POLYVORE if self.polyvore else ""
        return prefix + (public_url(self.location) if self.kind == "http" else self._plain)

    @property
    def _plain(self) -> str:
        return "digits" if self.kind == "digits" else self.location


def parse_source(text: str) -> Source:
    """Take a source string apart.

    Raises:
        UserError: the string is empty or of a scheme that is not supported.
    """
    polyvore = text.startswith(_POLYVORE)
    location = text.removeprefix(_POLYVORE).strip()
    if not location:
        raise UserError(f"data source {text!r} names nothing. Give {ALLOWED}.")
    if location == "digits" and not polyvore:
        return Source(kind="digits", location="")
    return Source(kind=_kind_of(location), location=location, polyvore=polyvore)


def public_url(url: str) -> str:
    """A URL without user name, password, query and fragment, which may hold secrets."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _kind_of(location: str) -> Kind:
    scheme, separator, _ = location.partition("://")
    if not separator:
        return "path"
    if scheme.lower() in ("http", "https"):
        return "http"
    if scheme.lower() == "s3":
        return "s3"
    raise UserError(f"data source {location!r} has the unknown scheme {scheme!r}. Give {ALLOWED}.")
