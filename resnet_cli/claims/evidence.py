"""The measurements of one profile: errors of trainings by table, and the tables of studies.

A case has a few errors, one for each seed, and is represented by their median, as in paper 1. The
interval is the 95 % Student's t interval of their mean: with the paper's five runs, no
distribution-free interval of the median reaches 95 %.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame

from resnet_cli.claims.papers import ONE_BIAS, case_title, published
from resnet_cli.claims.verdict import ASSUMED_ON, Errors, NotMeasuredError
from resnet_cli.config.experiments import experiment_names, experiment_profiles, load_experiment
from resnet_cli.config.schema import PROFILES, Experiment, ModelConfig
from resnet_cli.datasets import catalogue
from resnet_cli.results.layout import provenance_path
from resnet_cli.results.outcomes import case_key, read_outcomes
from resnet_cli.results.tables import read_provenance, read_table

CONFIDENCE = 0.95
PUBLISHED_RUNS = 5
"""The number of trainings behind paper 1's numbers on CIFAR, which are medians."""


def finite(value: float) -> float | None:
    """The value, or None if it is not finite, as in JSON and in tables."""
    return float(value) if math.isfinite(value) else None


def provenance_of(table: Path) -> Mapping[str, Any]:
    """A table's provenance; empty if there is none."""
    return read_provenance(table) if provenance_path(table).exists() else {}


def config_of(table: Path) -> Mapping[str, Any]:
    """The configuration in a table's provenance; empty if there is none."""
    return provenance_of(table).get("config") or {}


def model_of(config: Mapping[str, Any], case: str) -> ModelConfig | None:
    """The network of an experiment's case; None if the configuration has none."""
    if not config.get("model"):
        return None
    own = {entry["name"]: entry.get("model") or {} for entry in config.get("cases") or ()}
    return ModelConfig.model_validate(config["model"] | own.get(case, {}))


def dataset_of(config: Mapping[str, Any]) -> str:
    """The data set of an experiment; empty if the configuration has none."""
    return str((config.get("data") or {}).get("dataset") or "")


def test_images(config: Mapping[str, Any], dataset: str) -> int:
    """The number of test images; that of CIFAR if it is unknown.

    Args:
        config: the configuration of an experiment in a provenance; may be empty.
    """
    stated = (config.get("data") or {}).get("test_images")
    entry = catalogue.find_dataset(dataset)
    whole = entry.counts.get("test") if entry is not None else None
    return int(stated or whole or ASSUMED_ON)


