"""Running benchmarks, printing their results and writing their tables."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from resnet_cli.bench.catalog import ITEMS, NAMES, SCALING, Item
from resnet_cli.bench.items import MEASURES, BenchmarkResult
from resnet_cli.bench.measure import BenchmarkProcess, matrix_peak, with_peak
from resnet_cli.bench.scaling import point_seconds, points
from resnet_cli.bench.subjects import Settings
from resnet_cli.results.provenance import collect
from resnet_cli.results.tables import write_table
from resnet_cli.runtime.display import Display, duration
from resnet_cli.runtime.errors import unknown
from resnet_cli.runtime.interrupt import Interrupted, Stopper


def choose(names: Sequence[str], known: Sequence[str] = NAMES) -> list[str]:
    """The given benchmarks, or all known ones if none are given.

    Raises:
        UserError: there is no such benchmark.
    """
    for name in names:
        if name not in known:
            raise unknown("benchmark", name, known)
    return [name for name in known if not names or name in names]


def run_benchmarks(
    names: Sequence[str], settings: Settings, out: Path, display: Display, stopper: Stopper
) -> tuple[list[Path], dict[str, Any]]:
    """Run benchmarks and write bench.csv (every repeat), bench_summary.csv and bench_scaling.csv.

    Tables are rewritten after each item with the results so far.

    Returns:
        The files, and the summary's rows by item.

    Raises:
        Interrupted: `stopper` returned True; the results so far are written.
        UserError: there is no such benchmark, or a file cannot be written.
    """
    chosen = choose(names)
    started = datetime.now(UTC)
    peak = matrix_peak()
    threads = torch.get_num_threads()
    display.line(f"matrix product: {peak:.0f} GFLOP/s in float32 on {threads} threads")
    repeats: list[dict[str, Any]] = []
    summary: list[dict[str, Any]] = []
    scaling: list[dict[str, Any]] = []
    files: list[Path] = []
    described = {"benchmarks": chosen, "repeats": settings.repeats, "small": settings.small}
    described |= {"threads": threads, "matrix_gflops": peak}

    def write(stem: str, rows: list[dict[str, Any]]) -> None:
        provenance = collect(described, seeds=(0,), started=started)
        path = write_table(rows, stem, out, provenance)
        if path not in files:
            files.append(path)

    # No progress bar, because refreshing it would disturb the measurement.
    places = points(settings) if SCALING in chosen else []
    total = len(chosen) - (SCALING in chosen) + len(places)
    done, begun = 0, time.monotonic()

    def announce(title: str) -> None:
        nonlocal done
        left = (time.monotonic() - begun) / done * (total - done) if done else None
        about = f", about {duration(left)} left" if left is not None else ""
        done += 1
        display.line(f"{done} of {total}{about}: {title}")

    for item in ITEMS:
        if item.name not in chosen:
            continue
        if stopper():
            raise Interrupted("stopped between benchmarks; the results so far are written")
        announce(item.title)
        found = MEASURES[item.name](settings)
        repeats += _repeats(item, found)
        summary.append(_summary(item, found, peak))
        _show(item, found, display)
        write("bench", repeats)
        write("bench_summary", summary)
    for study, depth, images in places:
        if stopper():
            raise Interrupted("stopped between benchmarks; the results so far are written")
        title = f"{study}, depth {depth}, {images} images"
        announce(title)
        with BenchmarkProcess(with_peak, point_seconds, study, depth, images) as side:
            side.seconds()
        seconds, peak_memory, before = side.value
        megabytes = peak_memory - before
        scaling.append(
            {"study": study, "depth": depth, "images": images}
            | {"seconds": seconds, "peak_memory_mb": megabytes}
        )
        display.line(f"{title}: {seconds:.2f} s, {megabytes:.0f} MB")
        write("bench_scaling", scaling)
    return files, {row["item"]: row for row in summary}


def _repeats(item: Item, found: BenchmarkResult) -> list[dict[str, Any]]:
    """The rows of bench.csv for one item."""
    amounts = {"plain": found.plain_amount or found.amount, "ours": found.amount}
    return [
        {
            "item": item.name,
            "side": side,
            "repeat": repeat,
            "seconds": each,
            "amount": amounts[side],
            "work_unit": item.unit,
        }
        for side, seconds in found.seconds.items()
        for repeat, each in enumerate(seconds)
    ]


def _summary(item: Item, found: BenchmarkResult, peak: float) -> dict[str, Any]:
    """The row of bench_summary.csv for one item."""
    return {
        "item": item.name,
        "value": found.value,
        "lowest": min(found.values),
        "highest": max(found.values),
        "measured_in": item.measured_in,
        "target": item.target,
        "better": item.better,
        "reached": "yes" if item.is_reached(found.value) else "no",
        "gflops": found.gflops,
        "share_of_peak": found.gflops / peak if found.gflops else None,
        "remark": found.remark,
    }


def _show(item: Item, found: BenchmarkResult, display: Display) -> None:
    """Print one line with the result and whether it reaches the target."""
    verdict = "reached" if item.is_reached(found.value) else "NOT REACHED"
    sign = "at least" if item.better == "higher" else "at most"
    spread = ""
    if len(found.values) > 1:
        spread = f" ({min(found.values):.3g} to {max(found.values):.3g})"
    speed = f", {found.gflops:.0f} GFLOP/s" if found.gflops else ""
    remark = f"; {found.remark}" if found.remark else ""
    display.line(
        f"{item.title}: {found.value:.3g} {item.measured_in}{spread}, target {sign} "
        f"{item.target:g}: {verdict}{speed}{remark}",
        level=-1,
    )
