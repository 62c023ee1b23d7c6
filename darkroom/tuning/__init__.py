"""The search for hyperparameters.

search.py runs it, study.py is its memory, by Optuna; stopping.py says when it is enough,
results.py what comes of it.
"""
