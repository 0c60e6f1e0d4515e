"""Carry out an experiment: train what is missing, run its study, write tables and plots."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from resnet_cli.claims.papers import PAPERS, published_error
from resnet_cli.config.experiments import experiment_names
from resnet_cli.config.schema import Case, Experiment, RunConfig
from resnet_cli.figures.titles import case_name, heading_of
from resnet_cli.figures.training import draw_training
from resnet_cli.results.provenance import collect
from resnet_cli.results.tables import read_table, write_table
from resnet_cli.runtime import processes
from resnet_cli.runtime.display import Display, duration
from resnet_cli.runtime.errors import unknown
from resnet_cli.runtime.interrupt import Interrupted, Stopper
from resnet_cli.studies import base as studies
from resnet_cli.studies.runner import Written, draw, heading_for, read_tables, run_study
from resnet_cli.studies.subject import Subject, dataless_subject, find_subject, untrained_subject
from resnet_cli.training.bundle import bundled_checkpoint, bundled_training
from resnet_cli.training.context import Context
from resnet_cli.training.loop import Progress
from resnet_cli.training.runs import (
    FinishedRun,
    find_finished,
    is_over,
    train_run,
    write_log,
)
from resnet_cli.weights.load import bundled_weights_of

PLOT_SECONDS = 180.0
"""Seconds between the plots of an experiment that is still training."""


def default_out(experiment: Experiment, results: Path = Path("results")) -> Path:
    """`results/<paper>/<profile>/<experiment>`, or `results/local/<experiment>/<profile>`."""
    if experiment.paper is None:
        return results / "local" / experiment.name / experiment.profile
    name = experiment.name.removeprefix(f"{experiment.paper}/")
    return results / experiment.paper / experiment.profile / name


def paper_experiments(paper: str) -> list[str]:
    """A paper's experiments, tables before figures: figures share the tables' trainings.

    Raises:
        UserError: there is no such paper.
    """
    if paper not in PAPERS:
        raise unknown("paper", paper, PAPERS)
    names = [name for name in experiment_names() if name.startswith(f"{paper}/")]
    return sorted(names, key=lambda name: (name.startswith(f"{paper}/fig"), name))


def run_experiment(
    experiment: Experiment, context: Context, display: Display, stopper: Stopper, out: Path
) -> Written:
    """Train every case and seed that is not trained yet; then the study, or the tables.

    Raises:
        Interrupted: `stopper` said to stop; what is done is written.
        UserError: data are missing, or files cannot be written.
    """
    display.line(f"{experiment.name} (profile {experiment.profile}): {experiment.title}")
    if experiment.study is None:
        return _run_trainings(experiment, context, display, stopper, out)
    study = study_of(experiment)
    if not study.needs_network:
        case, run = experiment.runs()[0]
        subjects = [(case, dataless_subject(context, run))]
        return _study_all(experiment, subjects, display, stopper, out)
    networks = []
    for trained in _train_all(experiment, context, display, stopper):
        if trained.finished.diverged_at is None:
            networks.append((trained.case, trained.bundled or str(trained.finished.folder)))
        else:
            display.line(f"case {trained.case.name}: diverged in training, not studied")
    subjects = [
        (case, find_subject(context, at, test_images=study.test_images)) for case, at in networks
    ]
    return _study_all(experiment, subjects, display, stopper, out)


def study_of(experiment: Experiment) -> studies.Study:
    """The experiment's study; it must have one."""
    assert isinstance(experiment.study, studies.Study)
    return experiment.study


@dataclass(frozen=True)
class Trained:
    """A case at one seed, with its finished training."""

    case: Case
    finished: FinishedRun
    is_new: bool
    """Trained just now."""
    bundled: str | None
    """The bundled weights that replace the training."""


def _train_all(
    experiment: Experiment, context: Context, display: Display, stopper: Stopper
) -> Iterator[Trained]:
    """The training of every case and seed, as it finishes."""
    runs = experiment.runs()
    begun = time.monotonic()
    num_new = 0
    for number, (case, run) in enumerate(runs, 1):
        bundled = pretrained_name(run, context)
        if bundled is not None:
            display.line(f"{case.name}, seed {run.seed}: bundled weights {bundled}")
            yield Trained(case, bundled_training(bundled), False, bundled)
            continue
        is_new = find_finished(context, run) is None
        finished = train_case(experiment, case, run, context, display, stopper)
        num_new += is_new
        if is_new and number < len(runs):
            left = (time.monotonic() - begun) / num_new * (len(runs) - number)
            display.line(
                f"{experiment.name}: {number} of {len(runs)} trainings, at most about "
                f"{duration(left)} left"
            )
        yield Trained(case, finished, is_new, None)


