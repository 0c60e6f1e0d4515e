"""Write the page of an examination: one self-contained HTML file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_cli.claims.network import findings
from resnet_cli.claims.words import source_title
from resnet_cli.config.fields import chance_error
from resnet_cli.report.page import write_page
from resnet_cli.run.examine import Examined, Part, heading_of

TITLES = {
    "deletion": "Deleting one unit",
    "influence": "Predicting the damage from one forward pass",
    "deletions": "Deleting several units at random",
    "reordering": "Reordering units",
    "paths": "Paths and the gradient that they carry",
    "signal": "Signals by unit",
}
METHODS = {
    "deletion": "The residual branch of each unit is deleted in turn; its shortcut stays "
    "(Veit et al. 2016, section 4.1, Figure 3). For a network with batch norms, each deletion is "
    "also measured with their statistics re-estimated on unlabelled training images.",
    "influence": "Block influence is 1 minus the mean cosine between a unit's input and its output "
    "(arXiv 2403.03853); angular distance is the mean angle between them (arXiv 2403.17887). Both "
    "are compared with the damage of deleting the unit.",
    "deletions": "Random sets of units are deleted together (section 4.2, Figure 5a).",
    "reordering": "Random pairs of units of equal shape are swapped (section 4.3, Figure 5b).",
    "paths": "A path takes the residual branch of some units and the shortcut of the others. The "
    "gradient at the input is measured by path length, for sampled paths and exactly for all paths "
    "of a length together (section 5, Figure 6).",
    "signal": "Norms of activations and gradients at the input of each unit "
    "(He et al. 2016, section 2).",
}


@dataclass(frozen=True)
class Shown:
    """One study of one network on the page."""

    network: str
    sentences: Sequence[str]
    figures: Sequence[tuple[Path, str]]
    """Each picture with its description."""


def write_examination(examined: Sequence[Examined], out: Path) -> Path:
    """Write the page on one network, or on several side by side.

    Raises:
        UserError: the file cannot be written.
    """
    sections: dict[str, list[Shown]] = {}
    for one in examined:
        for part in one.parts:
            sections.setdefault(part.folder.name, []).append(_shown(one, part))
    found = [findings_of(one) for one in examined]
    return write_page(
        "examination.html",
        out,
        {"source_title": source_title},
        networks=[_facts(one) for one in examined],
        findings=list(zip(*found, strict=True)),
        sections=[(TITLES[name], METHODS[name], shown) for name, shown in sections.items()],
    )


def findings_of(one: Examined) -> list[dict[str, Any]]:
    """The verdict on each finding of paper 2 from the tables of an examination."""
    tables = {part.folder.name: part.tables for part in one.parts}
    loaded = one.subject.loaded
    return findings(tables, loaded.network.places, chance_error(loaded.num_classes))


def _facts(one: Examined) -> dict[str, object]:
    """The name and the properties of a network."""
    loaded, data = one.subject.loaded, one.subject.data
    facts = {
        "from": loaded.source,
        "SHA-256": loaded.sha256[:12],
        "units": str(one.subject.num_units),
        "parameters": f"{sum(p.numel() for p in loaded.network.parameters()):,}",
        "data": f"{data.dataset}, normalised by {data.explicit().normalize}",
        "test error": f"{one.error:.2f} % of {one.images:,} images",
        "sizes": str(one.sizes),
    }
    return {"network": loaded.label, "facts": facts}


def _shown(one: Examined, part: Part) -> Shown:
    figures = [
        (
            part.folder / f"{figure.name}.png",
            f"{one.subject.loaded.label}: {part.study.pictures[figure.name]}",
        )
        for figure in part.study.figures(part.tables, heading_of(one.subject))
    ]
    return Shown(one.subject.loaded.label, part.summary.sentences, figures)
