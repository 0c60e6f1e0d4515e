"""How benchmarks measure: sides by turns, each in a process of its own, peak memory, peak speed."""

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
from types import TracebackType
from typing import Any, Self

import torch

from resnet_cli.runtime.allocator import keep_freed_memory

Work = Callable[[], object]

if sys.platform == "win32":
    _STARTER = multiprocessing.get_context("spawn")
else:  # a process that has imported torch and computed nothing, of which each side is a fork
    _STARTER = multiprocessing.get_context("forkserver")
    _STARTER.set_forkserver_preload(["resnet_cli.bench.items"])


class Side:
    """Work in a process of its own, so that its memory is laid out as it would be alone.

    How the C library treats freed memory changes the speed of training by a fifth, and what one
    side did to it would slow or speed the other.
    """

    def __init__(
        self,
        prepare: Callable[..., Work],
        *arguments: object,
        ours: bool = True,
        threads: int | None = None,
    ) -> None:
        """Start the process and prepare the work there: `prepare(*arguments)` returns it.

        Args:
            ours: keep freed memory, as every command of ours does; plain code runs as torch does.
            threads: to compute with; None: as many as this process.
        """
        self.value: Any = None
        """What the work returned the last time; it has to be picklable."""
        self._pool = ProcessPoolExecutor(
            1,
            _STARTER,
            initializer=_begin,
            initargs=(threads or torch.get_num_threads(), ours),
        )
        self._pool.submit(_prepare, prepare, arguments).result()

    def seconds(self) -> float:
        """Carry the work out once; returns the seconds it took."""
        seconds, self.value = self._pool.submit(_carry_out).result()
        return seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown()


_work: Work | None = None
"""Of this process, if it is a side."""


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
    """Seconds of two ways to do the same work, measured by turns."""

    plain: tuple[float, ...]
    ours: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """plain / ours of each repeat."""
        return [a / b for a, b in zip(self.plain, self.ours, strict=True)]


def alternate(plain: Callable[[], float], ours: Callable[[], float], repeats: int) -> Timing:
    """Time two pieces of work by turns, `repeats` times each, the order changing every time.

    The machine may be busy with other things; what disturbs one turn disturbs both about equally,
    so the median of the ratios is steadier than either time.

    Args:
        plain, ours: carry the work out and return the seconds it took.
    """
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    for repeat in range(repeats):
        turn = [("plain", plain), ("ours", ours)]
        for name, work in turn if repeat % 2 == 0 else turn[::-1]:
            seconds[name].append(work())
    return Timing(tuple(seconds["plain"]), tuple(seconds["ours"]))


def timed(work: Work) -> float:
    """Seconds that a piece of work takes in this process."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def matrix_peak(repeats: int = 5, size: int = 2048) -> float:
    """GFLOP/s of a float32 matrix product on all threads: what this machine can do; the best."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b
    return 2 * size**3 / min(timed(lambda: a @ b) for _ in range(repeats)) / 1e9


def with_peak(function: Callable[..., float], *arguments: object) -> Work:
    """The work of a Side: function(*arguments), and what memory its process took.

    Returns:
        Work that returns what the function did, the peak resident memory of its process in MB,
        and how much of that the process took before it began.
    """

    def work() -> tuple[float, float, float]:
        with contextlib.suppress(OSError):  # Linux forgets the peak of the imports
            Path("/proc/self/clear_refs").write_text("5")
        before = _peak_megabytes()
        return function(*arguments), _peak_megabytes(), before

    return work


def _peak_megabytes() -> float:
    """The largest resident memory of this process so far."""
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def torchrun_seconds(processes: int, module: str, *arguments: str) -> float:
    """The seconds that a module prints when torchrun starts it in processes of one thread."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc-per-node", str(processes), "-m", module, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(launch, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout)


def command_seconds(*arguments: str) -> float:
    """Seconds of `resnet-cli` with these arguments, start of Python included."""
    command = [sys.executable, "-m", "resnet_cli", *arguments]
    return timed(lambda: subprocess.run(command, check=True, capture_output=True))
