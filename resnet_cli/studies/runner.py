"""Asks a study of one network: measures what is not there yet, writes tables and plots, prints."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pandas import DataFrame

from resnet_cli.config.editions import EDITION
from resnet_cli.config.schema import (
    AdditivityStudy,
    DeleteStudy,
    GreedyStudy,
    PathsStudy,
    Profile,
    ReorderStudy,
    SignalStudy,
    config_hash,
)
from resnet_cli.figures.draw import plot_for, plot_ranked
from resnet_cli.figures.titles import Heading, network_title
from resnet_cli.models import build
from resnet_cli.models.survival import set_survival
from resnet_cli.models.units import Place
from resnet_cli.results.provenance import Checkpoint, collect
from resnet_cli.results.tables import is_pair, read_provenance, read_table, write_table
from resnet_cli.runtime import processes
from resnet_cli.runtime.display import Display
from resnet_cli.runtime.errors import UserError
from resnet_cli.runtime.interrupt import watched
from resnet_cli.studies import additivity, greedy, lesion, paths, signal
from resnet_cli.studies.intervals import SHARES, shortest_interval
from resnet_cli.studies.subject import Subject


@dataclass
class Written:
    """The files a command wrote, and what it found, for its summary."""

    files: list[Path] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    kept: list[Path] = field(default_factory=list)
    """Files that were there already, whole."""


AnyStudy = DeleteStudy | ReorderStudy | PathsStudy | GreedyStudy | AdditivityStudy | SignalStudy
"""The studies of a network; path_survival needs none."""


def run_study(
    subject: Subject,
    study: AnyStudy,
    *,
    seed: int,
    out: Path,
    display: Display,
    profile: Profile | None = None,
    config: Mapping[str, Any] | None = None,
    heading: Heading | None = None,
    only: Sequence[int] | None = None,
    ranked: bool = False,
    batch_statistics: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Written:
    """Ask a study of a network and write its tables and plots; skipped when `out` has them.

    Args:
        config: the resolved experiment; None for a command typed by hand.
        heading: what its plots' titles say beside what is shown; None names network and data set.
        only: delete exactly these units, together.
        ranked: show deletions by damage, worst first.
        should_stop: asked whenever progress is told, many times in each table.

    Raises:
        Interrupted: `should_stop` said so; the table under way is begun anew another time.
        UserError: the study asks for units or lengths that the network does not have.
    """
    model = subject.loaded.model
    by_hand = {
        "edition": EDITION,
        "model": model.model_dump(mode="json") if model is not None else None,
        "data": subject.data.model_dump(mode="json"),
    }
    # An experiment's data stay as it names them, so that it can be run again from its provenance;
    # how many of the images were measured on stands in the study and in the table.
    described = dict(config or by_hand) | {
        "study": study.model_dump(mode="json"),
        "only": list(only) if only is not None else None,
        "batch_statistics": batch_statistics,
        "seed": seed,
    }
    if subject.context.engine != "fast":
        described["engine"] = subject.context.engine
    network = network_title(subject.loaded.label)
    heading = heading or Heading(None, network, subject.data.dataset, profile=profile)
    ask = _Inquiry(subject, described, seed, out, profile, heading, display, should_stop)
    if isinstance(study, DeleteStudy):
        _delete(ask, study, only, ranked)
    elif isinstance(study, ReorderStudy):
        _reorder(ask, study)
    elif isinstance(study, GreedyStudy):
        _greedy(ask, study)
    elif isinstance(study, AdditivityStudy):
        _additivity(ask, study)
    elif isinstance(study, SignalStudy):
        _signal(ask, study)
    else:
        _paths(ask, study, batch_statistics)
    return ask.written


class _Inquiry:
    """One study of one network: writes its tables with their provenance, and knows which are there
    already."""

    def __init__(
        self,
        subject: Subject,
        config: Mapping[str, Any],
        seed: int,
        out: Path,
        profile: Profile | None,
        heading: Heading,
        display: Display,
        should_stop: Callable[[], bool],
    ) -> None:
        self.subject, self.config, self.seed, self.out = subject, config, seed, out
        self.profile, self.heading = profile, heading
        self.display, self.should_stop = display, should_stop
        self.engine = subject.context.engine
        self.started = datetime.now(UTC)
        self.written = Written()

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """The display's progress, which also ends the study when it is to stop."""
        told = (
            f"stopped ({label}); tables already written stay, and the same command measures the "
            "rest"
        )
        with self.display.progress(label) as update:
            yield watched(update, self.should_stop, told)

    def done(self, stem: str) -> bool:
        """This very table is there: same configuration, weights and images, whole."""
        there = processes.from_first(lambda: self._is_there(stem))
        path = self.out / f"{stem}.csv"
        if there and path not in self.written.kept:
            self.written.kept.append(path)
        return there

    def _is_there(self, stem: str) -> bool:
        path = self.out / f"{stem}.csv"
        try:
            if not path.exists() or not is_pair(path):
                return False
            old = read_provenance(path)
        except UserError:
            return False
        same_weights = (old.get("checkpoint") or {}).get("sha256") == self.subject.loaded.sha256
        same_question = old.get("config_hash") == config_hash(self.config)
        return same_weights and same_question and self._is_of_these_images(old.get("data") or {})

    def _is_of_these_images(self, recorded: Mapping[str, str]) -> bool:
        """Whether the fingerprints by `data set/split` are those of the images at hand. Only class
        folders are looked at: any other data set is what its name says."""
        data = self.subject.data
        if data.dataset != "imagefolder":
            return True
        return all(
            self.subject.context.split(data, name.split("/")[1]).fingerprint == fingerprint  # type: ignore[arg-type]
            for name, fingerprint in recorded.items()
        )

    def rows(self, stem: str) -> list[dict[str, Any]]:
        """The rows of a table that is there."""
        found = processes.from_first(lambda: read_table(self.out / f"{stem}.csv"))
        return [{str(k): v for k, v in row.items()} for row in found.to_dict("records")]

    def write(self, stem: str, rows: Sequence[Mapping[str, Any]], *splits: str) -> None:
        """Write a table; `splits` are those that were measured on."""
        path = processes.from_first(lambda: self._table(stem, rows, splits))
        self.written.files.append(path)
        self.written.kept = [kept for kept in self.written.kept if kept != path]

    def _table(self, stem: str, rows: Sequence[Mapping[str, Any]], splits: Sequence[str]) -> Path:
        loaded, data = self.subject.loaded, self.subject.data
        provenance = collect(
            self.config,
            seeds=(self.seed,),
            started=self.started,
            profile=self.profile,
            data={
                f"{data.dataset}/{name}": self.subject.context.split(data, name).fingerprint  # type: ignore[arg-type]
                for name in splits
            },
            checkpoint=Checkpoint(source=loaded.source, sha256=loaded.sha256),
            device=str(self.subject.context.device),
        )
        return write_table(rows, stem, self.out, provenance)

    def plot(self, *stems: str) -> None:
        """Draw the last of these tables, with the others at hand."""
        self.written.files += processes.from_first(lambda: self._draw(stems))

    def _draw(self, stems: Sequence[str]) -> list[Path]:
        tables = {
            stem: read_table(self.out / f"{stem}.csv")
            for stem in stems
            if (self.out / f"{stem}.csv").exists()
        }
        loaded = self.subject.loaded
        places = loaded.network.places
        return plot_for(
            stems[-1],
            tables,
            self.out,
            self.heading,
            changes=[place.index for place in places if place.changes_shape],
            chance=100.0 * (1 - 1 / loaded.num_classes),
        )

    def plot_ranked(self, deletions: DataFrame) -> None:
        """Draw single deletions by damage."""
        places = self.subject.loaded.network.places
        changes = [place.index for place in places if place.changes_shape]
        draw = partial(plot_ranked, deletions, self.out, self.heading, changes)
        self.written.files.append(processes.from_first(draw))


