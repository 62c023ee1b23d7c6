"""Predictions for a whole source: what `run.py batch` and its components call.

selection    which images of a source, and what their folders say they show
prediction   in this process; goes on where an interrupted batch was
table        what is known of the images, as CSV and Parquet
scoring      metrics, where labels are known
"""
