"""Sets the memory policy of glibc's allocator for processes that host a model.

Tensors and arrays of the same sizes are allocated and freed all the time. While a block is
processed, freed memory stays with the process, because faulting it in again costs as much as a
convolution: the convolutional encoder of nano takes 60 ms per image instead of 126 (512 px, two
cores). Between blocks, free memory goes back to the system, so a replica does not grow over a long
run. Without glibc, nothing happens.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
"""Parameter numbers of `mallopt` from glibc's malloc.h."""


def tune_allocator() -> None:
    """Makes the process keep freed memory of any size.

    Call it before any thread starts, because the arenas of threads return their memory regardless.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(_MMAP_MAX, 0)
        tune(_TRIM_THRESHOLD, 2**31 - 1)
        tune(_ARENA_MAX, 1)


def trim_allocator() -> None:
    """Returns all memory that is free now to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
