"""Sentences on re-estimated batch-norm statistics, from artificial tables."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resnet_cli.config.experiments import load_experiment
from resnet_cli.report.recalibration import recovered
from resnet_cli.results.provenance import collect
from resnet_cli.results.tables import column_names, write_table


def write(folder: Path, experiment: str, stem: str, rows: Sequence[dict[str, Any]]) -> None:
    config = load_experiment(f"veit2016/{experiment.split('/')[0]}", "mini")
    provenance = collect(
        config.model_dump(mode="json"), seeds=[0], started=datetime.now(UTC), profile="mini"
    )
    text = {"statistics", "blocks", "statistics_of"}
    filled = [
        {name: row.get(name, "" if name in text else 1) for name in column_names(stem)}
        for row in rows
    ]
    write_table(filled, stem, folder / experiment, provenance)


def test_single_units_with_their_controls(tmp_path: Path) -> None:
    def row(kind: str, blocks: str, error: float, images: int = 0, subset: int = 0) -> Any:
        return {"statistics": kind, "blocks": blocks, "test_error": error} | {
            "recalibration_images": images,
            "subset": subset,
        }

    rows = [
        row("as trained", blocks, error) for blocks, error in (("", 7.0), ("0", 80.0), ("1", 9.0))
    ]
    for subset, change in ((0, -1.0), (1, 1.0)):
        rows += [
            row("re-estimated", "", 8.0, 1000, subset),
            row("re-estimated", "0", 20.0 + change, 1000, subset),
            row("re-estimated", "1", 9.0, 1000, subset),
            row("re-estimated", "0", 50.0, 100, subset),
        ]
    rows.append(row("of another lesion", "0", 85.0, 1000))
    write(tmp_path / "mini", "recalibration/preact110", "recalibration", rows)
    (sentence,) = recovered(tmp_path / "mini")
    assert sentence.startswith("ResNet-110, ")
    assert "without unit 0 80.0 → 20.0 % (19.0 to 21.0; other lesion 85.0 %)" in sentence
    assert "intact 7.0 → 8.0 %; 1,000 training images" in sentence


def test_without_tables_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert recovered(tmp_path) == []
