"""Where experiments are carried out: in this process, as one shard of a job array, or on Ray.

A shard only trains. On Ray a training is a task, and so is all that follows the trainings of one
experiment. Both do the work in advance: afterwards the ordinary run finds every training and study
done, and writes and prints what is left. All machines share the working folder (a shared file
system); they meet in runs/, where each run's folder has one owner at a time.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from resnet_cli.config.schema import Case, Experiment, RunConfig
from resnet_cli.run.experiment import run_experiment
from resnet_cli.run.trainings import Session, pretrained_name, train_case
from resnet_cli.runtime.display import Display
from resnet_cli.runtime.errors import RunError, UserError
from resnet_cli.studies.runner import Written
from resnet_cli.training.context import Context

Failure = UserError | RunError


@dataclass(frozen=True)
class Job:
    """An experiment, and the folder of its results."""

    experiment: Experiment
    out: Path

    @property
    def name(self) -> str:
        return self.experiment.name


@dataclass(frozen=True)
class Training:
    """One training, and the first experiment and case that need it."""

    experiment: Experiment
    case: Case
    run: RunConfig

    @property
    def label(self) -> str:
        return f"{self.experiment.name}: {self.case.name}, seed {self.run.seed}"


def distinct_trainings(jobs: Iterable[Job], context: Context) -> list[Training]:
    """Every training that these experiments need, each once, in order."""
    found: dict[str, Training] = {}
    for job in jobs:
        for case, run in job.experiment.runs():
            if pretrained_name(run, context) is None:
                found.setdefault(run.hash, Training(job.experiment, case, run))
    return list(found.values())


class Failures(dict[str, Failure]):
    """The first failure of each experiment, by name; printed when added."""

    def __init__(self, jobs: Sequence[Job], display: Display) -> None:
        super().__init__()
        self._jobs, self._display = jobs, display

    def add(self, name: str, error: Failure) -> None:
        """Record that an experiment failed."""
        if name not in self:
            self[name] = error
            self._display.paragraph(f"{name}: {error}", level=-1)

    def add_training(self, training: Training, error: Failure) -> None:
        """Record that a training failed: every experiment that needs it fails."""
        for job in self._jobs:
            for case, run in job.experiment.runs():
                if run.hash == training.run.hash:
                    label = f"{case.name}, seed {run.seed}"
                    self.add(job.name, type(error)(f"{label}: {error}"))

    def in_order(self) -> dict[str, Failure]:
        """The failures in the order of the experiments."""
        return {job.name: self[job.name] for job in self._jobs if job.name in self}

    def raise_first(self) -> None:
        """Raise the first failure, if any, naming the other experiments that failed."""
        if self:
            (name, error), *others = self.in_order().items()
            more = f"; these failed too: {', '.join(n for n, _ in others)}" if others else ""
            raise type(error)(f"{name} could not run: {error}{more}")


class Executor:
    """Runs everything in this process; the base of the others."""

    trains_only = False
    """Studies and tables are left to a later run."""
    keeps_going = False
    """An experiment that fails does not stop the others."""

    def local_device(self, device: str) -> str:
        """What `--device` means for this process."""
        return device

    def prepare(self, jobs: Sequence[Job], session: Session, failures: Failures) -> None:
        """Do in advance what is not done in this process.

        Raises:
            Interrupted: the session was stopped; the state is saved.
        """


@dataclass(frozen=True)
class Shard(Executor):
    """Trains every `of`-th training from the `number`-th, counted from 1.

    The shards of one list are disjoint and together complete.
    """

    number: int
    of: int
    trains_only = True
    keeps_going = True

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """`2/8` as a shard.

        Raises:
            UserError: the text is not a valid shard.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(f"--shard {text!r}: write i/n with i from 1 to n, for example 2/8")
        return cls(int(match[1]), int(match[2]))

    def share_of(self, trainings: Sequence[Training]) -> list[Training]:
        """The trainings of this shard."""
        return list(trainings[self.number - 1 :: self.of])

    def prepare(self, jobs: Sequence[Job], session: Session, failures: Failures) -> None:
        own = self.share_of(distinct_trainings(jobs, session.context))
        num_failed = 0
        for training in own:
            try:
                train_case(training.experiment, training.case, training.run, session)
            except (UserError, RunError) as error:
                failures.add_training(training, error)
                num_failed += 1
        failed = f", {num_failed} failed" if num_failed else ""
        session.display.line(
            f"shard {self.number} of {self.of}: {len(own) - num_failed} trainings done{failed}; "
            "when all shards are done, the same command without --shard runs the studies and "
            "writes the tables"
        )


def choose_executor(
    name: str, shard: str | None, ray_address: str | None, ray_cpus: int, device: str
) -> Executor:
    """The executor that the options describe.

    Args:
        name: `serial` or `ray`.

    Raises:
        UserError: the options contradict one another, or Ray is not installed.
    """
    if name == "ray":
        from resnet_cli.run.ray_executor import RayExecutor

        if shard is not None:
            raise UserError("--shard is for machines without Ray; leave out --executor ray")
        return RayExecutor(ray_address, ray_cpus, device)
    if ray_address is not None or ray_cpus != 1:
        raise UserError("--ray-address and --ray-cpus need --executor ray")
    return Executor() if shard is None else Shard.parse(shard)


def run_jobs(
    jobs: Sequence[Job],
    executor: Executor,
    session: Session,
    show: Callable[[Display, Written], None],
    *,
    keep_going: bool = False,
) -> tuple[dict[str, Written], Failures]:
    """Carry out experiments.

    Args:
        show: prints what an experiment wrote.
        keep_going: an experiment whose data are missing does not stop the others.

    Returns:
        What each experiment wrote, by its name, and what failed.

    Raises:
        Interrupted: the session was stopped; the state is saved.
        UserError: an experiment failed and the others do not keep going.
    """
    failures = Failures(jobs, session.display)
    done: dict[str, Written] = {}
    with session.stopper.listening():
        executor.prepare(jobs, session, failures)
        for job in () if executor.trains_only else jobs:
            if job.name in failures:
                continue
            try:
                written = run_experiment(job.experiment, session, job.out)
            except UserError as error:
                if not keep_going and not executor.keeps_going:
                    raise
                failures.add(job.name, error)
                continue
            show(session.display, written)
            done[job.name] = written
    return done, failures
