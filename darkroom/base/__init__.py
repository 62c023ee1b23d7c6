"""Errors, files, locks, progress, threads and child processes."""
