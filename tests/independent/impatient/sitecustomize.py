"""On PYTHONPATH, it shortens what a program only sleeps; its clock goes on as if it had slept.

SDKs look every 5 to 60 seconds after jobs that take hours; here they take a second.
"""

import time

_LONGEST = 0.2
_sleep, _time = time.sleep, time.time
_skipped = 0.0


def _impatient_sleep(seconds: float) -> None:
    global _skipped
    _sleep(min(seconds, _LONGEST))
    _skipped += max(0.0, seconds - _LONGEST)


time.sleep = _impatient_sleep
time.time = lambda: _time() + _skipped
