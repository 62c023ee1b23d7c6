"""Tags of what we keep; moto keeps those of its own."""

from collections.abc import Iterable, Mapping

from rehearsal.emulator.state import State


def keep_tags(arn: str, tags: Iterable[Mapping[str, str]], *, state: State) -> None:
    """Add tags to one of our resources; those of the same key are replaced."""
    kept = state.tags(arn)
    with state.lock:
        kept.update({tag["Key"]: tag["Value"] for tag in tags})
