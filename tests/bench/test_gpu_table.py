"""The table of docs/speed.md is that of results/bench/cuda."""

from pathlib import Path

from resnet_cli.results.tables import read_table

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