# --- trainings -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainedCase:
    """A case of a table: the test errors of its trainings, one for each seed."""

    source: str
    """The table or figure: `table1`."""
    case: str
    dataset: str
    errors: tuple[float, ...]
    """Percent, after the last epoch; infinite if the training diverged."""
    model: ModelConfig | None = None
    """The trained network; None if the provenance has none."""
    images: int = ASSUMED_ON
    """The number of test images."""
    outcomes: tuple[NDArray[np.bool_], ...] = field(default=(), compare=False)
    """Whether each test image is classified correctly, shape [images], one array for each seed."""

    @property
    def num_seeds(self) -> int:
        return len(self.errors)

    @property
    def median(self) -> float:
        """Percent; infinite if at least half of the trainings diverged."""
        return statistics.median(self.errors)

    @property
    def status(self) -> str:
        """`diverged` if the median is infinite; `fail` if it is above 20 % on at most ten classes,
        as in paper 1; else `ok`."""
        if not math.isfinite(self.median):
            return "diverged"
        return "fail" if self.for_verdicts.fails else "ok"

    @property
    def can_fail(self) -> bool:
        """Whether an error above 20 % is a failure: on at most ten classes."""
        entry = catalogue.find_dataset(self.dataset)
        return entry is not None and 0 < len(entry.classes) <= 10

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % t interval of the mean, percent, clipped to 0 to 100; None for a single seed or
        if a training diverged."""
        if self.num_seeds < 2 or not all(map(math.isfinite, self.errors)):
            return None
        from scipy import stats

        mean = statistics.fmean(self.errors)
        spread = statistics.stdev(self.errors)
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, self.num_seeds - 1))
        half = quantile * spread / math.sqrt(self.num_seeds)
        return max(0.0, mean - half), min(100.0, mean + half)

    @property
    def title(self) -> str:
        """The name of the case, with the depth of the trained network."""
        return case_title(self.case, self.model.depth if self.model is not None else None)

    @property
    def network(self) -> str | None:
        """The family and depth of the trained network: `ResNet-38`; None if it is unknown."""
        if self.model is None:
            return None
        return f"{'VGG' if self.model.family == 'vgg' else 'ResNet'}-{self.model.depth}"

    @property
    def for_verdicts(self) -> Errors:
        """The errors as input for a verdict."""
        return Errors(
            self.title, self.errors, self.outcomes, images=self.images, can_fail=self.can_fail
        )


Trainings = Mapping[str, Mapping[str, TrainedCase]]
"""source -> case -> its trainings."""


def read_trainings(folder: Path) -> Trainings:
    """All cases in the `table.csv` files of a profile's folder.

    A file belongs to the paper's table or figure given by `config.figure` in its provenance, or
    else by its folder's name up to a hyphen: `table3-cifar10` -> `table3`. If two experiments of a
    source measured the same seed, it counts once.

    Raises:
        UserError: a table cannot be read.
    """
    found: dict[tuple[str, str], dict[int, tuple[float, NDArray[np.bool_] | None]]] = {}
    about: dict[tuple[str, str], tuple[str, ModelConfig | None, int]] = {}
    for path in sorted(folder.glob("*/table.csv")):
        config = config_of(path)
        figure = config.get("figure")
        source = figure if isinstance(figure, str) else path.parent.name.partition("-")[0]
        outcomes = read_outcomes(path.parent)
        for row in read_table(path).to_dict("records"):
            name, seed, error = str(row["case"]), int(row["seed"]), float(row["test_error"])
            case = ONE_BIAS.get(name, name)
            if row["status"] == "diverged" or not math.isfinite(error):
                error = math.inf
            trained = found.setdefault((source, case), {})
            trained.setdefault(seed, (error, outcomes.get(case_key(name, seed))))
            dataset = str(row["dataset"])
            images = test_images(config, dataset)
            about.setdefault((source, case), (dataset, model_of(config, name), images))
    trainings: dict[str, dict[str, TrainedCase]] = {}
    for (source, case), seeds in found.items():
        errors = tuple(error for error, _ in seeds.values())
        outcomes_of = tuple(outcome for _, outcome in seeds.values() if outcome is not None)
        complete = outcomes_of if len(outcomes_of) == len(errors) else ()
        dataset, model, images = about[source, case]
        trainings.setdefault(source, {})[case] = TrainedCase(
            source, case, dataset, errors, model, images, complete
        )
    return trainings


# --- studies -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StudyTable:
    """A table that a study measured on one network."""

    path: Path
    frame: DataFrame
    case: str

    @cached_property
    def provenance(self) -> Mapping[str, Any]:
        """The table's provenance; empty if there is none."""
        return provenance_of(self.path)

    @property
    def config(self) -> Mapping[str, Any]:
        return self.provenance.get("config") or {}

    @property
    def estimator(self) -> str:
        """How a study of paths drew them: a path for each `batch`, as published, or `image`."""
        return str((self.config.get("study") or {}).get("estimator", "batch"))

    @property
    def seed(self) -> int:
        return int((self.provenance.get("seeds") or [0])[0])

    @property
    def model(self) -> ModelConfig:
        """The network.

        Raises:
            NotMeasuredError: the provenance has none.
        """
        model = model_of(self.config, self.case)
        if model is None:
            raise NotMeasuredError
        return model

    @property
    def checkpoint(self) -> str | None:
        """The hash of the weights."""
        hash_of = (self.provenance.get("checkpoint") or {}).get("sha256")
        return str(hash_of) if hash_of else None

    @property
    def baseline(self) -> float:
        """The intact network's error, percent."""
        return float(self.frame["baseline_error"].iloc[0])


