"""Where experiments run: in this process, as one shard of a job array, or on Ray.

A shard only trains. On Ray, each training is a task, and so is everything that follows the
trainings of one experiment. Both do the work in advance: afterwards the ordinary run finds the
trainings and studies finished, and does the rest. All machines use the same working folder on a
shared file system, and each run's folder in runs/ is locked by one process at a time.
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
    """An experiment and the folder for its results."""

    experiment: Experiment
    out: Path

    @property
    def name(self) -> str:
        return self.experiment.name


@dataclass(frozen=True)
class Training:
    """One training, with the first experiment and case that need it."""

    experiment: Experiment
    case: Case
    run: RunConfig

    @property
    def label(self) -> str:
        return f"{self.experiment.name}: {self.case.name}, seed {self.run.seed}"


def distinct_trainings(jobs: Iterable[Job], context: Context) -> list[Training]:
    """All trainings that these experiments need, each once, in order."""
    found: dict[str, Training] = {}
    for job in jobs:
        for case, run in job.experiment.runs():
            if pretrained_name(run, context) is None:
                found.setdefault(run.hash, Training(job.experiment, case, run))
    return list(found.values())


class Failures(dict[str, Failure]):
    """Name of an experiment -> its first failure, which is printed when it is added."""

    def __init__(self, jobs: Sequence[Job], display: Display) -> None:
        super().__init__()
        self._jobs, self._display = jobs, display

    def add(self, name: str, error: Failure) -> None:
        """Record that an experiment failed."""
        if name not in self:
            self[name] = error
            self._display.paragraph(f"{name}: {error}", level=-1)

    def add_training(self, training: Training, error: Failure) -> None:
        """Record that a training failed, and with it every experiment that needs it."""
        for job in self._jobs:
            for case, run in job.experiment.runs():
                if run.hash == training.run.hash:
                    label = f"{case.name}, seed {run.seed}"
                    self.add(job.name, type(error)(f"{label}: {error}"))

    def in_order(self) -> dict[str, Failure]:
        """The failures in the order of the experiments."""
        return {job.name: self[job.name] for job in self._jobs if job.name in self}

    def raise_first(self) -> None:
        """Raise the first failure, if any; its message names the other experiments that failed."""
        if self:
            (name, error), *others = self.in_order().items()
            more = f"; also failed: {', '.join(n for n, _ in others)}" if others else ""
            raise type(error)(f"{name} failed: {error}{more}")


class Executor:
    """Runs everything in this process; the base class of the other executors."""

    trains_only = False
    """Whether studies and tables are left to a later run."""
    keeps_going = False
    """Whether the other experiments still run after one has failed."""

    def local_device(self, device: str) -> str:
        """The meaning of `--device` for this process."""
        return device

    def prepare(self, jobs: Sequence[Job], session: Session, failures: Failures) -> None:
        """Do the work that is not done by `run_experiment` in this process.

        Raises:
            Interrupted: the session was stopped; the state is saved.
        """


@dataclass(frozen=True)
class Shard(Executor):
    """Runs every `of`-th training, beginning with number `number`, counted from 1.

    Every training belongs to exactly one shard.
    """

    number: int
    of: int
    trains_only = True
    keeps_going = True

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse a shard such as `2/8`.

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
            "after all shards, run the same command without --shard for the studies and tables"
        )


def choose_executor(
    name: str, shard: str | None, ray_address: str | None, ray_cpus: int, device: str
) -> Executor:
    """The executor given by the options.

    Args:
        name: `serial` or `ray`.

    Raises:
        UserError: the options cannot be combined, or Ray is not installed.
    """
    if name == "ray":
        from resnet_cli.run.ray_executor import RayExecutor

        if shard is not None:
            raise UserError("--shard cannot be used with --executor ray; give only one of them")
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
    """Run experiments.

    Args:
        show: prints what an experiment wrote.
        keep_going: run the other experiments if the data of one are missing.

    Returns:
        Name of each experiment -> what it wrote; and the failures.

    Raises:
        Interrupted: the session was stopped; the state is saved.
        UserError: an experiment failed, and neither `keep_going` nor the executor continues.
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
