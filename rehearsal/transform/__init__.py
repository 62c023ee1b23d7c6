"""Transform jobs: a model's container, and every object of a prefix posted to it.

objects.py       which objects, and where their results go
records.py       cutting objects into requests, joining answers
settings.py      how the container is asked
jobs.py          a transform job, as kept and described
running.py       its thread
operations.py    the API
"""
