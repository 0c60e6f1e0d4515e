"""The trainings of an experiment, and its tables."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from resnet_cli.claims.papers import published_error
from resnet_cli.config.fields import FAILS_ABOVE
from resnet_cli.config.schema import Case, Experiment, RunConfig
from resnet_cli.figures.style import save
from resnet_cli.figures.training import figure_of_trainings
from resnet_cli.results.layout import OUTCOMES_FILE
from resnet_cli.results.outcomes import RUN_KEY, case_key, read_outcomes, write_outcomes
from resnet_cli.results.provenance import Provenance, Trainings, collect
from resnet_cli.results.tables import read_provenance, read_table, write_table
from resnet_cli.runtime import processes
from resnet_cli.runtime.display import Display, duration
from resnet_cli.runtime.errors import UserError
from resnet_cli.runtime.interrupt import Stopper
from resnet_cli.studies.runner import Written
from resnet_cli.training.bundle import bundled_checkpoint, bundled_training
from resnet_cli.training.context import Context
from resnet_cli.training.evaluation import TOP5_FROM
from resnet_cli.training.loop import TrainingProgress
from resnet_cli.training.runs import (
    FinishedRun,
    find_finished,
    is_over,
    train_run,
    write_log,
)
from resnet_cli.weights.cards import bundled_weights_of


@dataclass(frozen=True)
class Session:
    """The context of a command, its display, and what may stop it."""

    context: Context
    display: Display
    stopper: Stopper


PLOT_SECONDS = 180.0
"""Minimum time between updates of the plots of an experiment that is still training."""


@dataclass(frozen=True)
class Trained:
    """The finished training of one case and seed."""

    case: Case
    finished: FinishedRun
    is_new: bool
    """Whether it was trained by this command."""
    bundled: str | None
    """The name of the bundled weights used instead of training, if any."""


def train_all(experiment: Experiment, session: Session) -> Iterator[Trained]:
    """Yield the training of every case and seed as it finishes."""
    runs = experiment.runs()
    begun = time.monotonic()
    num_new = 0
    for number, (case, run) in enumerate(runs, 1):
        bundled = pretrained_name(run, session.context)
        if bundled is not None:
            session.display.line(f"{case.name}, seed {run.seed}: bundled weights {bundled}")
            yield Trained(case, bundled_training(bundled), False, bundled)
            continue
        is_new = find_finished(session.context, run) is None
        finished = train_case(experiment, case, run, session)
        num_new += is_new
        if is_new and number < len(runs):
            left = (time.monotonic() - begun) / num_new * (len(runs) - number)
            session.display.line(
                f"{experiment.name}: {number} of {len(runs)} trainings, at most about "
                f"{duration(left)} left"
            )
        yield Trained(case, finished, is_new, None)


def run_trainings(experiment: Experiment, session: Session, out: Path) -> Written:
    """Run an experiment without a study and write its tables and plots.

    Tables are written after each training, so results do not wait for the other trainings. Plots
    are updated every few minutes and at the end.
    """
    started = datetime.now(UTC)
    written = Written()
    plotted = time.monotonic()
    done: list[Trained] = []
    for trained in train_all(experiment, session):
        done.append(trained)
        is_last = len(done) == len(experiment.runs())
        if not trained.is_new and not is_last:
            continue
        plot = is_last or time.monotonic() - plotted > PLOT_SECONDS
        device = str(session.context.device)
        write = partial(write_training_tables, experiment, done, device, out, started, plot=plot)
        written = processes.from_first(write)
        plotted = time.monotonic() if plot else plotted
    _show_table(experiment, out, session.display)
    return written


def pretrained_name(run: RunConfig, context: Context) -> str | None:
    """The name of bundled weights to use instead of this training (`Context.pretrained`), or
    None."""
    return bundled_weights_of(run) if context.pretrained else None


def train_case(experiment: Experiment, case: Case, run: RunConfig, session: Session) -> FinishedRun:
    """The finished run of a case; it is trained if necessary."""
    context, display, stopper = session.context, session.display, session.stopper
    label = f"{case.name}, seed {run.seed}"
    finished = find_finished(context, run)
    if finished is not None and is_over(context, run):
        display.line(f"{label}: already trained ({finished.folder})")
        write_log(context, finished, stopper, display.line)
        return finished
    with display.progress(label) as update:

        def report(progress: TrainingProgress) -> None:
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
    trained: Sequence[Trained],
    device: str,
    out: Path,
    started: datetime,
    *,
    plot: bool = True,
) -> Written:
    """Write training.csv and table.csv, and draw their plots, from finished runs."""
    finished = [one.finished for one in trained]
    curves = [
        {"experiment": experiment.name, "case": one.case.name} | row
        for one in trained
        for row in one.finished.rows
    ]
    table = [_table_row(experiment, one.case, one.finished) for one in trained]
    provenance = collect(
        experiment.model_dump(mode="json"),
        seeds=experiment.seeds,
        started=min([started, *(datetime.fromisoformat(run.started) for run in finished)]),
        profile=experiment.profile,
        data={name: print_ for run in finished for name, print_ in run.data.items()},
        checkpoint=bundled_checkpoint([one.bundled for one in trained if one.bundled]),
        device=device,
        duration_seconds=sum(run.seconds for run in finished),
    )
    trainings = trained_differently(trained, provenance)
    provenance = provenance.model_copy(update={"trainings": trainings})
    top5 = [
        {
            "experiment": experiment.name,
            "case": one.case.name,
            "seed": one.finished.run.seed,
            "top5_error": one.finished.top5_error,
            "paper_top5_error": _published(experiment, one.case, top5=True),
        }
        for one in trained
        if one.finished.num_classes >= TOP5_FROM
    ]
    written = Written()
    if top5:
        written.files.append(write_table(top5, "table_top5", out, provenance))
    for stem, rows in (("training", curves), ("table", table)):
        if not rows:
            continue
        path = write_table(rows, stem, out, provenance)
        written.files.append(path)
        if plot:
            written.files.append(
                save(figure_of_trainings(stem, read_table(path), experiment), out / f"{stem}.png")
            )
    outcomes = {
        case_key(one.case.name, one.finished.run.seed): stored[RUN_KEY]
        for one in trained
        if one.bundled is None and RUN_KEY in (stored := read_outcomes(one.finished.folder))
    }
    if len({array.size for array in outcomes.values()}) == 1:
        written.files.append(write_outcomes(out, outcomes))
    else:  # there are none, or they are for different images
        (out / OUTCOMES_FILE).unlink(missing_ok=True)
    written.facts = {"cases": table}
    return written


def trained_differently(
    trained: Sequence[Trained], provenance: Provenance
) -> tuple[Trainings, ...]:
    """The trainings of another commit, other versions or another platform than a provenance states.
    Bundled weights are left out: their cards say this."""
    by_this_command = Trainings(
        runs=(),
        commit=provenance.commit,
        dirty=provenance.dirty,
        versions=provenance.versions,
        platform=provenance.platform,
    )
    found: dict[str, Trainings] = {}
    for one in trained:
        if one.bundled is not None:
            continue
        try:
            stored = read_provenance(one.finished.folder / "training.csv")
        except UserError:  # missing or damaged, although the run matches its hashes
            stored = {"commit": None, "dirty": None, "versions": {}, "platform": None}
        training = Trainings.model_validate(stored | {"runs": ()})
        if training != by_this_command:
            name = f"{one.case.name}, seed {one.finished.run.seed}"
            key = training.model_dump_json()
            runs = found[key].runs if key in found else ()
            found[key] = training.model_copy(update={"runs": (*runs, name)})
    return tuple(found.values())


def status(experiment: Experiment, finished: FinishedRun) -> str:
    """`diverged`, `fail` (test error above the experiment's `fail_above`), or `ok`."""
    if finished.diverged_at is not None or finished.test_error is None:
        return "diverged"
    limit = experiment.fail_above
    if limit == "auto":
        limit = FAILS_ABOVE if finished.num_classes <= 10 else None
    return "fail" if limit is not None and finished.test_error > limit else "ok"


def _table_row(experiment: Experiment, case: Case, finished: FinishedRun) -> dict[str, Any]:
    return {
        "experiment": experiment.name,
        "case": case.name,
        "dataset": finished.run.data.dataset,
        "seed": finished.run.seed,
        "params": finished.parameters,
        "status": status(experiment, finished),
        "test_error": finished.test_error,
        "best_error": finished.best_error,
        "paper_error": _published(experiment, case),
    }


def _published(experiment: Experiment, case: Case, *, top5: bool = False) -> float | None:
    """The paper's error for a case, if there is one."""
    if experiment.paper is None or experiment.figure is None:
        return None
    return published_error(experiment.paper, experiment.figure, case.name, top5=top5)


def _show_table(experiment: Experiment, out: Path, display: Display) -> None:
    frame = read_table(out / "table.csv")
    columns = ("case", "seed", "params", "status", "test_error", "best_error", "paper_error")
    rows = [
        [None if value != value else value for value in row]  # only NaN is unequal to itself
        for row in frame[list(columns)].itertuples(index=False)
    ]
    headers = ["case", "seed", "params", "status", "error (%)", "best (%)", "paper (%)"]
    if (out / "table_top5.csv").exists():
        errors = read_table(out / "table_top5.csv")["top5_error"].tolist()
        headers.append("top-5 (%)")
        rows = [[*row, error] for row, error in zip(rows, errors, strict=False)]
    display.table(f"{experiment.title} ({experiment.profile})", headers, rows)
