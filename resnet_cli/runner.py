"""Carries out experiments: trains what is missing, asks the studies, writes tables and plots."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resnet_cli.config import (
    Case,
    DeleteStudy,
    Experiment,
    PathsStudy,
    ReorderStudy,
    RunConfig,
    config_hash,
)
from resnet_cli.context import Context, Subject, find_subject
from resnet_cli.display import Display
from resnet_cli.errors import UserError
from resnet_cli.papers import published, published_error
from resnet_cli.results.plots import describe, plot_for
from resnet_cli.results.provenance import Checkpoint, collect
from resnet_cli.results.tables import is_pair, read_provenance, read_table, write_table
from resnet_cli.studies import lesion, paths
from resnet_cli.training.interrupt import Interrupted, Stopper
from resnet_cli.training.loop import Progress
from resnet_cli.training.runs import FinishedRun, find_finished, train_run

AnyStudy = DeleteStudy | ReorderStudy | PathsStudy


@dataclass
class Written:
    """The files a command wrote, and what it found, for its summary."""

    files: list[Path] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


# --- experiments -------------------------------------------------------------------------------


def default_out(experiment: Experiment) -> Path:
    """`results/<paper>/<profile>/<experiment>`, or `results/local/<experiment>/<profile>`."""
    if experiment.paper is None:
        return Path("results/local") / experiment.name / experiment.profile
    name = experiment.name.removeprefix(f"{experiment.paper}/")
    return Path("results") / experiment.paper / experiment.profile / name


def run_experiment(
    experiment: Experiment, context: Context, display: Display, stopper: Stopper, out: Path
) -> Written:
    """Train every case and seed that is not trained yet; then the study, or the tables.

    Tables are written anew after each training, so that nothing measured waits for the rest.

    Raises:
        Interrupted: `stopper` said so; what is done is written.
        UserError: data are missing, or files cannot be written.
    """
    display.line(f"{experiment.name} (profile {experiment.profile}): {experiment.title}")
    started = datetime.now(UTC)
    trained: list[tuple[Case, FinishedRun]] = []
    written = Written()
    for case, run in experiment.runs():
        finished = _trained(experiment, case, run, context, display, stopper)
        trained.append((case, finished))
        if experiment.study is None:
            written = write_training_tables(experiment, trained, context, out, started)
    if experiment.study is None:
        _show_table(experiment, out, display)
        return written
    several_seeds = len(experiment.seeds) > 1
    for case, finished in trained:
        if stopper():
            raise Interrupted("stopped between studies; the same command goes on from there")
        folder = out
        if len(experiment.cases) > 1 or several_seeds:
            suffix = f"-seed{finished.run.seed}" if several_seeds else ""
            folder = out / f"{case.name}{suffix}"
        if finished.diverged_at is not None:
            display.line(f"case {case.name}: diverged in training; there is nothing to study")
            continue
        subject = find_subject(context, str(finished.folder))
        more = run_study(
            subject,
            experiment.study,
            seed=finished.run.seed,
            out=folder,
            display=display,
            profile=experiment.profile,
            config=experiment.model_dump(mode="json"),
        )
        written.files += more.files
        written.facts[case.name if not several_seeds else folder.name] = more.facts
    return written


def _trained(
    experiment: Experiment,
    case: Case,
    run: RunConfig,
    context: Context,
    display: Display,
    stopper: Stopper,
) -> FinishedRun:
    """The finished run of a case, trained now if it was not."""
    label = f"{case.name}, seed {run.seed}"
    finished = find_finished(context, run)
    if finished is not None:
        display.line(f"{label}: trained already ({finished.folder})")
        return finished
    with display.progress(label) as update:

        def report(progress: Progress) -> None:
            row = progress.row
            update(progress.iteration, progress.total, "")
            if row is not None:
                display.line(f"{label}: {_epoch_line(row)}")

        finished = train_run(
            context,
            run,
            experiment=experiment.name,
            case=case.name,
            profile=experiment.profile,
            stopper=stopper,
            report=report,
            note=display.line,
        )
    if finished.diverged_at is not None:
        display.line(f"{label}: diverged, loss not finite at iteration {finished.diverged_at}")
    return finished


def _epoch_line(row: Mapping[str, Any]) -> str:
    parts = [f"epoch {row['epoch']}", f"iteration {row['iteration']}"]
    if row["train_loss"] is not None:
        parts.append(f"train loss {row['train_loss']:.4f}")
    if row["test_error"] is not None:
        parts.append(f"test error {row['test_error']:.2f} %")
    if row["images_per_second"] is not None:
        parts.append(f"{row['images_per_second']:.0f} images/s")
    return ", ".join(parts)


def write_training_tables(
    experiment: Experiment,
    trained: Sequence[tuple[Case, FinishedRun]],
    context: Context,
    out: Path,
    started: datetime,
) -> Written:
    """training.csv and table.csv with their plots, from finished runs."""
    curves = [
        {"experiment": experiment.name, "case": case.name} | row
        for case, finished in trained
        for row in finished.rows
    ]
    table = [_table_row(experiment, case, finished) for case, finished in trained]
    provenance = collect(
        experiment.model_dump(mode="json"),
        seeds=experiment.seeds,
        started=min([started, *(datetime.fromisoformat(f.started) for _, f in trained)]),
        profile=experiment.profile,
        data={name: print_ for _, finished in trained for name, print_ in finished.data.items()},
        device=str(context.device),
        duration_seconds=sum(finished.seconds for _, finished in trained),
    )
    title = describe(experiment.title, trained[0][1].run.data.dataset, experiment.profile)
    written = Written()
    for stem, rows in (("training", curves), ("table", table)):
        if not rows:
            continue
        path = write_table(rows, stem, out, provenance)
        written.files.append(path)
        numbers = None
        if stem == "table" and experiment.paper is not None and experiment.figure is not None:
            numbers = published(experiment.paper)
            numbers = numbers[numbers["source"] == experiment.figure]
            numbers = None if numbers.empty else numbers
        frame = read_table(path)
        written.files += plot_for(stem, {stem: frame}, out, title, numbers=numbers)
    written.facts = {"cases": [dict(row) for row in table]}
    return written


def status(experiment: Experiment, finished: FinishedRun) -> str:
    """`diverged`, `fail` (test error above the experiment's `fail_above`), or `ok`."""
    if finished.diverged_at is not None or finished.test_error is None:
        return "diverged"
    limit = experiment.fail_above
    if limit == "auto":
        limit = 20.0 if finished.num_classes <= 10 else None
    return "fail" if limit is not None and finished.test_error > limit else "ok"


def _table_row(experiment: Experiment, case: Case, finished: FinishedRun) -> dict[str, Any]:
    paper_error = None
    if experiment.paper is not None and experiment.figure is not None:
        paper_error = published_error(experiment.paper, experiment.figure, case.name)
    return {
        "experiment": experiment.name,
        "case": case.name,
        "dataset": finished.run.data.dataset,
        "seed": finished.run.seed,
        "params": finished.parameters,
        "status": status(experiment, finished),
        "test_error": finished.test_error,
        "best_error": finished.best_error,
        "paper_error": paper_error,
    }


def _show_table(experiment: Experiment, out: Path, display: Display) -> None:
    frame = read_table(out / "table.csv")
    columns = ("case", "seed", "params", "status", "test_error", "best_error", "paper_error")
    rows = [
        [None if value != value else value for value in row]  # NaN is the one unequal to itself
        for row in frame[list(columns)].itertuples(index=False)
    ]
    display.table(f"{experiment.title} ({experiment.profile})", columns, rows)


# --- studies -----------------------------------------------------------------------------------


def run_study(
    subject: Subject,
    study: AnyStudy,
    *,
    seed: int,
    out: Path,
    display: Display,
    profile: str | None = None,
    config: Mapping[str, Any] | None = None,
    only: Sequence[int] | None = None,
    batch_statistics: bool = False,
) -> Written:
    """Ask a study of a network and write its tables and plots; skipped when `out` has them.

    Args:
        config: the resolved experiment; None for a command typed by hand.
        only: delete exactly these units, together.

    Raises:
        UserError: the study asks for units or lengths that the network does not have.
    """
    described = dict(config or {}) | {
        "study": study.model_dump(mode="json"),
        "data": subject.data.model_dump(mode="json"),
        "only": list(only) if only is not None else None,
        "batch_statistics": batch_statistics,
        "seed": seed,
    }
    recorder = _Recorder(subject, described, seed, out, profile)
    if isinstance(study, DeleteStudy):
        _delete(subject, study, seed, recorder, display, only)
    elif isinstance(study, ReorderStudy):
        _reorder(subject, study, seed, recorder, display)
    else:
        _paths(subject, study, seed, recorder, display, batch_statistics)
    return recorder.written


class _Recorder:
    """Writes a study's tables with their provenance, and knows which are there already."""

    def __init__(
        self,
        subject: Subject,
        config: Mapping[str, Any],
        seed: int,
        out: Path,
        profile: str | None,
    ) -> None:
        self.subject, self.config, self.seed, self.out = subject, config, seed, out
        self.profile = profile
        self.started = datetime.now(UTC)
        self.written = Written()
        self.split: str = "test"

    def done(self, stem: str) -> bool:
        """This very table is there: same configuration, same weights, whole."""
        path = self.out / f"{stem}.csv"
        if not path.exists() or not is_pair(path):
            return False
        try:
            old = read_provenance(path)
        except UserError:
            return False
        same_weights = (old.get("checkpoint") or {}).get("sha256") == self.subject.loaded.sha256
        return same_weights and old.get("config_hash") == config_hash(self.config)

    def write(self, stem: str, rows: Sequence[Mapping[str, Any]], *splits: str) -> None:
        """Write a table; `splits` are those that were measured on."""
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
            checkpoint=Checkpoint(loaded.source, loaded.sha256),
            device=str(self.subject.context.device),
        )
        self.written.files.append(write_table(rows, stem, self.out, provenance))

    def plot(self, *stems: str) -> None:
        """Draw the last of these tables, with the others at hand."""
        tables = {
            stem: read_table(self.out / f"{stem}.csv")
            for stem in stems
            if (self.out / f"{stem}.csv").exists()
        }
        loaded, data = self.subject.loaded, self.subject.data
        places = loaded.network.places
        self.written.files += plot_for(
            stems[-1],
            tables,
            self.out,
            describe(loaded.model.label, data.dataset, self.profile),
            network=loaded.model.label,
            changes=[place.index for place in places if place.changes_shape],
            chance=100.0 * (1 - 1 / loaded.num_classes),
        )


