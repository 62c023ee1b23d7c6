"""Predictions for a whole source: what `run.py batch` and its components call.

order        what is asked for
selecting    which images of a source;  labelling  what their folders say they show
predicting   in this process; goes on where an interrupted batch was
rows         what is known of one image;  table  of all of them, in files
tables       as CSV and Parquet
scoring      metrics, where labels are known
"""
