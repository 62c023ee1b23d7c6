"""What all List operations have in common: filters, order, pages."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rehearsal.emulator.errors import invalid
from rehearsal.emulator.operations import Answer, Request

_PAGE = 100
_STANDARD_ORDER = "Descending"


def page(rows: Sequence[Mapping[str, Any]], *, request: Request, key: str, kind: str) -> Answer:
    """The rows that the request asks for.

    Args:
        rows: with <kind>Name, CreationTime, LastModifiedTime, <kind>Status.
        key: name of the list in the answer.
        kind: such as "TrainingJob".
    """
    chosen = [row for row in rows if _matches(row, request, kind=kind)]
    field = {"Name": f"{kind}Name", "Status": f"{kind}Status"}.get(
        request.get("SortBy", "CreationTime"), "CreationTime"
    )
    descending = request.get("SortOrder", _STANDARD_ORDER) == "Descending"
    chosen.sort(key=lambda row: row.get(field, ""), reverse=descending)
    return cut(chosen, request=request, key=key)


def cut(rows: Sequence[Mapping[str, Any]], *, request: Request, key: str) -> Answer:
    """One page of rows that are in order already."""
    start = _start(request.get("NextToken", "0"))
    end = start + int(request.get("MaxResults", _PAGE))
    answer: dict[str, Any] = {key: list(rows[start:end])}
    if end < len(rows):
        answer["NextToken"] = str(end)
    return answer


def _start(token: str) -> int:
    if not token.isdecimal():
        raise invalid(f"Invalid NextToken: {token!r}")
    return int(token)


def _matches(row: Mapping[str, Any], request: Request, *, kind: str) -> bool:
    name, status = str(row.get(f"{kind}Name", "")), row.get(f"{kind}Status")
    return (
        request.get("NameContains", "").lower() in name.lower()
        and request.get("StatusEquals", status) == status
        and is_in_time(row, request, field="CreationTime")
        and is_in_time(row, request, field="LastModifiedTime")
    )


def is_in_time(row: Mapping[str, Any], request: Request, *, field: str, prefix: str = "") -> bool:
    """Whether a moment of a row lies between those of <prefix>After and <prefix>Before.

    Args:
        field: of the row, and the prefix where none is given.
    """
    prefix = prefix or field
    moment = row.get(field)
    after, before = request.get(f"{prefix}After"), request.get(f"{prefix}Before")
    if not isinstance(moment, datetime):
        return True
    return (after is None or moment >= _moment(after)) and (
        before is None or moment <= _moment(before)
    )


def _moment(value: float) -> datetime:
    """Timestamps travel as seconds since 1970."""
    return datetime.fromtimestamp(value, UTC)
