"""MLflow: the only part of Darkroom that imports it.

runs.py       runs, nested runs, metrics, figures and reports
registry.py   the model registry
pyfunc.py     a bundle as MLflow's generic "python function" model
"""
