"""Tuning as a managed job."""