def _run_trainings(
    experiment: Experiment, context: Context, display: Display, stopper: Stopper, out: Path
) -> Written:
    """An experiment without a study: its tables, with plots.

    The tables are written after each training, so that no measurement waits for the rest. The
    plots follow every few minutes, and at the end.
    """
    started = datetime.now(UTC)
    written = Written()
    plotted = time.monotonic()
    done: list[Trained] = []
    for trained in _train_all(experiment, context, display, stopper):
        done.append(trained)
        is_last = len(done) == len(experiment.runs())
        if not trained.is_new and not is_last:
            continue
        plot = is_last or time.monotonic() - plotted > PLOT_SECONDS
        write = partial(write_training_tables, experiment, done, context, out, started, plot=plot)
        written = processes.from_first(write)
        plotted = time.monotonic() if plot else plotted
    _show_table(experiment, out, display)
    return written


def pretrained_name(run: RunConfig, context: Context) -> str | None:
    """The bundled weights that replace this training (`Context.pretrained`); else None."""
    return bundled_weights_of(run) if context.pretrained else None


def study_experiment(
    experiment: Experiment, context: Context, display: Display, stopper: Stopper, out: Path
) -> Written:
    """Run an experiment's study on every case and seed, without training.

    A case that is not trained, or diverged, is measured at its initialisation only.

    Raises:
        Interrupted: `stopper` said to stop; what is done is written.
        UserError: data are missing, or files cannot be written.
    """
    subjects = []
    for case, run in experiment.runs():
        finished = find_finished(context, run)
        if finished is None or finished.diverged_at is not None:
            subjects.append((case, untrained_subject(context, run)))
        else:
            subjects.append((case, find_subject(context, str(finished.folder))))
    return _study_all(experiment, subjects, display, stopper, out)


def _study_all(
    experiment: Experiment,
    subjects: Sequence[tuple[Case, Subject]],
    display: Display,
    stopper: Stopper,
    out: Path,
) -> Written:
    """The study of each network of an experiment, in a folder of its own if there are several; then
    the figures that show them together."""
    study, written = study_of(experiment), Written()
    several_seeds = len(experiment.seeds) > 1
    cases: list[studies.Case] = []
    for number, (case, subject) in enumerate(subjects, 1):
        if processes.any_of(stopper()):
            raise Interrupted("stopped between studies; the same command resumes from there")
        assert subject.loaded.run is not None
        seed, folder = subject.loaded.run.seed, out
        if study.needs_network and (len(experiment.cases) > 1 or several_seeds):
            folder = out / f"{case.name}{f'-seed{seed}' if several_seeds else ''}"
            display.line(f"case {folder.name} ({number} of {len(subjects)})")
        heading = heading_of(experiment, case, seed if several_seeds else None)
        more = run_study(
            subject,
            study,
            seed=seed,
            out=folder,
            display=display,
            profile=experiment.profile,
            config=experiment.model_dump(mode="json"),
            heading=heading,
            should_stop=stopper,
        )
        written.files += more.files
        written.kept += more.kept
        name = case.name if folder == out or not several_seeds else folder.name
        written.facts[name] = more.facts
        tables = processes.from_first(partial(read_tables, study, folder))
        heading = heading_for(subject, heading_of(experiment, case))
        cases.append(studies.Case(case_name(case), tables, heading))
    if not study.needs_network:
        written.facts = more.facts
    if len(cases) > 1:
        title = heading_of(experiment).over(experiment.title)
        figures = study.figures_together(cases, title)
        written.files += processes.from_first(lambda: draw(figures, out))
    return written


def train_case(
    experiment: Experiment,
    case: Case,
    run: RunConfig,
    context: Context,
    display: Display,
    stopper: Stopper,
) -> FinishedRun:
    """The finished run of a case, trained now if necessary."""
    label = f"{case.name}, seed {run.seed}"
    finished = find_finished(context, run)
    if finished is not None and is_over(context, run):
        display.line(f"{label}: trained already ({finished.folder})")
        write_log(context, finished, stopper, display.line)
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
    trained: Sequence[Trained],
    context: Context,
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
        device=str(context.device),
        duration_seconds=sum(run.seconds for run in finished),
    )
    written = Written()
    for stem, rows in (("training", curves), ("table", table)):
        if not rows:
            continue
        path = write_table(rows, stem, out, provenance)
        written.files.append(path)
        if plot:
            written.files.append(draw_training(stem, read_table(path), experiment, out))
    written.facts = {"cases": table}
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
    headers = [column.replace("_", " ") for column in columns]
    display.table(f"{experiment.title} ({experiment.profile})", headers, rows)
