"""The components, one a file: module = stage, function = verb_object.

What takes long to import (torch, matplotlib) is imported inside the component that uses it,
so that a run starts soon and a component reused from the cache costs nothing.
"""
