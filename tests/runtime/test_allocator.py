"""Freed memory is kept, a second use of as much takes no new pages; or it is given back."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
from resnet_cli.runtime.allocator import keep_freed_memory, return_large_blocks
if sys.argv[1] != "as it is":
    assert keep_freed_memory()
if sys.argv[1] == "keep, then return":
    assert return_large_blocks()
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
c.free.argtypes = [ctypes.c_void_p]
size = 1 << 26
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = c.malloc(size)
    ctypes.memset(block, 1, size)
    c.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_kept() -> None:
    faults = {}
    for how in ("keep", "keep, then return", "as it is"):
        command = [sys.executable, "-c", PROGRAM, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        faults[how] = int(done.stdout)
    assert faults["keep"] < 100
    assert faults["keep, then return"] > 1000
    assert faults["as it is"] > 1000
