"""A program that holds a lock of Darkroom's."""

HOLDS = """
import sys
from pathlib import Path
from darkroom.base.locks import alone
with alone(Path(sys.argv[1]), doing="", name="other-run"):
    print("held", flush=True)
    sys.stdin.read()
"""
