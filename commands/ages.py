"""How old something is, for people."""

from datetime import UTC, datetime


def age(created: datetime | None) -> str:
    """In days, hours or minutes; a dash where nobody knows."""
    if created is None:
        return "–"
    minutes = int((datetime.now(UTC) - created).total_seconds() // 60)
    hours, days = minutes // 60, minutes // (24 * 60)
    return f"{days} d" if days else f"{hours} h" if hours else f"{minutes} min"
