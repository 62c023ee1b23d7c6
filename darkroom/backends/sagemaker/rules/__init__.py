"""AWS's rules by kind of request; `request_rules` puts them together.

problem.py     one broken rule
members.py     tags, roles, S3 URIs, environments: wherever they stand
training.py    training jobs: spot, warm pools, channels, metrics
tuning.py      tuning jobs: strategies, ranges, objective, warm start
hosting.py     models, endpoint configurations, deployments
jobs.py        processing and transform jobs
"""