# --- one profile ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """The measurements of a paper at one profile.

    It records what the judges read, so that a verdict can state data sets, networks and seeds.
    """

    paper: str
    profile: str
    folder: Path
    """`results/<paper>/<profile>`."""
    trainings: Trainings
    read: list[tuple[str, str, int]] = field(default_factory=list, compare=False)
    """(data set, network, seeds) of what was read."""

    def case(self, source: str, case: str) -> TrainedCase:
        """The trainings of a row.

        Raises:
            NotMeasuredError: there are none.
        """
        found = self.trainings.get(source, {}).get(case)
        if found is None:
            raise NotMeasuredError
        self._record(found.dataset, found.model, found.num_seeds)
        return found

    def tables(self, experiment: str, stem: str, case: str = "main") -> list[StudyTable]:
        """The tables of a case, one for each training, by seed.

        If a network is the only one of its experiment, its table may be in the experiment's folder:
        `main`, and `preact110` of Figure 3 for a third-party checkpoint, which has no VGG.

        Raises:
            NotMeasuredError: there is none, or an empty one.
        """
        folder = self.folder / experiment
        paths = sorted(folder.glob(f"{case}-seed*/{stem}.csv"))
        alone = case in ("main", "preact110")
        for single in (folder / case, folder) if alone else (folder / case,):
            paths = paths or [path for path in [single / f"{stem}.csv"] if path.exists()]
        tables = [StudyTable(path, read_table(path), case) for path in paths]
        if not tables or any(table.frame.empty for table in tables):
            raise NotMeasuredError
        for table in tables:
            if table.provenance.get("seeds"):
                self._record(dataset_of(table.config), model_of(table.config, case), len(tables))
        return sorted(tables, key=lambda table: table.seed)

    def curves(self, experiment: str, case: str) -> list[DataFrame]:
        """The rows of training.csv of a case, one table for each seed, by iteration.

        Raises:
            NotMeasuredError: there are none.
        """
        path = self.folder / experiment / "training.csv"
        if not path.exists():
            raise NotMeasuredError
        frame = read_table(path)
        frame = frame[frame["case"] == case]
        if frame.empty:
            raise NotMeasuredError
        config = config_of(path)
        curves = [rows.sort_values("iteration") for _, rows in frame.groupby("seed")]
        self._record(dataset_of(config), model_of(config, case), len(curves))
        return curves

    def _record(self, dataset: str, model: ModelConfig | None, seeds: int) -> None:
        self.read.append((dataset, model.label if model is not None else "", seeds))

    def intact_error(self, table: StudyTable) -> float | None:
        """The test error, in percent, of the network that a table was measured on. For a table of
        paths it is taken from a lesion study of the same weights; None if there is none."""
        if "baseline_error" in table.frame:
            return table.baseline
        for path in sorted(self.folder.rglob("lesion_*.csv")):
            if path.stem == "lesion_classes" or path.stem.endswith("_recalibrated"):
                continue  # the error of one class, or with re-estimated statistics
            other = StudyTable(path, DataFrame(), table.case)
            if table.checkpoint is not None and other.checkpoint == table.checkpoint:
                frame = read_table(path)
                if "baseline_error" in frame and not frame.empty:
                    return float(frame["baseline_error"].iloc[0])
        return None

    def decides_below(self, experiment: str, published_error: float) -> float:
        """The error, in percent, that a reference network must reach: `decides_below` of the
        experiment at this profile, or else the published error plus one point. For weights that
        were not trained at a profile, `cpu` is used."""
        offered = _offered(f"{self.paper}/{experiment}")
        profile = self.profile if self.profile in PROFILES else "cpu"
        stated = offered[profile].decides_below if profile in offered else None
        return stated if stated is not None else published_error + 1


def published_trainings(paper: str) -> Trainings:
    """A paper's published errors as if they were measured here: medians of five trainings on
    CIFAR, single trainings on ImageNet; "fail" becomes an infinite error."""
    trainings: dict[str, dict[str, TrainedCase]] = {}
    table = published(paper)
    for row in table[table["metric"] != "top5_error"].to_dict("records"):
        error = math.inf if row["status"] == "fail" else float(row["value"])
        runs = 1 if row["dataset"] == "imagenet" else PUBLISHED_RUNS
        source, case = str(row["source"]), str(row["case"])
        trainings.setdefault(source, {})[case] = PublishedCase(
            source, case, str(row["dataset"]), (error,), runs=runs, spread=finite(row["std"])
        )
    return trainings


@dataclass(frozen=True)
class PublishedCase(TrainedCase):
    """A published median."""

    runs: int = PUBLISHED_RUNS
    spread: float | None = None

    @property
    def for_verdicts(self) -> Errors:
        return Errors(
            self.title,
            self.errors,
            spread=self.spread,
            published_n=self.runs,
            can_fail=self.can_fail,
        )


def offered_commands(
    paper: str, profile: str, needs: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """The commands that measure what a claim needs, at this profile if it has all cases."""
    commands = []
    for experiment, cases in needs.items():
        name = f"{paper}/{experiment}"
        offered = _offered(name)
        order = [p for p in (profile, "mini", "cpu", "paper") if p in offered]
        complete = [p for p in order if set(cases) <= {c.name for c in offered[p].cases}]
        for chosen in (complete or order)[:1]:
            is_fixed = catalogue.dataset(offered[chosen].data.dataset).is_fixed
            folder = "" if is_fixed else " --data-dir FOLDER"
            commands.append(f"resnet-cli run {name} --profile {chosen}{folder}")
    return tuple(commands)


@cache
def _offered(name: str) -> Mapping[str, Experiment]:
    """An experiment by profile; empty if there is no such experiment."""
    if name not in experiment_names():
        return {}
    return {profile: load_experiment(name, profile) for profile in experiment_profiles(name)}
