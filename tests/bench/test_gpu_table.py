"""The table of docs/speed.md is that of results/bench/cuda."""

import re
import statistics
from pathlib import Path

import pytest

from resnet_cli.results.tables import read_table
from resnet_cli.weights.cards import read_card

ROOT = Path(__file__).parents[2]


def test_the_documented_speeds_are_the_measured_ones() -> None:
    table = read_table(ROOT / "results" / "bench" / "cuda" / "bench_gpu.csv")
    text = (ROOT / "docs" / "speed.md").read_text()
    speeds = table[table["item"].str.startswith("train ")]
    by_network = speeds.pivot(index=["item", "precision"], columns="side", values="value")
    assert len(by_network) == 12
    for (item, precision), row in by_network.iterrows():
        network = item.removeprefix("train ")
        cells = f"| {network} | {precision} | {row['fast']:,.0f} | {row['plain']:,.0f} |"
        (line,) = [line for line in text.splitlines() if line.startswith(cells)]
        documented = float(line.split("|")[-2].removesuffix(" x "))
        assert abs(documented - row["fast"] / row["plain"]) < 0.06


def test_the_documented_checks_are_the_measured_ones() -> None:
    table = read_table(ROOT / "results" / "bench" / "cuda" / "bench_gpu_checks.csv")
    text = (ROOT / "docs" / "speed.md").read_text()
    steps = table[table["item"].str.startswith("step")]
    assert len(steps) == 6
    for _, row in steps.iterrows():
        units = "4 of 9 units" if row["item"].endswith("random units") else "all units"
        plain, limit = re.findall(r"plain (\S+), at most (\S+): agrees", row["remark"])[0]
        (line,) = [
            x for x in text.splitlines() if x.startswith(f"| {units} | {row['precision']} |")
        ]
        fast, *others = [cell.strip() for cell in line.split("|")[3:6]]
        assert float(fast) == pytest.approx(row["value"], rel=0.05)
        assert others == [plain, limit]


def test_the_documented_speeds_of_varying_units_are_those_of_the_cards() -> None:
    text = " ".join((ROOT / "docs" / "speed.md").read_text().split())
    speeds = []
    for name in ("preact110-sd-cifar10", "preact110-active23-cifar10"):
        rows = read_card(name)["training"]["rows"]
        median = statistics.median(row["images_per_second"] for row in rows)
        speeds.append(f"{round(median, -2):,.0f}")
    assert f"reached about {speeds[0]} and {speeds[1]} images/s" in text
