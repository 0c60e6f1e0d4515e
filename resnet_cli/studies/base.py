"""What a study is: its configuration, options, tables, measurement, figures and summary.

A study is one module with one class, named in `resnet_cli.config.registry.STUDIES`. Since the
command line reads the options of every study, the module imports torch, pandas and matplotlib only
inside its functions.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from resnet_cli.config.fields import StudyConfig, validated
from resnet_cli.config.registry import STUDIES, registered
from resnet_cli.results.columns import Table
from resnet_cli.runtime.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from resnet_cli.datasets.catalogue import SplitName
    from resnet_cli.figures.titles import Heading
    from resnet_cli.studies.progress import Progress
    from resnet_cli.studies.subject import Subject

Row = dict[str, Any]
Measured = Iterator[tuple[str, Sequence[Row], Sequence[str]]]
"""Name and rows of each table, and the splits it was measured on."""
Tables = Mapping[str, "DataFrame"]
"""The measured tables by name."""


@dataclass(frozen=True)
class Option:
    """The command-line option of a study's field."""

    flag: str
    help: str
    metavar: str | None = None
    selects: bool = False
    """The option selects the study among those of the command; at most one such option is given."""
    default: Any = None
    """The command's value if the option is not given; None: the default of the field."""
    shown_default: str | None = None
    """The default in `--help` if the command's argument has none."""
    word: str | None = None
    """Stands for the option in the name of the default folder of results; None: the flag without
    dashes; empty: it is not part of the name."""


@dataclass(frozen=True)
class NamedFigure:
    """A figure of a study."""

    name: str
    """The stem of its file; a key of the study's `pictures`."""
    draw: Callable[[], "Figure"]


@dataclass(frozen=True)
class Case:
    """One network of an experiment, for figures of several networks."""

    name: str
    """For labels."""
    tables: Tables
    heading: "Heading"


@dataclass(frozen=True)
class Summary:
    """The results of a study."""

    facts: dict[str, Any]
    """For `--json`."""
    title: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    sentences: Sequence[str] = ()
    """After the table."""
    more: Sequence[tuple[str, Sequence[str], Sequence[Sequence[Any]]]] = field(default=())
    """Further tables: title, columns, rows."""


class Study(StudyConfig):
    """A study of a network.

    The fields are the keys of a YAML's `study:` block. Fields with an `Option` in their annotation
    are also options of `command`. Two studies of one command may share a flag.
    """

    title: ClassVar[str]
    """The study in a few words."""
    pictures: ClassVar[Mapping[str, str]] = {}
    """Figure -> description: its alternative text in the report."""
    command: ClassVar[str | None] = None
    """The command that runs the study; None: `run` only."""
    shared_options: ClassVar[tuple[str, ...]] = ()
    """Those of `--images` and `--engine` that the command has."""
    tables: ClassVar[tuple[Table, ...]]
    needs_network: ClassVar[bool] = True
    """False: only the number of units is needed; nothing is trained and no data are read."""
    takes_experiment: ClassVar[bool] = False
    """The command also takes the networks of an experiment, trained or not."""

    @property
    def test_images(self) -> int | None:
        """The number of test images to measure on; None: all, or no test images."""
        return None

    @property
    def split(self) -> "SplitName | None":
        """The split to measure on; None: no images."""
        return "test" if self.needs_network else None

    @property
    def normalises_by_batch(self) -> bool:
        """Batch norms use the statistics of the batch, as in training, not the running ones."""
        return False

    def names(self) -> tuple[str, ...]:
        """The tables that these settings write, in the order in which they are measured."""
        return tuple(table.name for table in self.tables)

    def check(self, subject: "Subject") -> None:
        """Check the settings against the network before anything is measured.

        Raises:
            UserError: the network lacks units or lengths that the study names.
        """

    def measure(self, subject: "Subject", seed: int, progress: "Progress") -> Measured:
        """Measure the tables that `progress.wants`.

        Yields:
            Each table as soon as it is complete.
        """
        raise NotImplementedError

    def figures(self, tables: Tables, heading: "Heading") -> Iterable[NamedFigure]:
        """The figures of the measured tables."""
        return ()

    def figures_together(self, cases: Sequence[Case], title: str) -> Iterable[NamedFigure]:
        """The figures of several networks, in the order of the experiment."""
        return ()

    def summary(self, tables: Tables, subject: "Subject") -> Summary:
        """The results, from the tables."""
        raise NotImplementedError

    def as_drawn(self, figures: Iterable[str]) -> "Study":
        """The study with the settings, not stored, with which these figures were drawn."""
        return self

    @classmethod
    def check_options(cls, given: Mapping[str, Any]) -> None:
        """Check the options of the command against one another.

        Args:
            given: flag -> value, of the options that are not at their default.

        Raises:
            UserError: options exclude each other.
        """

    def identity(self, table: str | None = None) -> dict[str, Any]:
        """The settings that determine the numbers: the fields that are not at their defaults.

        Args:
            table: of whose numbers; None: of all tables.
        """
        return self.model_dump(mode="json", exclude_defaults=True) | {"kind": self.kind}


