"""Figures redrawn from committed tables."""

import json
import shutil
from pathlib import Path

import pytest

from resnet_cli.cli import run_command
from resnet_cli.report.redraw import main as redraw_main
from resnet_cli.report.redraw import measured_last, redraw
from resnet_cli.results.tables import read_provenance
from resnet_cli.weights.cards import bundled_path

NETWORKS = ["--checkpoint", "preact56-digits", "--checkpoint", "copy.safetensors"]
RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.parametrize(
    "command",
    [
        ["run", "veit2016/fig3", "--profile", "smoke"],
        ["lesion", "--blocks", "1", "--images", "20", "--out", "results/depth", *NETWORKS],
    ],
    ids=["an experiment", "networks"],
)
def test_redrawn_plots_are_those_that_were_drawn(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(bundled_path("preact56-digits"), "copy.safetensors")
    assert run_command([*command, "-q"]) == 0
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
        ("veit2016/resnet20", []),  # two studies of one network: no figure of both
        ("he2016/mini/table1", ["table.png", "training.png"]),
    ],
)
def test_plots_are_drawn_again_from_tables_alone(
    tmp_path: Path, folder: str, plots: list[str]
) -> None:
    copied(folder, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    written = redraw(tmp_path)
    assert sorted(path.name for path in written) == plots
    assert all(path.stat().st_size < 200_000 for path in written)
    assert all(path.read_bytes() == old for path, old in before.items())


def test_a_figure_of_all_cases_has_the_configuration_measured_last(tmp_path: Path) -> None:
    sources = {"a": "veit2016/resnet20/fig3", "b": "veit2016/cpu/fig8/plain"}
    cases = [copied(source, tmp_path / name) for name, source in sources.items()]
    for early, late in (cases, cases[::-1]):
        for case, year in ((early, 2024), (late, 2025)):
            path = case / "lesion_delete.provenance.json"
            provenance = json.loads(path.read_text()) | {"started": f"{year}-01-01T00:00:00Z"}
            path.write_text(json.dumps(provenance))
        expected = read_provenance(late / "lesion_delete.csv")["config"]
        assert measured_last(cases) == expected
        assert measured_last(cases) != read_provenance(early / "lesion_delete.csv")["config"]


def copied(folder: str, out: Path) -> Path:
    """The tables of a results folder, without its figures."""
    for source in sorted((RESULTS / folder).rglob("*")):
        if source.suffix in (".csv", ".json"):
            copy = out / source.relative_to(RESULTS / folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())
    return out


@pytest.mark.parametrize(
    ("table", "kind", "plots"),
    [
        (
            "path_spectrum.csv",
            "svg",
            ["path_spectrum.svg", "path_spectrum_stages.svg", "paths.svg"],
        ),
        ("path_lengths.csv", "png", ["path_spectrum.png", "path_spectrum_stages.png", "paths.png"]),
    ],
)
def test_plot_draws_the_figures_of_one_table(
    table: str, kind: str, plots: list[str], tmp_path: Path
) -> None:
    source = copied("veit2016/third-party/fig6", tmp_path / "in")
    arguments = ["plot", str(source / table), "--out", str(tmp_path / "out"), "--format", kind]
    assert run_command([*arguments, "-q"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == plots
    assert not list(source.glob("*.png"))


def test_plot_draws_nothing_but_the_tables_own_figure(tmp_path: Path) -> None:
    source = copied("he2016/mini/fig6a", tmp_path)
    assert run_command(["plot", str(source / "table.csv"), "-q"]) == 0
    assert [path.name for path in source.glob("*.png")] == ["table.png"]


@pytest.mark.parametrize(
    ("missing", "plots"),
    [
        ("path_spectrum_stages", ["path_spectrum.png", "paths.png"]),
        ("path_spectrum", []),
    ],
)
def test_plot_of_a_study_that_was_stopped_says_what_is_missing(
    missing: str, plots: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = copied("veit2016/third-party/fig6", tmp_path)
    (source / f"{missing}.csv").unlink()
    assert run_command(["plot", str(source)]) == 2
    error = capsys.readouterr().err
    assert f"{missing}.csv: is missing" in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in source.glob("*.png")) == plots


def test_plot_without_the_table_of_classes_says_that_it_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = copied("veit2016/resnet20/fig3", tmp_path)
    path = source / "lesion_delete.provenance.json"
    config = json.loads(path.read_text())["config"]
    config["study"]["per_class"] = True
    path.write_text(json.dumps({"config": config}))
    assert run_command(["plot", str(source)]) == 2
    assert "lesion_classes.csv: is missing" in capsys.readouterr().err
    assert [path.name for path in source.glob("*.png")] == ["lesion_single.png"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "config: is missing"),
        ({"study": {"kind": "delete", "colour": "red"}}, "config: study: colour: unknown key"),
        ({"study": {"kind": "delete", "samples": 0}}, "config: study: samples: "),
        ({"study": {"kind": "burn"}}, "config: unknown study 'burn'"),
        ({"cases": [], "study": None}, "config: experiment: "),
    ],
)
@pytest.mark.parametrize("where", ["table", "folder", "folder above"])
def test_plot_with_an_invalid_configuration_is_one_line(
    where: str,
    change: dict[str, object] | None,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = copied("veit2016/resnet20/fig3", tmp_path / "case")
    path = source / "lesion_delete.provenance.json"
    content = {} if change is None else {"config": json.loads(path.read_text())["config"] | change}
    path.write_text(json.dumps(content))
    shown = {"table": source / "lesion_delete.csv", "folder": source, "folder above": tmp_path}
    assert run_command(["plot", str(shown[where])]) == 2
    error = capsys.readouterr().err
    assert f"lesion_delete.provenance.json: {said}" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.csv", "is not a table"),
        ("path_lengths.provenance.json", "is not a table"),
        ("alone.csv", "has no alone.provenance.json next to it"),
        ("empty", "there is no figure of this table"),
    ],
)
def test_plot_of_no_table_is_one_line(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = copied("veit2016/third-party/fig6", tmp_path)
    (source / "alone.csv").write_text("k\n1\n")
    (source / "empty").mkdir()
    assert run_command(["plot", str(source / name)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
