"""A short name for a data source, for run names."""

import re


def short_name(source: str) -> str:
    """The last part of a path or URI, without its ending: 's3://b/dogs.tar.gz' gives 'dogs'."""
    last = re.split(r"[/:]", source.split("?")[0].rstrip("/"))[-1]
    stem = last.split(".")[0]
    return re.sub(r"[^A-Za-z0-9-]+", "-", stem).strip("-").lower() or "data"
