"""How the C library treats freed memory.

Training frees gigabytes at every step and takes them again at the next. glibc hands large blocks
back to the system at once, which then fills every page with zeros anew: a sixth of a training step
of a ResNet-110 on two cores. Told to keep them, it does not; the memory of the process then stays
at its peak.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Of glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """Let the process keep what it frees, for its next use. Returns whether the C library agreed;
    where it is not glibc nothing changes.

    All threads share one arena, since those of others are handed back whatever the thresholds.
    """
    return _set({_ARENA_MAX: 1, _MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: (1 << 31) - 1})


def hand_back_freed_memory() -> bool:
    """The thresholds that glibc's own adapt to in a program that frees large blocks, so that plain
    code can be measured in this process as it would run in its own."""
    return _set({_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20})


def _set(parameters: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    agreed = [mallopt(parameter, value) for parameter, value in parameters.items()]
    return all(agreed)