def _delete(ask: _Inquiry, study: DeleteStudy, only: Sequence[int] | None, ranked: bool) -> None:
    subject, seed, display = ask.subject, ask.seed, ask.display
    num_units = len(subject.loaded.network.units)
    if only is not None:
        deletions = [lesion.Deletion(0, tuple(only))]
    else:
        deletions = lesion.draw_deletions(num_units, study.k, study.samples, seed)
    stems = ["lesion_delete", *(["lesion_classes"] if study.per_class else [])]
    if not all(ask.done(stem) for stem in stems):
        batches = subject.batches("test")
        with ask.progress(f"deleting units of {subject.label}") as update:
            outcomes = lesion.measure_deletions(
                subject.loaded.network, batches, deletions, update, ask.engine
            )
        rows = lesion.deletion_rows(deletions, outcomes, seed)
        ask.write("lesion_delete", rows, "test")
        if study.per_class:
            by_class = lesion.class_rows(deletions, outcomes, batches, seed)
            ask.write("lesion_classes", by_class, "test")
    if only is None:
        ask.plot("lesion_delete")
    if study.per_class:
        ask.plot("lesion_classes")
    frame = read_table(ask.out / "lesion_delete.csv")
    if ranked and (frame["k"] == 1).any():
        ask.plot_ranked(frame)
    baseline = float(frame["baseline_error"].iloc[0])
    ask.written.facts = {
        "baseline_error": baseline,
        "rows": len(frame),
        "median_error_by_k": {
            str(k): float(errors.median()) for k, errors in frame.groupby("k")["test_error"]
        },
    }
    title = f"{subject.label}: {frame['images'].iloc[0]} images, intact {baseline:.2f} %"
    _show_deletions(subject, frame, title, ranked, display)
    if study.per_class:
        classes = read_table(ask.out / "lesion_classes.csv")
        errors = classes.groupby("class_name", sort=False)[["baseline_error", "test_error"]].mean()
        ask.written.facts["mean_error_by_class"] = {
            str(name): {"intact": _known(intact), "units_deleted": _known(deleted)}
            for name, intact, deleted in errors.itertuples()
        }
        _show_classes(classes, display)


