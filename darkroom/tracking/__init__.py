"""MLflow: the only part of Darkroom that imports it.

runs.py       runs, nested runs, metrics, figures and reports
registry.py   the model registry
store.py      the database of a local MLflow
pyfunc.py     a bundle as MLflow's generic "python function" model
"""
