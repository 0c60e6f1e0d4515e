"""How benchmarks measure: two alternating sides in separate processes, peak memory, peak speed."""

import contextlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from resnet_cli.runtime.allocator import keep_freed_memory

Work = Callable[[], object]

if sys.platform == "win32":
    _STARTER = multiprocessing.get_context("spawn")
else:  # each side is forked from a process that has imported torch but computed nothing
    _STARTER = multiprocessing.get_context("forkserver")
    _STARTER.set_forkserver_preload(["resnet_cli.bench.items"])


class BenchmarkProcess:
    """One side of a benchmark, in its own process, so that the two sides do not share memory.

    The way the C library treats freed memory changes the speed of training by a fifth, so in one
    process each side would affect the other.
    """

    def __init__(
        self,
        prepare: Callable[..., Work],
        *arguments: object,
        ours: bool = True,
        threads: int | None = None,
    ) -> None:
        """Start the process and prepare the work there with `prepare(*arguments)`.

        Args:
            ours: keep freed memory, as every command of this program does; the baseline uses the
                default.
            threads: number of threads; None means the same as in this process.
        """
        self.value: Any = None
        """The last return value of the work, which must be picklable."""
        self._pool = ProcessPoolExecutor(
            1,
            _STARTER,
            initializer=_begin,
            initargs=(threads or torch.get_num_threads(), ours),
        )
        self._pool.submit(_prepare, prepare, arguments).result()

    def seconds(self) -> float:
        """Do the work once; return its duration in seconds."""
        seconds, self.value = self._pool.submit(_carry_out).result()
        return seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown()


_work: Work | None = None
"""The work of this process, if it is a side."""


def _begin(threads: int, ours: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command stops between benchmarks
    torch.set_num_threads(threads)
    if ours:
        keep_freed_memory()


def _prepare(prepare: Callable[..., Work], arguments: tuple[object, ...]) -> None:
    global _work
    _work = prepare(*arguments)


def _carry_out() -> tuple[float, object]:
    assert _work is not None
    start = time.perf_counter()
    value = _work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, value


@dataclass(frozen=True)
class Timing:
    """Durations in seconds of two ways to do the same work, measured alternately."""

    plain: tuple[float, ...]
    ours: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """plain / ours for each repeat."""
        return [a / b for a, b in zip(self.plain, self.ours, strict=True)]


def alternate(plain: Callable[[], float], ours: Callable[[], float], repeats: int) -> Timing:
    """Time two pieces of work alternately, `repeats` times each; every repeat reverses the order.

    Other load on the machine affects both sides of a repeat about equally, so the median of the
    ratios varies less than either time.

    Args:
        plain, ours: do the work and return its duration in seconds.
    """
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    for repeat in range(repeats):
        turn = [("plain", plain), ("ours", ours)]
        for name, work in turn if repeat % 2 == 0 else turn[::-1]:
            seconds[name].append(work())
    return Timing(tuple(seconds["plain"]), tuple(seconds["ours"]))


def timed(work: Work) -> float:
    """The duration of a piece of work in this process, in seconds."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def matrix_peak(repeats: int = 5, size: int = 2048) -> float:
    """GFLOP/s of a float32 matrix product on all threads, the best of several repeats."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b
    return 2 * size**3 / min(timed(lambda: a @ b) for _ in range(repeats)) / 1e9


def with_peak(function: Callable[..., float], *arguments: object) -> Work:
    """Work that calls function(*arguments) and measures the memory of its process.

    Returns:
        Work that returns the function's result, the peak resident memory of its process in MB, and
        the peak before the function was called.
    """

    def work() -> tuple[float, float, float]:
        with contextlib.suppress(OSError):  # on Linux, reset the peak reached during imports
            Path("/proc/self/clear_refs").write_text("5")
        before = _peak_megabytes()
        return function(*arguments), _peak_megabytes(), before

    return work


def _peak_megabytes() -> float:
    """The peak resident memory of this process so far, in MB."""
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def torchrun_seconds(processes: int, module: str, *arguments: str) -> float:
    """The seconds printed by a module that torchrun runs in several processes of one thread."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc-per-node", str(processes), "-m", module, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(launch, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout)


def command_seconds(*arguments: str) -> float:
    """The duration of `resnet-cli` with these arguments, including the start of Python."""
    command = [sys.executable, "-m", "resnet_cli", *arguments]
    return timed(lambda: subprocess.run(command, check=True, capture_output=True))