def _delete(
    subject: Subject,
    study: DeleteStudy,
    seed: int,
    recorder: _Recorder,
    display: Display,
    only: Sequence[int] | None,
) -> None:
    num_units = len(subject.loaded.network.units)
    if only is not None:
        deletions = [lesion.Deletion(0, tuple(only))]
    else:
        deletions = lesion.draw_deletions(num_units, study.k, study.samples, seed)
    if not recorder.done("lesion_delete"):
        batches = subject.batches("test")
        with display.progress(f"deleting units of {subject.label}") as update:
            rows = lesion.delete_units(subject.loaded.network, batches, deletions, seed, update)
        recorder.write("lesion_delete", rows, "test")
    if only is None:
        recorder.plot("lesion_delete")
    frame = read_table(recorder.out / "lesion_delete.csv")
    baseline = float(frame["baseline_error"].iloc[0])
    recorder.written.facts = {
        "baseline_error": baseline,
        "rows": len(frame),
        "median_error_by_k": {
            str(k): float(errors.median()) for k, errors in frame.groupby("k")["test_error"]
        },
    }
    title = f"{subject.label}: {frame['images'].iloc[0]} images, intact {baseline:.2f} %"
    if frame["k"].nunique() == 1 and len(frame) <= 60:
        shown = ["blocks", "test_error", "kl_divergence", "agreement"]
        if int(frame["k"].iloc[0]) == 1:
            places = subject.loaded.network.places
            names = [places[int(blocks)].name for blocks in frame["blocks"]]
            rows_shown = [
                [blocks, name, *rest]
                for name, (blocks, *rest) in zip(
                    names, frame[shown].itertuples(index=False), strict=True
                )
            ]
            display.table(title, ["unit", "name", *shown[1:]], rows_shown)
        else:
            display.table(title, shown, list(frame[shown].itertuples(index=False)))
    else:
        summary = frame.groupby("k")["test_error"].describe()[["count", "min", "50%", "max"]]
        display.table(
            title,
            ["k", "samples", "min error", "median error", "max error"],
            [[k, int(n), *rest] for k, n, *rest in summary.itertuples()],
        )


