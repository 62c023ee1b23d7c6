"""The model registry and lineage, kept in memory.

packages.py             model package groups and their versions, as kept and described
package_operations.py   their API; moto loses fields, reuses version numbers, deletes none
lineage.py              artifacts, actions, contexts, and what links them: the API
"""