MOST_SHOWN = 60
"""Deletions listed one by one; more are summarised by k, or cut when ranked."""


def _show_deletions(
    subject: Subject, frame: DataFrame, title: str, ranked: bool, display: Display
) -> None:
    """Each deletion in a row, in order or worst first; or a summary by k where they are many."""
    if ranked:
        worst = frame.sort_values(["test_error", "loss"], ascending=False, kind="stable")
        if len(worst) > MOST_SHOWN:
            title += f"; the worst {MOST_SHOWN} of {len(worst)}"
        frame = worst.head(MOST_SHOWN)
    elif frame["k"].nunique() > 1 or len(frame) > MOST_SHOWN:
        summary = frame.groupby("k")["test_error"].describe()[["count", "min", "50%", "max"]]
        display.table(
            title,
            ["k", "samples", "min error", "median error", "max error"],
            [[k, int(n), *rest] for k, n, *rest in summary.itertuples()],
        )
        return
    shown = ["blocks", "test_error", "kl_divergence", "agreement"]
    rows = [list(row) for row in frame[shown].itertuples(index=False)]
    columns = ["blocks", "test error", "KL divergence", "agreement"]
    if (frame["k"] == 1).all():
        places = subject.loaded.network.places
        columns = ["unit", "place", *columns[1:]]
        rows = [[blocks, _place(places[int(blocks)]), *rest] for blocks, *rest in rows]
    display.table(title, columns, rows)


def _place(place: Place) -> str:
    """Where a unit stands, without a second number for it: units count from 0 through all stages.

    Of a stage the first unit is told apart: it may change the shape, and matters most.
    """
    return f"stage {place.stage}{', first' if place.number == 1 else ''}"


def _show_classes(classes: DataFrame, display: Display) -> None:
    """The error of each class, intact and by deletion."""
    by_class = classes.groupby(["class", "class_name"], sort=True)
    display.table(
        "by class",
        ["class", "images", "intact", "mean with units deleted", "worst", "units deleted there"],
        [
            [
                name,
                int(rows["images"].iloc[0]),
                float(rows["baseline_error"].iloc[0]),
                float(rows["test_error"].mean()),
                float(rows["test_error"].max()),
                rows["blocks"].iloc[int(rows["test_error"].fillna(-1).argmax())],
            ]
            for (_, name), rows in by_class
        ],
    )


