"""Delete units (paper 2, Figures 3, 4, 5a and 8)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from resnet_cli.config.fields import IntRange, PositiveRange
from resnet_cli.results.columns import Table, number, text, whole
from resnet_cli.studies import delete_figures
from resnet_cli.studies.base import (
    Case,
    Measured,
    NamedFigure,
    Option,
    Row,
    Samples,
    Study,
    Summary,
    Tables,
    check_unit,
    known,
)
from resnet_cli.studies.lesion import (
    BLOCKS,
    ERRORS,
    PREDICTIONS,
    SAMPLE,
    Deletion,
    K,
    LesionStudy,
    draw_deletions,
    lesion_rows,
    outcomes_of,
    recalibrated,
    summary_title,
)
from resnet_cli.studies.lesion_figures import medians_figure, tables_of, tables_of_only_case

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from resnet_cli.datasets.batches import Batches
    from resnet_cli.figures.titles import Heading
    from resnet_cli.models.units import Place
    from resnet_cli.studies.progress import Progress
    from resnet_cli.studies.subject import Subject
    from resnet_cli.studies.walks import Outcome

MAX_SHOWN = 60
"""Deletions listed one by one; more are summarised by k, or only the worst are listed."""
MATTERS = 1.0
"""A unit matters if deleting it raises the error by more than this, percentage points."""
MAX_NAMED = 10
"""Units named in a sentence."""

LESION_DELETE = Table(
    "lesion_delete", "network with deleted units", (K, SAMPLE, BLOCKS, *ERRORS, *PREDICTIONS)
)
LESION_CLASSES = Table(
    "lesion_classes",
    "deletion and class",
    (
        BLOCKS,
        whole("class", "index of the class, from 0"),
        whole("images", "test images of this class"),
        number(
            "test_error",
            "percent of these images, with the units deleted; empty if there are none",
            empty=True,
        ),
        number("baseline_error", "the same for the intact network", empty=True),
        text("class_name", "name of the class in the data set"),
        K,
        SAMPLE,
        whole("seed", "seed of the draws"),
    ),
)


class DeleteUnits(LesionStudy):
    """Delete k units at random (paper 2, Figures 3 and 5a); k = 1 deletes each in turn."""

    kind: Literal["delete"] = "delete"
    k: Annotated[
        PositiveRange,
        Option(
            "--blocks",
            "Number of units to delete at random, such as 3 or 1-20; 1 deletes each unit in turn.",
            metavar="K|K1-K2",
            selects=True,
            shown_default="1",
        ),
    ] = (1,)
    samples: Samples = 20
    """Draws for each k > 1."""
    only: Annotated[
        IntRange | None,
        Option("--only", "Delete these units, together.", metavar="UNITS", selects=True),
    ] = None
    """Delete these units, together, instead of k."""
    per_class: Annotated[
        bool, Option("--per-class", "Also measure the error of each class (--blocks, --only).")
    ] = False
    """Also measure the error of each class (lesion_classes.csv)."""
    ranked: Annotated[
        bool, Option("--ranked", "Show deletions worst first (--blocks).", word="")
    ] = Field(default=False, exclude=True)
    """Rank single deletions by damage; this changes no number, so it is not stored."""

    title = "Error after deleting units"
    pictures: ClassVar = {
        "lesion_single": "test error after deleting each unit in turn",
        "lesion_count": "box plots of the test error by the number of deleted units",
        "lesion_classes": "increase of the test error of each class by deletion",
        "lesion_ranked": "units ranked by the damage of their deletion",
    }
    tables = (LESION_DELETE, LESION_CLASSES, recalibrated(LESION_DELETE))

    def names(self) -> tuple[str, ...]:
        names = super().names()
        return tuple(name for name in names if self.per_class or name != "lesion_classes")

    def check(self, subject: "Subject") -> None:
        super().check(subject)
        self.model_copy(update={"samples": 1}).deletions(subject.num_units, 0)

    def deletions(
        self, num_units: int, seed: int, check: Callable[[], None] = lambda: None
    ) -> list[Deletion]:
        """The sets of units to delete.

        Args:
            check: called before each draw; stops on request.

        Raises:
            UserError: the network has fewer units.
        """
        if self.only is None:
            return draw_deletions(num_units, self.k, self.samples, seed, check)
        check_unit(max(self.only), num_units)
        return [Deletion(0, self.only)]

    def measure(self, subject: "Subject", seed: int, progress: "Progress") -> Measured:
        deletions = self.deletions(subject.num_units, seed, progress.check)
        if progress.wants("lesion_delete") or progress.wants("lesion_classes"):
            outcomes = outcomes_of(subject, deletions, progress, "deleting units")
            yield "lesion_delete", lesion_rows(deletions, outcomes, seed), ("test",)
            if self.per_class:
                rows = class_rows(deletions, outcomes, subject.batches("test"), seed)
                yield "lesion_classes", rows, ("test",)
        yield from self.measure_recalibrated("lesion_delete", subject, deletions, seed, progress)

    def figures(self, tables: Tables, heading: "Heading") -> Iterator[NamedFigure]:
        frame = tables["lesion_delete"]
        single, several = bool((frame["k"] == 1).any()), bool((frame["k"] != 1).any())
        unit, network = heading.unit, heading.network or "network"
        frames, changes = {network: frame}, {network: heading.changes}
        again = tables.get("lesion_delete_recalibrated")
        if again is not None:
            frames = {"as trained": frame, "re-estimated": again}
            changes = {"as trained": heading.changes}
        if self.only is None and single:
            # If there are several k, the paper's figure is the box plot, not the plot of k = 1.
            alone = replace(heading, figure=None) if several else heading
            yield NamedFigure(
                "lesion_single",
                lambda: delete_figures.lesion_single_figure(
                    frames,
                    alone.over(f"Error after deleting one {unit}"),
                    changes=changes,
                    chance=heading.chance,
                ),
            )
        if self.only is None and several:
            yield NamedFigure(
                "lesion_count",
                lambda: delete_figures.lesion_count_figure(
                    frame,
                    heading.over(f"Error after deleting several {unit}s at random"),
                    chance=heading.chance,
                    recalibrated=again,
                ),
            )
        if self.per_class:
            yield NamedFigure(
                "lesion_classes",
                lambda: delete_figures.lesion_classes_figure(
                    tables["lesion_classes"],
                    heading.over(f"Damage by class after deleting {unit}s"),
                ),
            )
        if self.ranked and single:
            yield NamedFigure(
                "lesion_ranked",
                lambda: delete_figures.lesion_ranked_figure(
                    frame,
                    heading.over(f"Damage by deleting one {unit}, worst first"),
                    changes=heading.changes,
                ),
            )

    def figures_together(self, cases: Sequence[Case], title: str) -> Iterator[NamedFigure]:
        """Single deletions of all cases (paper 2, Figures 3 and 8), averaged over seeds, and the
        errors by k: boxes of one case, medians of several."""
        if self.only is None and 1 in self.k:
            yield NamedFigure("lesion_single", lambda: _single_of(cases, title))
        if self.only is None and len(self.k) > 1:
            frames = tables_of(cases, "lesion_delete")
            label = "units deleted at random"
            if (together := tables_of_only_case(cases)) is not None:
                yield NamedFigure(
                    "lesion_count",
                    lambda: delete_figures.lesion_count_figure(
                        together["lesion_delete"],
                        title,
                        chance=cases[0].heading.chance,
                        recalibrated=together.get("lesion_delete_recalibrated"),
                    ),
                )
            else:
                yield NamedFigure("lesion_count", lambda: medians_figure(frames, "k", label, title))

    def summary(self, tables: Tables, subject: "Subject") -> Summary:
        frame = tables["lesion_delete"]
        baseline = float(frame["baseline_error"].iloc[0])
        medians = {str(k): float(errors.median()) for k, errors in frame.groupby("k")["test_error"]}
        facts = {"baseline_error": baseline, "rows": len(frame), "median_error_by_k": medians}
        title = summary_title(subject, frame)
        single = frame[frame["k"] == 1]
        if len(single):
            facts["error_by_unit"] = dict(zip(single["blocks"], single["test_error"], strict=True))
        more = []
        if self.per_class:
            classes = tables["lesion_classes"]
            errors = classes.groupby("class_name", sort=False)
            facts["mean_error_by_class"] = {
                str(name): {"intact": known(intact), "units_deleted": known(deleted)}
                for name, intact, deleted in errors[["baseline_error", "test_error"]]
                .mean()
                .itertuples()
            }
            more.append(_by_class(classes))
        title, columns, rows = _shown(frame, title, self.ranked, subject.network.places)
        worst = frame.iloc[int(frame["test_error"].fillna(-1).argmax())]
        deleted = str(worst["blocks"]).replace(" ", ", ")
        units = "units" if "," in deleted else "unit"
        sentences = [
            f"intact {baseline:.2f} %; the worst deletion, of {units} {deleted}, gives "
            f"{worst['test_error']:.2f} %"
        ]
        again = tables.get("lesion_delete_recalibrated")
        if again is not None:
            facts["recalibrated"] = {
                "images": int(again["recalibration_images"].iloc[0]),
                "baseline_error": float(again["baseline_error"].iloc[0]),
                "median_error_by_k": {
                    str(k): float(e.median()) for k, e in again.groupby("k")["test_error"]
                },
            }
            sentences.append(_recovered(frame, again))
        if len(single) > 1:
            changes = [p.index for p in subject.network.places if p.changes_shape]
            plain = subject.loaded.is_plain
            sentences.append(which_matter(single, changes, is_plain=plain))
        return Summary(facts, title, columns, rows, sentences, more)

    def as_drawn(self, figures: Iterable[str]) -> Study:
        return self.model_copy(update={"ranked": "lesion_ranked" in figures})


def which_matter(
    single: "pandas.DataFrame", changes: Sequence[int], *, is_plain: bool = False
) -> str:
    """A sentence on how many units matter, which, and why.

    Args:
        single: rows of lesion_delete.csv with k = 1.
        changes: the units that change the shape of the activations.
        is_plain: the network has no shortcuts.
    """
    increase = single["test_error"] - single["baseline_error"]
    worst = single.assign(increase=increase).sort_values("increase", ascending=False, kind="stable")
    matter = [int(unit) for unit in worst.loc[worst["increase"] > MATTERS, "blocks"]]
    points = f"{MATTERS:g} percentage point"
    if not matter:
        return (
            f"none of {len(single)} units raises the error by more than {points} when it is "
            f"deleted alone; the largest increase is {worst['increase'].iloc[0]:.2f} points"
        )
    listed = ", ".join(map(str, matter[:MAX_NAMED])) + (", …" if len(matter) > MAX_NAMED else "")
    verb = "raises" if len(matter) == 1 else "raise"
    found = (
        f"{len(matter)} of {len(single)} units {verb} the error by more than {points} when deleted "
        f"alone, worst first: {listed}"
    )
    if is_plain:
        return f"{found}; without shortcuts there is one path only, and each deletion breaks it"
    of_changes = [unit for unit in matter if unit in changes]
    if not changes:
        return found
    return (
        f"{found}; {len(of_changes)} of the {len(changes)} units that change the shape of the "
        "activations are among them: with the residual branch deleted, the shortcut alone has to "
        "change the shape, while other shortcuts pass the activations on unchanged"
    )


def _recovered(frame: "pandas.DataFrame", again: "pandas.DataFrame") -> str:
    """A sentence on the error with re-estimated batch-norm statistics."""
    position = int(frame["test_error"].fillna(-1).argmax())
    worst, intact = again.iloc[position], float(again["baseline_error"].iloc[0])
    return (
        f"with batch-norm statistics re-estimated on {again['recalibration_images'].iloc[0]:,} "
        f"training images: intact {intact:.2f} %, median {again['test_error'].median():.2f} % "
        f"(as trained {frame['test_error'].median():.2f} %); without units {worst['blocks']} "
        f"{worst['test_error']:.2f} %"
    )


def _single_of(cases: Sequence[Case], title: str) -> "Figure":
    changes: dict[str, Sequence[int]] = {}
    for case in cases:
        # The shape of a plain network changes at every pooling.
        changes[case.name] = () if case.heading.unit == "layer" else case.heading.changes
    networks = tables_of(cases, "lesion_delete")
    chance = cases[0].heading.chance
    return delete_figures.lesion_single_figure(networks, title, changes=changes, chance=chance)


def _shown(
    frame: "pandas.DataFrame", title: str, ranked: bool, places: Sequence["Place"]
) -> tuple[str, list[str], list[list[Any]]]:
    """Title, columns and rows of the summary: each deletion, in order or worst first, or a summary
    by k if there are many."""
    if ranked:
        worst = frame.sort_values(["test_error", "loss"], ascending=False, kind="stable")
        if len(worst) > MAX_SHOWN:
            title += f"; the worst {MAX_SHOWN} of {len(worst)}"
        frame = worst.head(MAX_SHOWN)
    elif frame["k"].nunique() > 1 or len(frame) > MAX_SHOWN:
        summary = frame.groupby("k")["test_error"].describe()[["count", "min", "50%", "max"]]
        columns = ["k", "samples", "min error (%)", "median error (%)", "max error (%)"]
        return title, columns, [[k, int(n), *rest] for k, n, *rest in summary.itertuples()]
    shown = ["blocks", "test_error", "kl_divergence", "agreement"]
    rows = [list(row) for row in frame[shown].itertuples(index=False)]
    columns = ["blocks", "error (%)", "KL divergence (nats)", "agreement (%)"]
    if (frame["k"] == 1).all():
        columns = ["unit", "place", *columns[1:]]
        rows = [[blocks, _place(places[int(blocks)]), *rest] for blocks, *rest in rows]
    return title, columns, rows


def _place(place: "Place") -> str:
    """The stage of a unit, and whether it is the first one, which may change the shape."""
    return f"stage {place.stage}{', first' if place.number == 1 else ''}"


def _by_class(classes: "pandas.DataFrame") -> tuple[str, list[str], list[list[Any]]]:
    """Title, columns and rows: the error of each class, intact and with units deleted."""
    columns = ["class", "images", "intact (%)", "mean (%)", "worst (%)", "worst deletion"]
    rows = [
        [
            name,
            int(rows["images"].iloc[0]),
            float(rows["baseline_error"].iloc[0]),
            float(rows["test_error"].mean()),
            float(rows["test_error"].max()),
            rows["blocks"].iloc[int(rows["test_error"].fillna(-1).argmax())],
        ]
        for (_, name), rows in classes.groupby(["class", "class_name"], sort=True)
    ]
    return "error by class with units deleted", columns, rows


# --- measurement ---------------------------------------------------------------------------------


def class_rows(
    deletions: Sequence[Deletion], outcomes: Sequence["Outcome"], batches: "Batches", seed: int
) -> list[Row]:
    """Rows of lesion_classes.csv: the error of each deletion on the images of each class; None for
    a class without images.

    Args:
        outcomes: of `evaluate_lesions`.
        batches: the images that were evaluated.
    """
    import torch

    images = torch.bincount(batches.labels, minlength=len(batches.classes)).tolist()
    baseline, *lesioned = outcomes
    return [
        deletion.columns
        | {
            "class": index,
            "images": images[index],
            "test_error": _share(outcome.wrong_by_class[index], images[index]),
            "baseline_error": _share(baseline.wrong_by_class[index], images[index]),
            "class_name": name,
            "seed": seed,
        }
        for deletion, outcome in zip(deletions, lesioned, strict=True)
        for index, name in enumerate(batches.classes)
    ]


def _share(wrong: int, images: int) -> float | None:
    """In percent; None if there are no images."""
    return 100.0 * wrong / images if images else None
