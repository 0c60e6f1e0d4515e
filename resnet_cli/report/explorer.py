"""The data of the interactive view: damage by unit, and paths and gradient by length."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pandas import DataFrame

from resnet_cli.claims.compare import by_preference
from resnet_cli.config.schema import ModelConfig
from resnet_cli.models.resnet import make_places
from resnet_cli.report.labels import network_label
from resnet_cli.results.tables import read_provenance, read_table

LESIONS = ("fig3/preact110", "fig3", "fig5a")
"""Folders with single deletions; the first that exists is used."""
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def explorer_data(results: Path) -> list[dict[str, Any]]:
    """One entry for each profile of paper 2 that has single deletions and a complete spectrum of
    one network: its name, units, stages, errors by unit, and shares by path length.

    Raises:
        UserError: a table cannot be read.
    """
    home = results / "veit2016"
    folders = [p for p in home.iterdir() if p.is_dir()] if home.is_dir() else []
    found = [_network(home / name) for name in by_preference(p.name for p in folders)]
    return [network for network in found if network is not None]


def _network(folder: Path) -> dict[str, Any] | None:
    spectrum_path = folder / "fig6" / "path_spectrum.csv"
    lesion_path = next(
        (p for where in LESIONS if (p := folder / where / "lesion_delete.csv").exists()), None
    )
    if lesion_path is None or not spectrum_path.exists():
        return None
    lesions, spectrum = read_table(lesion_path), read_table(spectrum_path)
    single = lesions[lesions["k"] == 1]
    errors = [
        float(e)
        for e in single.sort_values("blocks", key=lambda blocks: blocks.astype(int))["test_error"]
    ]
    if len(spectrum) != len(errors) + 1 or spectrum["exact_norm"].isna().any():
        return None
    provenance = read_provenance(spectrum_path)
    places = make_places(ModelConfig.model_validate(provenance["config"]["model"]))
    paths = [int(n) for n in spectrum["paths"]]
    return {
        "profile": folder.name,
        "name": network_label(folder.name, provenance),
        "baseline": float(lesions["baseline_error"].iloc[0]),
        "images": int(lesions["images"].iloc[0]),
        "errors": errors,
        "stages": [place.stage for place in places],
        "downsampling": [place.index for place in places if place.stride != 1],
        "paths": [_count(n) for n in paths],
        "share_paths": [n / sum(paths) for n in paths],
        "share_sampled": _shares(spectrum, "share_total"),
        "share_exact": _shares(spectrum, "share_exact"),
    }


def _count(paths: int) -> str:
    """`26,235`, `1.04×10⁹`."""
    if paths < 1e6:
        return f"{paths:,}"
    digits, power = f"{paths:.2e}".split("e")
    return f"{digits}×10{str(int(power)).translate(SUPERSCRIPT)}"


def _shares(spectrum: DataFrame, column: str) -> Sequence[float | None]:
    return [None if math.isnan(value) else float(value) for value in spectrum[column]]
