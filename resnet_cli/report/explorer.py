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

SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def explorer_data(results: Path) -> list[dict[str, Any]]:
    """One entry for each profile of paper 2 that has the exact spectrum and the deletion of each
    unit of one network: its name, units, stages, errors by unit, and shares by path length. Of
    several trainings, it is the one with the lowest seed.

    Raises:
        UserError: a table cannot be read.
    """
    home = results / "veit2016"
    folders = [p for p in home.iterdir() if p.is_dir()] if home.is_dir() else []
    found = [_network(home / name) for name in by_preference(p.name for p in folders)]
    return [network for network in found if network is not None]


def _network(folder: Path) -> dict[str, Any] | None:
    for spectrum, lesions in spectra_with_lesions(folder):
        if (found := _measured(folder.name, spectrum, lesions)) is not None:
            return found
    return None


def spectra_with_lesions(folder: Path) -> list[tuple[Path, Path]]:
    """The tables path_spectrum.csv of Figure 6, each with a table of single deletions of the same
    weights; of several such tables, the first in the order of the figures.

    Args:
        folder: `results/veit2016` or one of its profiles.
    """
    lesions: dict[str, Path] = {}
    for path in sorted(folder.rglob("lesion_delete.csv")):
        if (read_table(path)["k"] == 1).any():
            lesions.setdefault(_weights(path), path)
    spectra = sorted(folder.rglob("fig6/**/path_spectrum.csv"))
    return [(path, lesions[_weights(path)]) for path in spectra if _weights(path) in lesions]


def _weights(table: Path) -> str:
    """The hash of the weights that a table was measured on; the table's path if it is unknown."""
    checkpoint = read_provenance(table).get("checkpoint") or {}
    return str(checkpoint.get("sha256") or table)


def _measured(profile: str, spectrum_path: Path, lesion_path: Path) -> dict[str, Any] | None:
    """The entry of two tables on the same weights; None if they or the provenance are
    incomplete."""
    lesions, spectrum = read_table(lesion_path), read_table(spectrum_path)
    single = lesions[lesions["k"] == 1]
    errors = [
        float(e)
        for e in single.sort_values("blocks", key=lambda blocks: blocks.astype(int))["test_error"]
    ]
    provenance = read_provenance(spectrum_path)
    model = (provenance.get("config") or {}).get("model")
    if len(spectrum) != len(errors) + 1 or spectrum["exact_norm"].isna().any() or not model:
        return None
    places = make_places(ModelConfig.model_validate(model))
    paths = [int(n) for n in spectrum["paths"]]
    return {
        "profile": profile,
        "name": network_label(profile, provenance),
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
