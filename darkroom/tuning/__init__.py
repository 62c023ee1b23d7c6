"""The search for hyperparameters: search.py runs it by Optuna, results.py is what comes of it."""
