"""Predictions for a whole source: what `run.py batch` and its components call.

selecting    which images of a source, and what they show
predicting   in this process; goes on where an interrupted batch was
rows         what is known of one image
tables       rows as CSV and Parquet
scoring      metrics, where labels are known
"""