def _greedy(ask: _Inquiry, study: GreedyStudy) -> None:
    subject, seed, display = ask.subject, ask.seed, ask.display
    network = subject.loaded.network
    num_units = len(network.units)
    ks = range(1, study.max_units + 1)
    if not (ask.done("lesion_greedy") and ask.done("lesion_delete")):
        batches = subject.batches("test")
        chosen_on, splits = None, ["test"]
        if study.choose_on == "train":
            limit = study.choose_images or subject.data.train_images
            data = subject.data.model_copy(update={"train_images": limit})
            chosen_on, splits = replace(subject, data=data).batches("train"), ["test", "train"]
        if not ask.done("lesion_greedy"):
            with ask.progress(f"deleting the least harmful units of {subject.label}") as update:
                rows = greedy.delete_greedily(
                    network,
                    batches,
                    study.max_units,
                    seed,
                    choose_on=chosen_on,
                    report=update,
                    engine=ask.engine,
                )
            ask.write("lesion_greedy", rows, *splits)
        deletions = lesion.draw_deletions(num_units, ks, study.samples, seed)
        with ask.progress(f"deleting random units of {subject.label}") as update:
            drawn = lesion.delete_units(network, batches, deletions, seed, update, ask.engine)
        ask.write("lesion_delete", drawn, "test")
    ask.plot("lesion_delete", "lesion_greedy")
    frame = read_table(ask.out / "lesion_greedy.csv")
    random = read_table(ask.out / "lesion_delete.csv").groupby("k")["test_error"].mean()
    baseline = float(frame["baseline_error"].iloc[0])
    ask.written.facts = {
        "baseline_error": baseline,
        "chosen_on": study.choose_on,
        "order": [int(unit) for unit in frame["unit"]],
        "error_by_k": {
            str(k): error for k, error in zip(frame["k"], frame["test_error"], strict=True)
        },
        "mean_random_error_by_k": {str(k): float(error) for k, error in random.items()},
    }
    display.table(
        f"{subject.label}: {frame['images'].iloc[0]} images, intact {baseline:.2f} %; units chosen "
        f"on {'these same' if study.choose_on == 'test' else 'training'} images",
        ["k", "unit deleted", "error", "mean error, random"],
        [
            [k, unit, error, float(random[k])]
            for k, unit, error in frame[["k", "unit", "test_error"]].itertuples(index=False)
        ],
    )


def _additivity(ask: _Inquiry, study: AdditivityStudy) -> None:
    subject, seed, display = ask.subject, ask.seed, ask.display
    network = subject.loaded.network
    sets = additivity.draw_sets(len(network.units), study.k, study.samples, seed)
    if not ask.done("lesion_additivity"):
        batches = subject.batches("test")
        with ask.progress(f"deleting sets of units of {subject.label}") as update:
            rows = additivity.compare_damages(network, batches, sets, seed, update, ask.engine)
        ask.write("lesion_additivity", rows, "test")
    ask.plot("lesion_additivity")
    frame = read_table(ask.out / "lesion_additivity.csv")
    found = additivity.correlations(frame.to_dict("records"))  # type: ignore[arg-type]
    ask.written.facts = {
        "baseline_error": float(frame["baseline_error"].iloc[0]),
        "rows": len(frame),
        "correlation": found,
    }
    columns = ["joint_damage", "summed_damage", "joint_loss_damage", "summed_loss_damage"]
    display.table(
        f"{subject.label}: {frame['images'].iloc[0]} images; means over sets of k units",
        ["k", "sets", "joint error", "summed error", "joint loss", "summed loss"],
        [
            [k, len(rows), *(float(rows[column].mean()) for column in columns)]
            for k, rows in frame.groupby("k")
        ],
    )
    told = [f"{name.replace('_', ', ')}: {_correlation(value)}" for name, value in found.items()]
    display.paragraph(f"correlation of joint with summed damage: {'; '.join(told)}", level=-1)


def _correlation(value: float | None) -> str:
    return "none, the damages do not vary" if value is None else f"{value:.3f}"


def _reorder(ask: _Inquiry, study: ReorderStudy) -> None:
    subject, seed, display = ask.subject, ask.seed, ask.display
    network = subject.loaded.network
    if not ask.done("lesion_reorder"):
        draws = lesion.draw_reorderings(network.places, study.swaps, study.samples, seed)
        batches = subject.batches("test")
        with ask.progress(f"reordering units of {subject.label}") as update:
            rows = lesion.reorder_units(network, batches, draws, seed, update, ask.engine)
        ask.write("lesion_reorder", rows, "test")
    ask.plot("lesion_reorder")
    frame = read_table(ask.out / "lesion_reorder.csv")
    by_swaps = frame.groupby("swaps")[["kendall_tau", "test_error"]].median()
    ask.written.facts = {
        "baseline_error": float(frame["baseline_error"].iloc[0]),
        "rows": len(frame),
        "median_error_by_swaps": {str(k): float(e) for k, _, e in by_swaps.itertuples()},
    }
    display.table(
        f"{subject.label}: {frame['images'].iloc[0]} images, "
        f"intact {frame['baseline_error'].iloc[0]:.2f} %",
        ["swaps", "median Kendall tau", "median error"],
        list(by_swaps.itertuples()),
    )


