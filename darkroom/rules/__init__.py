"""Judging a training: rules over what was recorded of it. Needs numpy and pydantic, no torch."""
