"""The paths study: path lengths and the gradient by path length (paper 2, Figure 6)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from resnet_cli.config.fields import IntRange
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.base import (
    MAX_SAMPLES,
    ON,
    Case,
    GradientImages,
    Measured,
    NamedFigure,
    Option,
    Row,
    Study,
    Summary,
    Tables,
    check_unit,
    curves_of,
)
from resnet_cli.studies.paths import figures, summary
from resnet_cli.studies.paths.tables import (
    TABLES,
    check_lengths,
    cumulative_rows,
    exact_rows,
    path_lengths,
    spectrum_rows,
)

if TYPE_CHECKING:
    from torch import Tensor

    from resnet_cli.datasets.catalogue import SplitName
    from resnet_cli.figures.titles import Heading
    from resnet_cli.studies.paths.exact import ExactSpectrum
    from resnet_cli.studies.progress import Progress
    from resnet_cli.studies.subject import Subject

MAX_UNITS = 1000
"""The numbers of paths, up to C(n, n / 2), are multiplied by norms in float64."""

SWEEPS = ("--exact", "--cumulative", "--stages", "--unit")
"""The options that take an exact sweep."""
Batch = tuple["Tensor", "Tensor"]
"""Images and labels."""


class Paths(Study):
    """Path lengths and the gradient by path length (paper 2, Figure 6)."""

    kind: Literal["paths"] = "paths"
    k: Annotated[
        IntRange | None,
        Option(
            "--k",
            "Path lengths to sample, such as 10 or 0-20.",
            metavar="K|K1-K2",
            shown_default="all",
        ),
    ] = None
    """Path lengths to sample; null: every length."""
    lengths_only: Annotated[bool, Option("--lengths", "Only count the paths of each length.")] = (
        False
    )
    """Only count the paths of each length; no gradient is measured."""
    exact: Annotated[
        bool,
        Option("--exact", "Add the exact spectrum: all paths of each length.", default=False),
    ] = True
    """Also the exact spectrum: the sum of the gradients along all paths of each length."""
    cumulative: Annotated[
        bool,
        Option(
            "--cumulative",
            "Add the cosine of the summed gradient of all paths up to each length with the "
            "ordinary gradient.",
        ),
    ] = False
    """Also the cosine of the summed gradient of all paths up to each length with the ordinary
    gradient."""
    stages: Annotated[bool, Option("--stages", "Add the exact spectrum of each stage.")] = False
    """Also the exact spectrum of each stage: only its units count towards a path's length."""
    unit: Annotated[
        Annotated[int, Field(ge=0)] | None,
        Option("--unit", "Add the exact spectrum at the parameters of this unit.", metavar="UNIT"),
    ] = None
    """Also the exact spectrum of the gradient at this unit's parameters."""
    samples: Annotated[
        PositiveInt,
        Field(le=MAX_SAMPLES),
        Option("--samples", "Sampled paths for each length.", metavar="N", default=20),
    ] = 100
    """Sampled paths for each k."""
    estimator: Annotated[
        Literal["batch", "image"],
        Option(
            "--estimator",
            "batch: one path for all images of a batch, as published; image: one path for each "
            "image.",
            word="estimator-",
        ),
    ] = "batch"
    """One path for all images of a batch, as published, or one path for each image."""
    batch_size: Annotated[
        PositiveInt,
        Option("--batch-size", "Images in a sample's batch.", metavar="N", word="batch"),
    ] = 128
    """Images in the batch of each sample."""
    batch_statistics: Annotated[
        bool,
        Option(
            "--batch-statistics",
            "Normalise by the statistics of each batch when sampling, as in training.",
        ),
    ] = False
    """Sample with the statistics of the batch; not together with the exact spectrum."""

    on: Annotated[GradientImages, ON] = "train"
    """The split that the batches are drawn from."""

    title = "Gradient by path length"
    pictures: ClassVar = {
        "paths": "number of paths, gradient of one path, and their product, by path length",
        "path_spectrum": "share of the gradient by path length, sampled and exact",
        "path_cumulative": "cosine with the ordinary gradient, and relative norm, of the summed "
        "gradient of all paths up to a length, by that length",
        "path_spectrum_stages": "exact share of the gradient by path length in each stage",
        "path_spectrum_unit": "exact share of the gradient at one unit's weights by path length",
    }
    command = "paths"
    shared_options = ("engine",)
    tables = TABLES

    @classmethod
    def check_options(cls, given: Mapping[str, Any]) -> None:
        if "--lengths" in given:
            for flag in ("--k", *SWEEPS, "--batch-statistics"):
                if flag in given:
                    raise UserError(
                        f"--lengths and {flag} exclude each other: --lengths only counts paths, no "
                        "gradient is measured"
                    )
        if "--batch-statistics" in given and set(SWEEPS) & set(given):
            raise UserError(
                "the exact spectrum uses running statistics, so that images do not influence each "
                "other; it cannot be compared with samples taken with --batch-statistics"
            )

    def names(self) -> tuple[str, ...]:
        if self.lengths_only:
            return ("path_lengths",)
        asked = {
            "path_cumulative": self.cumulative,
            "path_spectrum_stages": self.stages,
            "path_spectrum_unit": self.unit is not None,
        }
        return tuple(name for name in super().names() if asked.get(name, True))

    def identity(self, table: str | None = None) -> dict[str, Any]:
        found = super().identity(table)
        if table not in (None, "path_cumulative"):
            found.pop("cumulative", None)
        return found

    def check(self, subject: "Subject") -> None:
        if subject.loaded.is_plain and not self.lengths_only:
            raise UserError("a plain network (VGG) has one path only; paths needs shortcuts")
        if subject.num_units > MAX_UNITS and not self.lengths_only:
            raise UserError(
                f"{subject.num_units} units have too many paths for float64; gradients are "
                f"measured for at most {MAX_UNITS} units; --lengths has no limit"
            )
        check_lengths(self.lengths(subject), subject.num_units)
        if self.unit is not None:
            check_unit(self.unit, subject.num_units)

    def lengths(self, subject: "Subject") -> Sequence[int]:
        """The path lengths to sample."""
        return range(subject.num_units + 1) if self.k is None else self.k

    # --- measurement -----------------------------------------------------------------------------

    @property
    def split(self) -> "SplitName | None":
        return None if self.lengths_only else self.on

    @property
    def normalises_by_batch(self) -> bool:
        return self.batch_statistics

    def measure(self, subject: "Subject", seed: int, progress: "Progress") -> Measured:
        from resnet_cli.studies.paths.exact import exact_spectrum, exact_spectrum_of_unit
        from resnet_cli.studies.paths.sampled import batch_indices

        if progress.wants("path_lengths"):
            yield "path_lengths", path_lengths(subject.num_units), ()
        if self.lengths_only or not any(map(progress.wants, self.names()[1:])):
            return
        batches = subject.batches(self.on)
        if progress.wants("path_gradients"):
            gradients: Sequence[Mapping[str, Any]] = self._sampled(subject, seed, progress)
            yield "path_gradients", [dict(row) for row in gradients], (self.on,)
        else:
            gradients = progress.rows("path_gradients")
        batch = batches.unaugmented(batch_indices(len(batches), self.batch_size, seed, 0))
        if progress.wants("path_spectrum") or progress.wants("path_cumulative"):
            exact = None
            if self.exact or self.cumulative:
                exact = _swept(exact_spectrum, None, subject.label, subject, batch, progress)
                progress.facts["exact_check"] = exact.check
            rows = spectrum_rows(subject.num_units, gradients, exact if self.exact else None)
            yield "path_spectrum", rows, (self.on,)
            if self.cumulative and exact is not None:
                yield "path_cumulative", cumulative_rows(exact), (self.on,)
        if progress.wants("path_spectrum_stages"):
            yield "path_spectrum_stages", self._by_stage(subject, batch, progress), (self.on,)
        if self.unit is not None and progress.wants("path_spectrum_unit"):
            label = f"unit {self.unit}"
            found = _swept(exact_spectrum_of_unit, self.unit, label, subject, batch, progress)
            yield "path_spectrum_unit", exact_rows("unit", self.unit, found), (self.on,)

    def _sampled(self, subject: "Subject", seed: int, progress: "Progress") -> list[Row]:
        from resnet_cli.studies.paths import sampled

        with progress.of(f"sampling paths of {subject.label}") as report:
            return sampled.sample_path_gradients(
                subject.network,
                subject.batches(self.on),
                self.lengths(subject),
                self.samples,
                self.batch_size,
                seed,
                estimator=self.estimator,
                batch_statistics=self.batch_statistics,
                engine=subject.context.engine,
                report=report,
            )

    def _by_stage(self, subject: "Subject", batch: "Batch", progress: "Progress") -> list[Row]:
        from resnet_cli.studies.paths.exact import exact_spectrum

        places = subject.network.places
        rows = []
        for stage in sorted({place.stage for place in places}):
            counted = [place.index for place in places if place.stage == stage]
            label = f"stage {stage}"
            found = _swept(exact_spectrum, counted, label, subject, batch, progress)
            rows += exact_rows("stage", stage, found)
        return rows

    # --- figures and summary ---------------------------------------------------------------------

    def figures(self, tables: Tables, heading: "Heading") -> Iterator[NamedFigure]:
        if self.lengths_only:
            return
        yield NamedFigure(
            "paths",
            lambda: figures.paths_figure(
                tables["path_lengths"],
                tables["path_gradients"],
                heading.over("Number of paths and gradient by path length"),
                spectrum=tables["path_spectrum"],
            ),
        )
        yield NamedFigure(
            "path_spectrum",
            lambda: figures.spectrum_figure(
                tables["path_spectrum"],
                heading.over("Gradient by path length, sampled and exact"),
            ),
        )
        if self.cumulative:
            yield NamedFigure(
                "path_cumulative",
                lambda: figures.cumulative_figure(
                    tables["path_cumulative"],
                    heading.over("Summed gradient of all paths up to each length"),
                ),
            )
        if self.stages:
            yield NamedFigure(
                "path_spectrum_stages",
                lambda: figures.exact_figure(
                    tables["path_spectrum_stages"],
                    "stage",
                    heading.over("Exact gradient by path length within each stage"),
                ),
            )
        if self.unit is not None:
            yield NamedFigure(
                "path_spectrum_unit",
                lambda: figures.exact_figure(
                    tables["path_spectrum_unit"],
                    "unit",
                    heading.over("Exact gradient of one unit's parameters by path length"),
                ),
            )

    def figures_together(self, cases: Sequence[Case], title: str) -> Iterator[NamedFigure]:
        """The spectra of all cases (`curves_of`)."""
        spectra = curves_of(cases, "path_spectrum")
        if spectra and not self.lengths_only:
            yield NamedFigure("paths", lambda: figures.spectra_figure(spectra, title))

    def summary(self, tables: Tables, subject: "Subject") -> Summary:
        return summary.summary_of(tables, subject.label, subject.num_units)


def _swept(
    measure: "Callable[..., ExactSpectrum]",
    which: Any,
    label: str,
    subject: "Subject",
    batch: "Batch",
    progress: "Progress",
) -> "ExactSpectrum":
    """An exact spectrum of a batch.

    Args:
        measure: `exact_spectrum` or `exact_spectrum_of_unit`.
        which: the units that it counts, or its unit.
    """
    network, engine = subject.network, subject.context.engine
    with progress.of(f"exact spectrum of {label}") as report:
        found = measure(network, *batch, which, report, engine)
    progress.display.paragraph(
        f"exact spectrum of {label} over {found.images} images: its sum differs from the ordinary "
        f"gradient by {found.check:.1e} (relative)"
    )
    return found
