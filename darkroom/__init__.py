"""Darkroom's core: from labelled images to a deployed classifier, in plain Python.

Nothing here knows ZenML; the steps of the pipelines are thin calls into this package.
"""

__version__ = "0.1.0"
