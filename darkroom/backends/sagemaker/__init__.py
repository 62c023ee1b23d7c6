"""Managed jobs on Amazon SageMaker, through boto3.

A subject is one folder: its request as a plain dict, AWS's rules for it, its course, its results.
What the subjects share stands here: session, retry, names and tags (resources), rules of
requests.
"""