def _signal(ask: _Inquiry, study: SignalStudy) -> None:
    subject, seed = ask.subject, ask.seed
    loaded = subject.loaded
    if not ask.done("signal"):
        batches = subject.batches("train")
        chosen = paths.batch_indices(len(batches), study.batch_size, seed, 0)
        images, labels = batches.plain(chosen)
        networks = {}
        if loaded.model is not None:
            start = loaded.run.seed if loaded.run is not None else seed
            networks["initial"] = build(loaded.model, loaded.num_classes, start)
            if loaded.run is not None:
                set_survival(networks["initial"], loaded.run.train)
        if loaded.is_trained:
            networks["trained"] = loaded.network
        measured = []
        for state, network in networks.items():
            with ask.progress(f"signals of {subject.label}, {state}") as update:
                found = signal.measure_signal(network.to(images.device), images, labels, update)
            common = {"state": state, "images": len(labels), "seed": seed}
            measured += [common | row for row in found]
        ask.write("signal", measured, "train")
    ask.plot("signal")
    frame = read_table(ask.out / "signal.csv")
    columns = ["activation_norm", "gradient_norm", "shortcut_product", "shortcut_gain"]
    for state in frame["state"].unique():
        rows = frame[frame["state"] == state]
        deviation = signal.closed_form_deviation(loaded.network, rows.to_dict("records"))
        if deviation is not None:
            ask.written.facts[f"closed_form_deviation_{state}"] = deviation
            ask.display.paragraph(
                f"{state}: shortcuts that are scalars pass the gradient on by their lambda "
                f"to within {deviation:.1e} (relative)"
            )
        ask.written.facts[f"{state}_at_first_unit"] = {
            column: _known(rows[column].iloc[0]) for column in columns
        }
    ask.display.table(
        f"{subject.label}: signals at the input of the first unit and of every stage after it",
        ["state", "unit", "activation", "gradient", "lambda product", "direct gain"],
        [
            [state, unit, *map(_short, values)]
            for state, unit, *values in frame[["state", "unit", *columns]].itertuples(index=False)
            if unit in _milestones(subject)
        ],
    )


def _milestones(subject: Subject) -> set[int]:
    """The first unit of every stage, and the place after the last unit."""
    places = subject.loaded.network.places
    return {place.index for place in places if place.number == 1} | {len(places)}


def _paths(ask: _Inquiry, study: PathsStudy, batch_statistics: bool) -> None:
    subject, display = ask.subject, ask.display
    network = subject.loaded.network
    num_units = len(network.units)
    ks = tuple(range(num_units + 1)) if study.k is None else study.k
    paths.check_lengths(ks, num_units)
    if study.unit is not None and study.unit >= num_units:
        raise UserError(
            f"unit {study.unit} does not exist; this network has {num_units} units, 0 to "
            f"{num_units - 1}"
        )
    ask.write("path_lengths", paths.path_lengths(num_units))
    if study.lengths_only:
        ask.plot("path_lengths")
        ask.written.facts = {"units": num_units, "paths": 2**num_units}
        rows = [
            [row["k"], f"{row['paths']:,}", f"{100 * row['fraction']:.4f} %"]
            for row in paths.path_lengths(num_units)
        ]
        display.table(f"{subject.label}: {2**num_units:,} paths", ["k", "paths", "share"], rows)
        return
    stems = ["path_gradients", "path_spectrum"]
    stems += ["path_spectrum_stages"] if study.stages else []
    stems += ["path_spectrum_unit"] if study.unit is not None else []
    if not all(ask.done(stem) for stem in stems):
        _measure_paths(ask, study, ks, batch_statistics)
    ask.plot("path_lengths", "path_gradients", "path_spectrum")
    ask.plot("path_lengths", "path_spectrum", "path_gradients")
    for stem in stems[2:]:
        ask.plot(stem)
    _show_spectrum(ask)
    for stem in stems[2:]:
        frame = read_table(ask.out / f"{stem}.csv")
        ask.written.facts[f"exact_norm_by_{frame.columns[0]}_and_k"] = {
            str(which): _by_length(rows, "exact_norm")
            for which, rows in frame.groupby(frame.columns[0])
        }


