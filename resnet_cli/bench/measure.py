"""How benchmarks measure: alternating repeats, peak memory in a process of its own, peak speed."""

import contextlib
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of two ways to do the same work, measured by turns."""

    plain: tuple[float, ...]
    ours: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """plain / ours of each repeat."""
        return [a / b for a, b in zip(self.plain, self.ours, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def alternate(plain: Callable[[], object], ours: Callable[[], object], repeats: int) -> Timing:
    """Time two pieces of work by turns, `repeats` times each, the order changing every time.

    The machine may be busy with other things; what disturbs one turn disturbs both about equally,
    so the median of the ratios is steadier than either time.
    """
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    for repeat in range(repeats):
        turn = [("plain", plain), ("ours", ours)]
        for name, work in turn if repeat % 2 == 0 else turn[::-1]:
            seconds[name].append(timed(work))
    return Timing(tuple(seconds["plain"]), tuple(seconds["ours"]))


def timed(work: Callable[[], object]) -> float:
    """Seconds that a piece of work takes."""
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


def in_new_process(
    function: Callable[..., float], *arguments: object
) -> tuple[float, float, float]:
    """function(*arguments) in a process of its own.

    Returns:
        What it returned, the peak resident memory of its process in MB, and how much of that the
        process took before it began.
    """
    context = multiprocessing.get_context("spawn")
    threads = torch.get_num_threads()
    with context.Pool(1, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        return pool.apply(_with_peak, (function, *arguments))


def _with_peak(function: Callable[..., float], *arguments: object) -> tuple[float, float, float]:
    with contextlib.suppress(OSError):  # Linux forgets the peak of the imports
        Path("/proc/self/clear_refs").write_text("5")
    before = _peak_megabytes()
    return function(*arguments), _peak_megabytes(), before


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