class OnTestImages(Study):
    """A study that measures on the test split, or on its first images."""

    images: PositiveInt | None = None
    """Only the first N test images; null: all."""

    @property
    def test_images(self) -> int | None:
        return self.images


GradientImages = Literal["train", "test"]
ON = Option("--on", "Split on which the gradients are measured.")
"""The option of a field of type `GradientImages`."""
MAX_SAMPLES = 10_000
"""Draws for each number of units or swaps, or each path length."""
Samples = Annotated[
    PositiveInt,
    Field(le=MAX_SAMPLES),
    Option("--samples", "Number of draws for each number of units.", metavar="N"),
]


def curves_of(cases: Sequence[Case], stem: str) -> "dict[str, DataFrame]":
    """Label -> table, for figures with a curve for each network. Of several trainings of a case, it
    is the first one's; of an experiment's only case, every training's."""
    cases = [case for case in cases if stem in case.tables]
    if len(cases) > 1 and len({case.name for case in cases}) == 1:
        return {f"training {n}": case.tables[stem] for n, case in enumerate(cases, 1)}
    found: dict[str, DataFrame] = {}
    for case in cases:
        found.setdefault(case.name, case.tables[stem])
    return found


def options_of(study: type[Study]) -> dict[str, Option]:
    """field -> option, of the fields that have one."""
    found = {}
    for name, info in study.model_fields.items():
        for part in info.metadata:
            if isinstance(part, Option):
                found[name] = part
    return found


def studies_of(command: str) -> list[type[Study]]:
    """The studies that a command offers, in the order of the registry."""
    found = [registered(STUDIES, "study", kind) for kind in STUDIES]
    return [study for study in found if study.command == command]


def stored_study(config: Mapping[str, Any]) -> Study | None:
    """The study in the configuration of a provenance file of any edition; None if there is none.

    The first edition stored `only` and `batch_statistics` outside of the `study` block.

    Raises:
        UserError: there is no such study, or its settings are not valid.
    """
    stored = config.get("study")
    if not isinstance(stored, Mapping):
        return None
    study: type[Study] = registered(STUDIES, "study", str(stored.get("kind")))
    outside = {key: config[key] for key in ("only", "batch_statistics") if config.get(key)}
    known = {key: value for key, value in outside.items() if key in study.model_fields}
    return validated(study, {**stored, **known}, "study")


def check_unit(unit: int, num_units: int) -> None:
    """Raises UserError for a unit that a network with this number of units does not have."""
    if not 0 <= unit < num_units:
        raise UserError(
            f"unit {unit} does not exist; this network has {num_units} units, 0 to {num_units - 1}"
        )


def known(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if math.isnan(value) else float(value)


def short(value: float) -> str:
    """The value with three digits; `-` for NaN."""
    return "-" if math.isnan(value) else f"{value:.3g}"
