"""The model registry and lineage, kept in memory.

packages.py   model package groups and their versions: moto loses fields, reuses version
              numbers, deletes none; search
lineage.py    artifacts, actions, contexts, and what links them: the API
"""
