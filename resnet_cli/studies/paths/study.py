"""The paths study: path lengths and the gradient by path length (paper 2, Figure 6)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from resnet_cli.config.fields import IntRange
from resnet_cli.results.columns import Table, number, whole
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.base import (
    MAX_SAMPLES,
    ON,
    Case,
    GradientImages,
    NamedFigure,
    Option,
    Row,
    Study,
    Summary,
    Tables,
    check_unit,
    first_tables,
    short,
)
from resnet_cli.studies.intervals import SHARES, shortest_interval
from resnet_cli.studies.paths import figures
from resnet_cli.studies.paths.lengths import (
    check_lengths,
    cumulative_rows,
    exact_rows,
    path_lengths,
    spectrum_rows,
)

if TYPE_CHECKING:
    import pandas
    from torch import Tensor

    from resnet_cli.datasets.catalogue import SplitName
    from resnet_cli.figures.titles import Heading
    from resnet_cli.studies.paths.exact import ExactSpectrum
    from resnet_cli.studies.progress import Progress
    from resnet_cli.studies.subject import Subject

ALIGNED = (0.5, 0.9, 0.99)
"""Cosines with the whole gradient for which the length of the paths is given."""
MAX_UNITS = 1000
"""The numbers of paths, up to C(n, n / 2), are multiplied by norms as floats of 64 bits."""
Batch = tuple["Tensor", "Tensor"]
"""Images and labels."""

_LENGTH = whole("k", "units that a path passes by their residual branch")
_SHARE = number("share_exact", "exact_norm as a share of its sum over k, 0 to 1", empty=True)
TABLES = (
    Table(
        "path_lengths",
        "path length",
        (
            _LENGTH,
            whole("paths", "how many paths have this length, C(n, k); an integer of any size"),
            number("fraction", "their share of all 2^n paths, 0 to 1"),
        ),
    ),
    Table(
        "path_gradients",
        "sampled path",
        (
            _LENGTH,
            whole("sample", "number of the draw within this k, from 0"),
            number(
                "grad_norm",
                "norm of the loss's gradient at the network's input that this one path delivers",
            ),
            whole("images", "images in the batch"),
            whole("seed", "seed of the draws"),
        ),
    ),
    Table(
        "path_spectrum",
        "path length",
        (
            _LENGTH,
            whole("paths", "as in path_lengths.csv"),
            number(
                "mean_norm",
                "mean of grad_norm over the samples; empty for a length not sampled",
                empty=True,
            ),
            number("std_norm", "their standard deviation", empty=True),
            number(
                "total",
                "paths × mean_norm, the estimate of paper 2, which takes no account of paths that "
                "cancel",
                empty=True,
            ),
            number(
                "exact_norm",
                "norm of the gradient that all paths of this length deliver together; empty unless "
                "measured",
                empty=True,
            ),
            number("share_total", "total as a share of its sum over k, 0 to 1", empty=True),
            _SHARE,
            number(
                "cancellation",
                "exact_norm / total: what is left of the paths' gradients when those of one length "
                "are added as vectors instead of by their norms",
                empty=True,
            ),
        ),
    ),
    Table(
        "path_cumulative",
        "longest path length",
        (
            whole("k", "residual branches that a path has at most"),
            number(
                "cosine",
                "cosine of the gradient at the input that all these paths deliver together with "
                "the whole gradient; empty where one is zero",
                empty=True,
            ),
            number("relative_norm", "its L2 norm over that of the whole gradient", empty=True),
            whole("images", "images in the batch"),
        ),
    ),
    Table(
        "path_spectrum_stages",
        "stage and path length",
        (
            whole("stage", "stage, from 1"),
            whole("k", "residual branches of that stage on the path"),
            whole("paths", "ways to choose them, C(units of the stage, k)"),
            number(
                "exact_norm",
                "L2 norm of the gradient at the input that all these paths deliver together",
            ),
            _SHARE,
        ),
        note="Exact spectra in which only the units of one stage count for a path's length; all "
        "other units pass\nthe gradient whole.",
    ),
    Table(
        "path_spectrum_unit",
        "path length",
        (
            whole("unit", "the unit, from 0"),
            whole("k", "residual branches on the path from the loss, the unit's own among them"),
            whole("paths", "C(units after it, k - 1)"),
            number(
                "exact_norm",
                "L2 norm of the gradient at its parameters that all these paths deliver together",
            ),
            _SHARE,
        ),
        note="The exact spectrum of the gradient at the parameters of one unit's residual branch.",
    ),
)


SWEEPS = ("--exact", "--cumulative", "--stages", "--unit")
"""The options that take an exact sweep."""


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
    """Only the number of paths by length; no gradient is measured."""
    exact: Annotated[
        bool,
        Option("--exact", "Add the exact spectrum: all paths of each length.", default=False),
    ] = True
    """Add the exact spectrum: the gradient that all paths of a length deliver together."""
    cumulative: Annotated[
        bool,
        Option(
            "--cumulative",
            "Add the direction of the gradient that all paths of up to each length deliver.",
        ),
    ] = False
    """Also the cosine of the gradient of all paths of up to each length with the whole gradient."""
    stages: Annotated[bool, Option("--stages", "Add the exact spectrum of each stage.")] = False
    """Also the exact spectrum of each stage: only its units count for a path's length."""
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
            "batch: one path for a batch, as published; image: one for each image.",
            word="estimator-",
        ),
    ] = "batch"
    """One path for the whole batch, as published, or a path of its own for each image."""
    batch_size: Annotated[
        PositiveInt,
        Option("--batch-size", "Images in a sample's batch.", metavar="N", word="batch"),
    ] = 128
    """Images in the batch that one sample's gradient belongs to."""
    batch_statistics: Annotated[
        bool,
        Option(
            "--batch-statistics",
            "Normalise by each batch's own statistics when sampling, as in training.",
        ),
    ] = False
    """Sample by the batch's statistics; not with the exact spectrum."""

    on: Annotated[GradientImages, ON] = "train"
    """The split that the batches are drawn from."""

    title = "Gradient by path length"
    pictures: ClassVar = {
        "paths": "number of paths, gradient of one path, and their product, by path length",
        "path_spectrum": "share of the gradient by path length, sampled and exact",
        "path_cumulative": "cosine with the whole gradient of what all paths of up to a length "
        "deliver, and its relative norm, by that length",
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
                "the exact spectrum uses running statistics, with which images do not see one "
                "another; it could not be compared with samples by --batch-statistics"
            )

    def names(self) -> tuple[str, ...]:
        if self.lengths_only:
            return ("path_lengths",)
        names = ["path_lengths", "path_gradients", "path_spectrum"]
        names += ["path_cumulative"] if self.cumulative else []
        names += ["path_spectrum_stages"] if self.stages else []
        names += ["path_spectrum_unit"] if self.unit is not None else []
        return tuple(names)

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
                f"the paths of {subject.num_units} units are too many for a float; gradients are "
                f"measured for at most {MAX_UNITS} units, --lengths counts paths of any number"
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

    def measure(
        self, subject: "Subject", seed: int, progress: "Progress"
    ) -> Iterator[tuple[str, Sequence[Row], Sequence[str]]]:
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
            swept = self.exact or self.cumulative
            exact = self._exact(subject, batch, progress) if swept else None
            rows = spectrum_rows(subject.num_units, gradients, exact if self.exact else None)
            yield "path_spectrum", rows, (self.on,)
            if self.cumulative and exact is not None:
                yield "path_cumulative", cumulative_rows(exact), (self.on,)
        if progress.wants("path_spectrum_stages"):
            yield "path_spectrum_stages", self._by_stage(subject, batch, progress), (self.on,)
        if progress.wants("path_spectrum_unit"):
            yield "path_spectrum_unit", self._at_unit(subject, batch, progress), (self.on,)

    def _sampled(self, subject: "Subject", seed: int, progress: "Progress") -> list[Row]:
        from resnet_cli.studies.paths import sampled

        with progress.of(f"sampling paths of {subject.label}") as report:
            return sampled.sample_path_gradients(
                subject.loaded.network,
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

    def _exact(self, subject: "Subject", batch: "Batch", progress: "Progress") -> "ExactSpectrum":
        from resnet_cli.studies.paths.exact import exact_spectrum

        network, engine = subject.loaded.network, subject.context.engine
        images, labels = batch
        with progress.of(f"exact spectrum of {subject.label}") as report:
            exact = exact_spectrum(network, images, labels, None, report, engine)
        progress.facts["exact_check"] = exact.check
        progress.display.paragraph(f"exact spectrum over {exact.images} images: {_checked(exact)}")
        return exact

    def _by_stage(self, subject: "Subject", batch: "Batch", progress: "Progress") -> list[Row]:
        from resnet_cli.studies.paths.exact import exact_spectrum

        network, engine = subject.loaded.network, subject.context.engine
        images, labels = batch
        rows = []
        for stage in sorted({place.stage for place in network.places}):
            counted = [place.index for place in network.places if place.stage == stage]
            with progress.of(f"exact spectrum of stage {stage}") as report:
                found = exact_spectrum(network, images, labels, counted, report, engine)
            progress.display.paragraph(f"stage {stage}, {len(counted)} units: {_checked(found)}")
            rows += exact_rows("stage", stage, found)
        return rows

    def _at_unit(self, subject: "Subject", batch: "Batch", progress: "Progress") -> list[Row]:
        from resnet_cli.studies.paths.exact import exact_spectrum_of_unit

        assert self.unit is not None
        network, engine = subject.loaded.network, subject.context.engine
        images, labels = batch
        with progress.of(f"exact spectrum at unit {self.unit}") as report:
            found = exact_spectrum_of_unit(network, images, labels, self.unit, report, engine)
        progress.display.paragraph(f"parameters of unit {self.unit}: {_checked(found)}")
        return exact_rows("unit", self.unit, found)

    # --- figures and summary ---------------------------------------------------------------------

    def figures(self, tables: Tables, heading: "Heading") -> Iterator[NamedFigure]:
        if self.lengths_only or "path_spectrum" not in tables:
            return
        yield NamedFigure(
            "paths",
            lambda: figures.paths_figure(
                tables["path_lengths"],
                tables["path_gradients"],
                heading.over("Paths by length, and the gradient that they carry"),
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
                    heading.over("Direction of the gradient of all paths of up to a length"),
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
        """The spectra of all cases; of several seeds, each case's first."""
        spectra = first_tables(cases, "path_spectrum")
        if spectra and not self.lengths_only:
            yield NamedFigure("paths", lambda: figures.spectra_figure(spectra, title))

    def summary(self, tables: Tables, subject: "Subject") -> Summary:
        num_units = subject.num_units
        if self.lengths_only:
            rows = [
                [k, f"{paths:,}", f"{100 * fraction:.4f} %"]
                for k, paths, fraction in tables["path_lengths"].itertuples(index=False)
            ]
            title = f"{subject.label}: {2**num_units:,} paths"
            facts = {"units": num_units, "paths": 2**num_units}
            return Summary(facts, *_cut(title, ["k", "paths", "share"], rows))
        frame = tables["path_spectrum"]
        columns, weights, facts = _spectrum_columns(frame, num_units)
        sentences = []
        for name, of_lengths in weights.items():
            if any(weight > 0 for weight in of_lengths):
                sentence, intervals = _intervals(name, list(frame["k"]), of_lengths, num_units)
                sentences.append(sentence)
                facts[f"intervals_{name}"] = intervals
        if self.cumulative:
            sentence, facts["cosine_up_to_k"] = _direction(tables["path_cumulative"], num_units)
            sentences.append(sentence)
        for stem in [name for name in self.names()[3:] if name != "path_cumulative"]:
            key = tables[stem].columns[0]
            facts[f"exact_norm_by_{key}_and_k"] = {
                str(which): _by_length(rows, "exact_norm")
                for which, rows in tables[stem].groupby(key)
            }
        title = f"{subject.label}: gradient by path length, {num_units} units"
        shown = list(zip(*columns.values(), strict=True))
        return Summary(facts, *_cut(title, list(columns), shown), sentences)


def _checked(exact: "ExactSpectrum") -> str:
    return f"its sum differs from the ordinary gradient by {exact.check:.1e} (relative)"


def _cut(
    title: str, columns: list[str], rows: Sequence[Sequence[Any]]
) -> tuple[str, list[str], Sequence[Sequence[Any]]]:
    """A table without the lengths before the first, and after the last, whose share is shown as
    more than zero; the title says which are left."""
    shares = [index for index, column in enumerate(columns) if column.startswith("share")]
    filled = [
        position
        for position, row in enumerate(rows)
        if any(row[index].strip("0. %-") for index in shares)
    ]
    if not filled or len(filled) == len(rows):
        return title, columns, rows
    kept = rows[filled[0] : filled[-1] + 1]
    return f"{title}; only lengths {kept[0][0]} to {kept[-1][0]} have a share", columns, kept


def _spectrum_columns(
    frame: "pandas.DataFrame", num_units: int
) -> tuple[dict[str, list[object]], dict[str, list[float]], dict[str, Any]]:
    """The spectrum's columns to show, the weights of the lengths by measurement, and the facts.

    Shares are of all lengths: there are no sampled ones if some lengths were not sampled.
    """
    columns: dict[str, list[object]] = {
        "k": list(frame["k"]),
        "paths": [short(paths) for paths in frame["paths"]],
    }
    weights: dict[str, list[float]] = {}
    facts: dict[str, Any] = {"rows": len(frame)}
    for name, norm, weight, share in (
        ("sampled", "mean_norm", "total", "share_total"),
        ("exact", "exact_norm", "exact_norm", "share_exact"),
    ):
        if frame[norm].isna().all():
            continue
        columns[norm.replace("_", " ")] = [short(value) for value in frame[norm]]
        facts[f"{norm}_by_k"] = _by_length(frame, norm)
        if len(frame) == num_units + 1 and frame[norm].notna().all():
            shares = frame[share]
            columns[f"share {name}"] = [
                "-" if math.isnan(value) else f"{100 * value:.2f} %" for value in shares
            ]
            weights[name] = [float(value) for value in frame[weight]]
    return columns, weights, facts


def _intervals(
    name: str, lengths: list[int], weights: list[float], num_units: int
) -> tuple[str, dict[str, list[int]]]:
    """The shortest intervals of lengths that hold most of the gradient, in words and as facts."""
    intervals = {share: shortest_interval(lengths, weights, share) for share in SHARES}
    words = ", ".join(f"{share:.0%} in {a}-{b}" for share, (a, b) in intervals.items())
    first, last = intervals[0.9]
    inside = sum(math.comb(num_units, k) for k in range(first, last + 1)) / 2**num_units
    return (
        f"{name}: {words} units; {first}-{last} are {100 * inside:.2g} % of all paths",
        {f"{share:g}": list(interval) for share, interval in intervals.items()},
    )


def _direction(frame: "pandas.DataFrame", num_units: int) -> tuple[str, dict[str, float]]:
    """From which length on the shortest paths point where the whole gradient does, in words, and
    the cosine by length."""
    found = []
    for cosine in ALIGNED:
        # From there on, not only there: the first paths may point that way by chance.
        below = frame.index[~(frame["cosine"] >= cosine)]
        length = int(below[-1]) + 1 if len(below) else 0
        found.append(f"{cosine:g} from length {length}")
    return (
        f"the gradient of all paths of up to a length has a cosine with the whole gradient of at "
        f"least {' on, of '.join(found)} on, of {num_units}"
    ), _by_length(frame, "cosine")


def _by_length(frame: "pandas.DataFrame", column: str) -> dict[str, float]:
    """A column by path length, without the lengths that were not measured."""
    measured = frame[frame[column].notna()]
    return {str(k): float(v) for k, v in zip(measured["k"], measured[column], strict=True)}
