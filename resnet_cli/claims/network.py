"""Which findings of paper 2 hold for one network, from the tables of an examination.

The judges of the paper's claims are applied to the tables of one network; no published number is
needed. Damage is not judged if the network is close to guessing, since its error can hardly
increase.
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
from resnet_cli.claims.veit2016_paths import exponential_fall, samples_of, short_half
from resnet_cli.claims.verdict import Claim, Judgement, NotMeasuredError, Part, Quantity, all_of
from resnet_cli.claims.words import judgement_to_dict
from resnet_cli.models.units import Place

Tables = Mapping[str, DataFrame]


@dataclass(frozen=True)
class _Question:
    """A finding of the paper, to be judged on one network."""

    text: str
    source: str
    folder: str
    """The folder of its tables in an examination."""
    judge: Callable[[Tables, Sequence[int]], list[Part]]
    """Takes the tables and the units that change the shape."""
    damages: bool = True
    """Whether it is about the damage of a change."""


def findings(
    tables: Mapping[str, Tables], places: Sequence[Place], chance: float
) -> list[dict[str, Any]]:
    """Judge each finding.

    Args:
        tables: by study folder (`deletion`, `deletions`, `reordering`, `paths`), then by name.
        places: the network's units.
        chance: the error of guessing, percent.

    Returns:
        The `judgement_to_dict` of each finding.
    """
    changes = [place.index for place in places if place.changes_shape]
    error = float(tables["deletion"]["lesion_delete"]["baseline_error"].iloc[0])
    found = []
    for question in QUESTIONS:
        claim = Claim("veit2016", question.source, question.text, {}, lambda _: ())
        parts: list[Part] = []
        if question.damages and not error < NEAR_CHANCE * chance:
            limit = Quantity("needed to decide", NEAR_CHANCE * chance)
            parts = [Part("not trained long enough", None, (Quantity("intact", error),), limit)]
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
        lambda tables, _: barely_changes([single_damages(tables["lesion_delete"])]),
    ),
    _Question(
        "The units that change the shape matter most.",
        "fig3",
        "deletion",
        lambda tables, changes: changes_matter([single_damages(tables["lesion_delete"])], changes),
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
        "Almost all of the gradient comes from paths shorter than half of the network.",
        "fig6c",
        "paths",
        lambda tables, _: [
            short_half(tables["path_spectrum"], samples_of(tables["path_gradients"]))
        ],
        damages=False,
    ),
)
