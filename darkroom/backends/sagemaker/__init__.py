"""Managed jobs on Amazon SageMaker, through boto3.

requests/ builds what is sent, as plain dicts and without a connection; the other modules send
it, follow what runs and bring home what comes of it.
"""
