"""Figures drawn again from committed tables."""

from pathlib import Path

import pytest

from resnet_cli.cli import run_command
from resnet_cli.report.redraw import main as redraw_main
from resnet_cli.report.redraw import redraw

RESULTS = Path(__file__).parents[2] / "results"


def test_redrawn_plots_are_those_that_run_drew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["run", "veit2016/fig3", "--profile", "smoke", "-q"]) == 0
    before = {path: path.read_bytes() for path in Path("results").rglob("*.png")}
    assert len(before) == 3  # one of each case, one of both
    for path in before:
        path.unlink()
    redraw_main(["results"])
    assert {path: path.read_bytes() for path in Path("results").rglob("*.png")} == before


@pytest.mark.parametrize(
    ("folder", "plots"),
    [
        ("veit2016/cpu/fig5a", ["lesion_count.png", "lesion_single.png"]),
        ("veit2016/cpu/fig3", ["lesion_single.png"]),
        (
            "veit2016/third-party/fig6",
            ["path_spectrum.png", "path_spectrum_stages.png", "paths.png"],
        ),
        ("he2016/mini/table1", ["table.png", "training.png"]),
    ],
)
def test_plots_are_drawn_again_from_tables_alone(
    tmp_path: Path, folder: str, plots: list[str]
) -> None:
    for source in (RESULTS / folder).rglob("*"):
        if source.suffix in (".csv", ".json"):
            copy = tmp_path / source.relative_to(RESULTS / folder)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(source.read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    written = redraw(tmp_path)
    assert sorted(path.name for path in written) == plots
    assert all(path.stat().st_size < 200_000 for path in written)
    assert all(path.read_bytes() == old for path, old in before.items())
