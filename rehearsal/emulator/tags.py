"""Tags of what we keep; moto keeps those of its own."""

from collections.abc import Iterable, Mapping

from rehearsal.emulator.errors import invalid
from rehearsal.emulator.operations import Answer, Request, cut, operation
from rehearsal.emulator.state import State

# --- tags ---
# Tags of what we keep; moto keeps those of its own.


def keep_tags(arn: str, tags: Iterable[Mapping[str, str]], *, state: State) -> None:
    """Add tags to one of our resources; those of the same key are replaced."""
    kept = state.tags(arn)
    with state.lock:
        kept.update({tag["Key"]: tag["Value"] for tag in tags})


# --- tag operations ---

_MOST = 50


@operation("AddTags")
def add_tags(request: Request, *, state: State) -> Answer | None:
    """Add tags, or replace their values."""
    if not state.has_tags(request["ResourceArn"]):
        return None
    with state.lock:
        kept = state.tags(request["ResourceArn"])
        together = kept | {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        if len(together) > _MOST:
            raise invalid(f"{len(together)} tags: a resource may have {_MOST}")
        kept.update(together)
    return {"Tags": _listed(kept)}


@operation("ListTags")
def list_tags(request: Request, *, state: State) -> Answer | None:
    """The tags of a resource."""
    if not state.has_tags(request["ResourceArn"]):
        return None
    return cut(_listed(state.tags(request["ResourceArn"])), request=request, key="Tags")


@operation("DeleteTags")
def delete_tags(request: Request, *, state: State) -> Answer | None:
    """Remove tags; those that are not there are no error."""
    if not state.has_tags(request["ResourceArn"]):
        return None
    with state.lock:
        for key in request["TagKeys"]:
            state.tags(request["ResourceArn"]).pop(key, None)
    return {}


def _listed(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
