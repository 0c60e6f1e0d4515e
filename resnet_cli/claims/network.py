"""Which findings of paper 2 hold for one network, from the tables of an examination.

The judges are those of the paper's claims, on the tables of one network; no published number is
needed. Damage is not judged where the network guesses and has nothing to lose.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pandas import DataFrame

from resnet_cli.claims.veit2016_lesions import (
    NEAR_CHANCE,
    barely_changes,
    changes_matter,
    single_damages,
    smooth_rise,
)
from resnet_cli.claims.veit2016_paths import exponential_fall, short_half
from resnet_cli.claims.verdict import Claim, Judgement, NotMeasuredError, Part, Quantity, all_of
from resnet_cli.claims.words import judgement_to_dict
from resnet_cli.models.units import Place

Tables = Mapping[str, DataFrame]


@dataclass(frozen=True)
class _Question:
    """A finding of the paper, as it is judged on one network."""

    text: str
    source: str
    folder: str
    """Of the examination's tables."""
    judge: Callable[[Tables, Sequence[int]], list[Part]]
    """Takes the folder's tables and the units that change the shape."""
    damages: bool = True
    """It speaks of the damage that a change does."""


def findings(
    tables: Mapping[str, Tables], places: Sequence[Place], chance: float
) -> list[dict[str, Any]]:
    """Judge each finding.

    Args:
        tables: by study folder (`deletion`, `deletions`, `reordering`, `paths`), then by name.
        places: of the network's units.
        chance: the error of guessing, percent.

    Returns:
        For each finding what `judgement_to_dict` gives.
    """
    changes = [place.index for place in places if place.changes_shape]
    error = float(tables["deletion"]["lesion_delete"]["baseline_error"].iloc[0])
    found = []
    for question in QUESTIONS:
        claim = Claim("veit2016", question.source, question.text, {}, lambda _: ())
        parts: list[Part] = []
        if question.damages and not error < NEAR_CHANCE * chance:
            limit = Quantity("needed to decide", NEAR_CHANCE * chance)
            parts = [Part("not trained long enough", None, (Quantity("intact", error), limit))]
        elif question.folder in tables:
            try:
                parts = question.judge(tables[question.folder], changes)
            except NotMeasuredError:
                parts = []
        verdict = all_of(part.verdict for part in parts) if parts else "not measured"
        found.append(judgement_to_dict(Judgement(claim, "", verdict, tuple(parts))))
    return found


QUESTIONS = (
    _Question(
        "Deleting one unit barely changes the error.",
        "fig3",
        "deletion",
        lambda tables, _: barely_changes(single_damages([tables["lesion_delete"]])),
    ),
    _Question(
        "The units that change the shape matter most.",
        "fig3",
        "deletion",
        lambda tables, changes: changes_matter(single_damages([tables["lesion_delete"]]), changes),
    ),
    _Question(
        "The error rises smoothly with the number of deleted units.",
        "fig5a",
        "deletions",
        lambda tables, _: smooth_rise(tables["lesion_delete"], "k"),
    ),
    _Question(
        "The error rises smoothly as units are reordered.",
        "fig5b",
        "reordering",
        lambda tables, _: smooth_rise(tables["lesion_reorder"], "swaps"),
    ),
    _Question(
        "The gradient of a path falls exponentially with its length.",
        "fig6b",
        "paths",
        lambda tables, _: exponential_fall(tables["path_gradients"]),
        damages=False,
    ),
    _Question(
        "Almost all gradient comes from paths shorter than half of the network.",
        "fig6c",
        "paths",
        lambda tables, _: [short_half(tables["path_spectrum"], _draws(tables))],
        damages=False,
    ),
)


def _draws(tables: Tables) -> int:
    """Sampled paths of each length."""
    return int(tables["path_gradients"].groupby("k").size().min())
