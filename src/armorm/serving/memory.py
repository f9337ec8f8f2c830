"""Memory that the C library keeps of what was freed, given back to the system.

In: nothing.  Out: a smaller process.  Cost: 30 ms a time, and the pages that are needed again.

Batches differ in their shapes, and what they free is left in glibc's heap as holes that the next one doesn't fit into: a process
that scores for days would hold half as much again as it needs.
"""

from __future__ import annotations

import ctypes
import sys
import time

GIVE_BACK_SECONDS = 10.0
"""Seconds between two times."""


class FreedMemory:
    """Gives freed memory back now and then. Where the C library is not glibc, there is nothing to do."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._trim = getattr(library, "malloc_trim", None)
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last time is long enough ago."""
        return self._trim is not None and time.monotonic() - self._last > GIVE_BACK_SECONDS

    def give_back(self) -> None:
        """Give back whole pages that are free. Other threads' allocations wait meanwhile."""
        if self._trim is not None:
            self._trim(ctypes.c_size_t(0))
        self._last = time.monotonic()
