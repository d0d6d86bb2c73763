"""The allocator of this process, told to keep what tensors leave behind."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
"""glibc's malloc.h."""


def keep_memory() -> None:
    """Do not hand large blocks back to the system at each free: faulting them in again costs as much as a convolution.

    The convolutional encoder of nano takes 60 ms an image instead of 126 (512 px, two cores). Before any thread starts,
    since the arenas of threads hand back all the same. Elsewhere than on glibc, nothing happens.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(_MMAP_MAX, 0)
        tune(_TRIM_THRESHOLD, 2**31 - 1)
        tune(_ARENA_MAX, 1)