def _measure_paths(
    ask: _Inquiry, study: PathsStudy, ks: Sequence[int], batch_statistics: bool
) -> None:
    """Sample paths and, if asked, sweep the exact spectra; write their tables."""
    subject, seed, display = ask.subject, ask.seed, ask.display
    network = subject.loaded.network
    num_units = len(network.units)
    batches = subject.batches("train")
    if ask.done("path_gradients"):
        gradients = ask.rows("path_gradients")
    else:
        with ask.progress(f"sampling paths of {subject.label}") as update:
            gradients = paths.sample_path_gradients(
                network,
                batches,
                ks,
                study.samples,
                study.batch_size,
                seed,
                estimator=study.estimator,
                batch_statistics=batch_statistics,
                engine=ask.engine,
                report=update,
            )
        ask.write("path_gradients", gradients, "train")
    images, labels = batches.plain(paths.batch_indices(len(batches), study.batch_size, seed, 0))
    exact = None
    if study.exact:
        with ask.progress(f"exact spectrum of {subject.label}") as update:
            exact = paths.exact_spectrum(network, images, labels, report=update, engine=ask.engine)
        ask.written.facts["exact_check"] = exact.check
        display.paragraph(f"exact spectrum over {exact.images} images: {_checked(exact)}")
    ask.write("path_spectrum", paths.spectrum_rows(num_units, gradients, exact), "train")
    if study.stages:
        rows = []
        for stage in sorted({place.stage for place in network.places}):
            counted = [place.index for place in network.places if place.stage == stage]
            with ask.progress(f"exact spectrum of stage {stage}") as update:
                found = paths.exact_spectrum(network, images, labels, counted, update, ask.engine)
            display.paragraph(f"stage {stage}, {len(counted)} units: {_checked(found)}")
            rows += paths.exact_rows("stage", stage, found)
        ask.write("path_spectrum_stages", rows, "train")
    if study.unit is not None:
        with ask.progress(f"exact spectrum at unit {study.unit}") as update:
            found = paths.exact_spectrum_of_unit(
                network, images, labels, study.unit, update, ask.engine
            )
        display.paragraph(f"parameters of unit {study.unit}: {_checked(found)}")
        ask.write("path_spectrum_unit", paths.exact_rows("unit", study.unit, found), "train")


def _checked(exact: paths.ExactSpectrum) -> str:
    return f"its sum differs from the ordinary gradient by {exact.check:.1e} (relative)"


def _show_spectrum(ask: _Inquiry) -> None:
    """The spectrum as a table, and the intervals of lengths that hold most of it.

    Shares are of all lengths: of the sampled norms there are none where some were not sampled.
    """
    subject, display = ask.subject, ask.display
    frame = read_table(ask.out / "path_spectrum.csv")
    num_units = len(subject.loaded.network.units)
    columns: dict[str, list[object]] = {
        "k": list(frame["k"]),
        "paths": [_short(paths_of_k) for paths_of_k in frame["paths"]],
    }
    weights = {}
    for name, norm, weight, share in (
        ("sampled", "mean_norm", "total", "share_total"),
        ("exact", "exact_norm", "exact_norm", "share_exact"),
    ):
        if frame[norm].isna().all():
            continue
        shown = norm.replace("_", " ")
        columns[shown] = [_short(value) for value in frame[norm]]
        ask.written.facts[f"{norm}_by_k"] = _by_length(frame, norm)
        if len(frame) == num_units + 1 and frame[norm].notna().all():
            columns[f"share {name}"] = [_percent(value) for value in frame[share]]
            weights[name] = [float(value) for value in frame[weight]]
    ask.written.facts["rows"] = len(frame)
    display.table(
        f"{subject.label}: gradient by path length, {num_units} units",
        list(columns),
        list(zip(*columns.values(), strict=True)),
    )
    lengths = [int(k) for k in frame["k"]]
    for name, of_lengths in weights.items():
        if not any(weight > 0 for weight in of_lengths):
            continue
        intervals = {share: shortest_interval(lengths, of_lengths, share) for share in SHARES}
        words = ", ".join(f"{share:.0%} in {a}-{b}" for share, (a, b) in intervals.items())
        first, last = intervals[0.9]
        inside = sum(math.comb(num_units, k) for k in range(first, last + 1)) / 2**num_units
        display.paragraph(
            f"{name}: {words} units; {first}-{last} are {100 * inside:.2g} % of all paths", level=-1
        )
        ask.written.facts[f"intervals_{name}"] = {
            f"{share:g}": list(interval) for share, interval in intervals.items()
        }


def _by_length(frame: DataFrame, column: str) -> dict[str, float]:
    """A column by path length, without the lengths that were not measured."""
    measured = frame[frame[column].notna()]
    return {str(k): float(v) for k, v in zip(measured["k"], measured[column], strict=True)}


def _known(value: float) -> float | None:
    """None where nothing was measured: JSON has no NaN."""
    return None if math.isnan(value) else float(value)


def _short(value: float) -> str:
    """Three digits; `-` where nothing was measured."""
    return "-" if math.isnan(value) else f"{value:.3g}"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f} %"
