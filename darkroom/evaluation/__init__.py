"""Judging a model: metrics, their intervals, findings, and the gate before deployment."""
