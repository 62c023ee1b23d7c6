"""Tuning jobs: several training jobs at once, and a search that learns from them.

space.py         parameter ranges, and the strings that containers get
strategies.py    Bayesian, Random, Grid, Hyperband: which values are tried next
criteria.py      when a job is stopped early, and when the search has found enough
jobs.py          a tuning job and its children, as kept and described
running.py       the thread that draws, starts, watches and learns
warm_start.py    what earlier tuning jobs found
operations.py    the API
"""
