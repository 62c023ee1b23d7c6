"""The search for hyperparameters.

search.py runs it, study.py is its memory, by Optuna; results.py is what comes of it.
"""