def _reorder(
    subject: Subject, study: ReorderStudy, seed: int, recorder: _Recorder, display: Display
) -> None:
    network = subject.loaded.network
    if not recorder.done("lesion_reorder"):
        draws = lesion.draw_reorderings(network.places, study.swaps, study.samples, seed)
        batches = subject.batches("test")
        with display.progress(f"reordering units of {subject.label}") as update:
            rows = lesion.reorder_units(network, batches, draws, seed, update)
        recorder.write("lesion_reorder", rows, "test")
    recorder.plot("lesion_reorder")
    frame = read_table(recorder.out / "lesion_reorder.csv")
    by_swaps = frame.groupby("swaps")[["kendall_tau", "test_error"]].median()
    recorder.written.facts = {
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


def _paths(
    subject: Subject,
    study: PathsStudy,
    seed: int,
    recorder: _Recorder,
    display: Display,
    batch_statistics: bool,
) -> None:
    network = subject.loaded.network
    num_units = len(network.units)
    ks = tuple(range(num_units + 1)) if study.k is None else study.k
    paths.check_lengths(ks, num_units)
    recorder.write("path_lengths", paths.path_lengths(num_units))
    if study.lengths_only:
        recorder.plot("path_lengths")
        recorder.written.facts = {"units": num_units, "paths": 2**num_units}
        rows = [
            [row["k"], f"{row['paths']:,}", f"{100 * row['fraction']:.4f} %"]
            for row in paths.path_lengths(num_units)
        ]
        display.table(f"{subject.label}: {2**num_units:,} paths", ["k", "paths", "share"], rows)
        return
    if not (recorder.done("path_gradients") and recorder.done("path_spectrum")):
        batches = subject.batches("train")
        with display.progress(f"sampling paths of {subject.label}") as update:
            gradients = paths.sample_path_gradients(
                network,
                batches,
                ks,
                study.samples,
                study.batch_size,
                seed,
                batch_statistics=batch_statistics,
                report=update,
            )
        recorder.write("path_gradients", gradients, "train")
        exact = None
        if study.exact:
            images, labels = batches.plain(
                paths.batch_indices(len(batches), study.batch_size, seed, 0)
            )
            with display.progress(f"exact spectrum of {subject.label}") as update:
                exact = paths.exact_spectrum(network, images, labels, update)
            display.line(
                f"exact spectrum over {exact.images} images: its sum differs from the ordinary "
                f"gradient by {exact.check:.1e} (relative)"
            )
            recorder.written.facts["exact_check"] = exact.check
        recorder.write("path_spectrum", paths.spectrum_rows(num_units, gradients, exact), "train")
    recorder.plot("path_lengths", "path_gradients", "path_spectrum")
    recorder.plot("path_lengths", "path_spectrum", "path_gradients")
    frame = read_table(recorder.out / "path_spectrum.csv")
    recorder.written.facts |= {"rows": len(frame)}
    columns = ("k", "paths", "mean_norm", "exact_norm", "share_total", "share_exact")
    display.table(
        f"{subject.label}: gradient by path length, {num_units} units",
        ["k", "paths", "mean norm", "exact norm", "share sampled", "share exact"],
        [
            [k, _short(paths_of_k), _short(mean), _short(whole), _percent(st), _percent(se)]
            for k, paths_of_k, mean, whole, st, se in frame[list(columns)].itertuples(index=False)
        ],
    )


def _short(value: float) -> str:
    """Three digits; `-` where nothing was measured."""
    return "-" if math.isnan(value) else f"{value:.3g}"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f} %"
