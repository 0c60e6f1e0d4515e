"""Running an experiment: missing trainings, then its study, tables and plots."""

from collections.abc import Sequence
from pathlib import Path

from resnet_cli.claims.papers import PAPERS
from resnet_cli.config.experiments import experiment_names
from resnet_cli.config.schema import Case, Experiment
from resnet_cli.figures.titles import case_name, heading_of
from resnet_cli.results.layout import case_folder
from resnet_cli.run.trainings import Session, run_trainings, train_all
from resnet_cli.runtime import processes
from resnet_cli.runtime.errors import unknown
from resnet_cli.runtime.interrupt import Interrupted
from resnet_cli.studies import base as studies
from resnet_cli.studies.runner import Written, draw, heading_for, run_study
from resnet_cli.studies.subject import Subject, dataless_subject, find_subject, untrained_subject
from resnet_cli.training.runs import find_finished


def paper_experiments(paper: str) -> list[str]:
    """A paper's experiments, tables before figures, because figures use the tables' trainings.

    Raises:
        UserError: there is no such paper.
    """
    if paper not in PAPERS:
        raise unknown("paper", paper, PAPERS)
    names = [name for name in experiment_names() if name.startswith(f"{paper}/")]
    return sorted(names, key=lambda name: (name.startswith(f"{paper}/fig"), name))


def run_experiment(experiment: Experiment, session: Session, out: Path) -> Written:
    """Train every case and seed that is not trained yet, then run the study or write the tables.

    Raises:
        Interrupted: the session was stopped; the results so far are written.
        UserError: data are missing, or files cannot be written.
    """
    session.display.line(f"{experiment.name} (profile {experiment.profile}): {experiment.title}")
    if experiment.study is None:
        return run_trainings(experiment, session, out)
    study = study_of(experiment)
    if not study.needs_network:
        case, run = experiment.runs()[0]
        subjects = [(case, dataless_subject(session.context, run))]
        return _study_all(experiment, subjects, session, out)
    networks = []
    for trained in train_all(experiment, session):
        if trained.finished.diverged_at is None:
            networks.append((trained.case, trained.bundled or str(trained.finished.folder)))
        else:
            session.display.line(f"case {trained.case.name}: diverged in training, so not studied")
    subjects = [
        (case, find_subject(session.context, source, test_images=study.test_images))
        for case, source in networks
    ]
    return _study_all(experiment, subjects, session, out)


def study_of(experiment: Experiment) -> studies.Study:
    """The study of an experiment that has one."""
    assert isinstance(experiment.study, studies.Study)
    return experiment.study


def study_experiment(experiment: Experiment, session: Session, out: Path) -> Written:
    """Run an experiment's study on every case and seed, without training.

    A case that is not trained or that diverged is only measured at its initialisation.

    Raises:
        Interrupted: the session was stopped; the results so far are written.
        UserError: data are missing, or files cannot be written.
    """
    subjects = []
    for case, run in experiment.runs():
        finished = find_finished(session.context, run)
        if finished is None or finished.diverged_at is not None:
            subjects.append((case, untrained_subject(session.context, run)))
        else:
            subjects.append((case, find_subject(session.context, str(finished.folder))))
    return _study_all(experiment, subjects, session, out)


def _study_all(
    experiment: Experiment,
    subjects: Sequence[tuple[Case, Subject]],
    session: Session,
    out: Path,
) -> Written:
    """Run the study on each network of an experiment, in separate folders if there are several, and
    draw the figures that show all networks."""
    study, written = study_of(experiment), Written()
    several_seeds = len(experiment.seeds) > 1
    cases: list[studies.Case] = []
    for number, (case, subject) in enumerate(subjects, 1):
        if processes.any_of(session.stopper()):
            raise Interrupted("stopped between studies; the same command resumes from there")
        assert subject.loaded.run is not None
        seed, folder = subject.loaded.run.seed, out
        if study.needs_network:
            folder = out / case_folder(experiment, case.name, seed)
        if folder != out:
            session.display.line(f"case {folder.name} ({number} of {len(subjects)})")
        heading = heading_of(experiment, case, seed if several_seeds else None)
        more = run_study(
            subject,
            study,
            seed=seed,
            out=folder,
            display=session.display,
            profile=experiment.profile,
            config=experiment.model_dump(mode="json"),
            heading=heading,
            should_stop=session.stopper,
        )
        written.files += more.files
        written.kept += more.kept
        name = case.name if folder == out or not several_seeds else folder.name
        written.facts[name] = more.facts
        heading = heading_for(subject, heading_of(experiment, case))
        cases.append(studies.Case(case_name(case), more.tables, heading))
    if not study.needs_network:
        written.facts = more.facts
    if len(cases) > 1:
        title = heading_of(experiment).over(experiment.title)
        figures = study.figures_together(cases, title)
        written.files += processes.from_first(lambda: draw(figures, out))
    return written
