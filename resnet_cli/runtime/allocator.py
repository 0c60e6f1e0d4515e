"""How the C library treats freed memory: kept for reuse, or returned to the system.

Training frees gigabytes at every step and allocates them again at the next. By default glibc
returns large blocks to the system at once, and the system zeroes every page when it is next used:
a sixth of a ResNet-110's training step on two cores. Keeping the blocks avoids that, but the
process's memory then stays at its peak.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in glibc's malloc.h."""
_LARGEST_BLOCK = 1 << 30
_KEPT = (1 << 31) - 1
_LARGE_BLOCK = 4_000_000
"""Smallest block, in bytes, that is mapped separately when large blocks are returned."""


def keep_freed_memory() -> bool:
    """Keep freed memory in the process for reuse.

    Returns:
        Whether the C library supports it; only glibc does.
    """
    return _set(_MMAP_THRESHOLD, _LARGEST_BLOCK) and _set(_TRIM_THRESHOLD, _KEPT)


def return_large_blocks() -> bool:
    """Map large blocks separately, so that they are returned to the system when freed. This is
    slower, and meant for networks that recompute their units to save memory.

    By default glibc raises its threshold to 32 MB as soon as such blocks are freed. The activations
    of a deep network at 32x32 pixels then lie in the heap, where small blocks between them keep the
    gaps from being reused. One training step of ResNet-1001 (original units, batch 64, units
    recomputed) took 8.4 GB by default and 4.3 GB with this setting, but 50 % more time.

    Returns:
        Whether the C library supports it; only glibc does.
    """
    return _set(_MMAP_THRESHOLD, _LARGE_BLOCK)


def _set(parameter: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(parameter, value))
    except (OSError, AttributeError):  # musl has no mallopt
        return False
