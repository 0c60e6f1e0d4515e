"""How the C library treats freed memory: kept for the next use, or given back.

Training frees gigabytes at every step and takes them again at the next. glibc hands large blocks
back to the system at once, which then fills every page with zeros anew: a sixth of a training step
of a ResNet-110 on two cores. Told to keep them, it does not; the memory of the process then stays
at its peak.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h."""
_LARGEST_BLOCK = 1 << 30
_KEPT = (1 << 31) - 1
_LARGE_BLOCK = 4_000_000
"""Bytes from which a block is mapped on its own where large blocks are given back."""


def keep_freed_memory() -> bool:
    """Let the process keep what it frees, for its next use.

    Returns:
        whether the C library could be told so; others than glibc cannot.
    """
    return _set(_MMAP_THRESHOLD, _LARGEST_BLOCK) and _set(_TRIM_THRESHOLD, _KEPT)


def return_large_blocks() -> bool:
    """Have the process map large blocks each on its own, and so return them when freed: slower,
    and for networks that recompute their units because memory is short.

    glibc raises its threshold for that to 32 MB as soon as such blocks are freed, and the
    activations of a deep network at 32x32 pixels then lie in the heap, where the small ones left
    between them keep the holes from being used again. One training step of ResNet-1001 (original
    units, batch 64, units recomputed) took 8.4 GB with it and 4.3 GB without, and half again as
    long.

    Returns:
        whether the C library could be told so; others than glibc cannot.
    """
    return _set(_MMAP_THRESHOLD, _LARGE_BLOCK)


def _set(parameter: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(parameter, value))
    except (OSError, AttributeError):  # musl has none
        return False
