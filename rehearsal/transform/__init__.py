"""Transform jobs: a model's container, and every object of a prefix posted to it.

records.py       cutting objects into requests, joining answers
objects.py       which objects, and where their results go
jobs.py          a transform job, as kept, described and run
operations.py    the API
"""
