"""A study defined in a test module: nothing else in the package is touched."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import yaml
from matplotlib.figure import Figure
from pydantic import PositiveInt

from resnet_cli.cli import run_command
from resnet_cli.cli.app import app
from resnet_cli.cli.studies import add_study_command
from resnet_cli.config import registry
from resnet_cli.results.columns import Table, number, whole
from resnet_cli.results.tables import is_pair, read_table
from resnet_cli.studies.base import NamedFigure, Option, Row, Study, Summary, Tables


class Weigh(Study):
    """The L2 norm of each unit's parameters."""

    kind: Literal["weigh"] = "weigh"
    power: Annotated[PositiveInt, Option("--power", "Power of the norm.", metavar="P")] = 1

    title = "Weight of each unit"
    pictures: ClassVar = {"weights": "norm of the parameters by unit"}
    command = "weigh"
    tables = (Table("weights", "unit", (whole("unit", "the unit"), number("norm", "L2 norm"))),)

    def measure(
        self, subject: Any, seed: int, progress: Any
    ) -> Iterator[tuple[str, Sequence[Row], Sequence[str]]]:
        units = subject.loaded.network.unit_list
        norms = [
            sum(float(p.detach().norm()) for p in unit.parameters()) ** self.power for unit in units
        ]
        yield "weights", [{"unit": i, "norm": norm} for i, norm in enumerate(norms)], ()

    def figures(self, tables: Tables, heading: Any) -> Iterator[NamedFigure]:
        yield NamedFigure("weights", Figure)

    def summary(self, tables: Tables, subject: Any) -> Summary:
        frame = tables["weights"]
        return Summary({"largest": float(frame["norm"].max())}, subject.label)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(registry.STUDIES, "weigh", f"{__name__}:Weigh")
    monkeypatch.chdir(tmp_path)


def test_its_yaml_runs_and_writes_a_table_with_provenance_and_a_figure(tmp_path: Path) -> None:
    content = {
        "title": "Weights",
        "model": {"depth": 8},
        "train": {"epochs": 1},
        "data": {"train_images": 64, "test_images": 32},
        "study": {"kind": "weigh", "power": 2},
    }
    Path("weigh.yaml").write_text(yaml.safe_dump(content))
    assert run_command(["run", "weigh.yaml", "--out", "out", "-q"]) == 0
    assert len(read_table(Path("out/weights.csv"))) == 3
    assert is_pair(Path("out/weights.csv"))
    assert Path("out/weights.png").exists()


def test_it_has_a_command_with_its_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "registered_commands", [*app.registered_commands])
    add_study_command("weigh", "Weigh units.", "weigh")
    assert run_command(["weigh", "--help"]) == 0
    assert "--power" in capsys.readouterr().out
    assert run_command(["weigh", "--power", "3", "--out", "out", "-q"]) == 0
    assert len(read_table(Path("out/weights.csv"))) == 27


def test_an_unknown_key_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["show", "quickstart", "--set", "study={kind: weigh, powr: 2}"]) == 2
    assert "'powr'; did you mean 'power'" in capsys.readouterr().err


def test_it_has_a_row_in_the_report(tmp_path: Path) -> None:
    from resnet_cli.report.content import measurement_of

    name, folder = "veit2016/weigh", tmp_path / "results" / "veit2016" / "smoke" / "weigh"
    experiment = {
        "title": "Weights by unit",
        "paper": "veit2016",
        "model": {"depth": 8},
        "train": {"epochs": 1},
        "data": {"train_images": 64, "test_images": 32},
        "study": {"kind": "weigh"},
    }
    source = tmp_path / "experiments" / f"{name}.yaml"
    source.parent.mkdir(parents=True)
    source.write_text(yaml.safe_dump(experiment))
    assert run_command(["run", str(source), "--profile", "smoke", "--out", str(folder), "-q"]) == 0
    measurement = measurement_of(folder, "veit2016", "smoke")
    assert measurement is not None
    assert [path.name for path in measurement.tables] == ["weights.csv"]
    (plot,) = measurement.plots
    assert "norm of the parameters by unit" in plot.alt
