"""The C library's memory: how it is told to give large blocks back."""

import ctypes

LARGE_BLOCK = 4_000_000
"""Bytes from which a block is mapped on its own."""
_M_MMAP_THRESHOLD = -3  # from malloc.h


def return_large_blocks() -> bool:
    """Have the process map large blocks each on its own, and so return them when freed.

    glibc raises its threshold for that to 32 MB as soon as such blocks are freed, and the
    activations of a deep network at 32x32 pixels then lie in the heap, where the small ones left
    between them keep the holes from being used again. One training step of ResNet-1001 (original
    units, batch 64, units recomputed) took 8.4 GB with it and 4.3 GB without, and half again as
    long.

    Returns:
        whether the C library could be told so; others than glibc cannot.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK))
    except (AttributeError, OSError, TypeError):
        return False
