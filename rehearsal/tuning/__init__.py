"""Tuning jobs: several training jobs at once, and a search that learns from them.

space.py         parameter ranges, and the strings that containers get
jobs.py          a tuning job and its children, as kept and described; when a job is stopped early
operations.py    the API; the strategies, and the thread that draws, starts, watches and learns
"""
