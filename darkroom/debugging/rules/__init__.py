"""Rules over what was recorded of a training. Needs numpy and pydantic, no torch."""
