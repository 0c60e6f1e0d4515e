"""The trainings and studies of experiments, spread over a Ray cluster or a job array's shards.

A training is a task; so is all that follows the trainings of one experiment: the study of every
case and seed, one after another. Shards only train.

Both only do the work ahead: afterwards the ordinary run finds every training and study done, and
writes and prints what is left. All machines see the same working folder (a shared file system);
runs/ there is where they meet, with one owner for each run's folder.
"""

import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from resnet_cli.config.schema import Case, Experiment, RunConfig
from resnet_cli.run.experiment import pretrained_name, run_experiment, train_case
from resnet_cli.run.stop_flag import FlagStopper, StopFlag
from resnet_cli.runtime.device import pick_device
from resnet_cli.runtime.display import Display
from resnet_cli.runtime.errors import RunError, UserError, one_line
from resnet_cli.runtime.interrupt import Interrupted, Stopper
from resnet_cli.training.context import Context
from resnet_cli.training.runs import find_finished, train_run

RETRIES = 3
"""Times that a task is started again when its worker is lost; a training goes on from its last
checkpoint."""
WAIT_SECONDS = 0.5
KNOCK_SECONDS = 10.0
"""How long the address of a cluster may take to answer."""
SAVE_SECONDS = 30.0
"""How long a stop waits for the tasks under way to save."""


@dataclass(frozen=True)
class Training:
    """One training, and the first experiment and case that ask for it."""

    experiment: Experiment
    case: Case
    run: RunConfig

    @property
    def label(self) -> str:
        return f"{self.experiment.name}: {self.case.name}, seed {self.run.seed}"


def distinct_trainings(experiments: Iterable[Experiment], context: Context) -> list[Training]:
    """Every training that these experiments need, each once, in order."""
    found: dict[str, Training] = {}
    for experiment in experiments:
        for case, run in experiment.runs():
            if pretrained_name(run, context) is not None:
                continue
            found.setdefault(run.hash, Training(experiment, case, run))
    return list(found.values())


Failure = UserError | RunError


class Failures:
    """The first thing that failed of each experiment, told at once; the rest goes on.

    A training that fails is wanting in every experiment that asks for it.
    """

    def __init__(self, experiments: Sequence[Experiment], display: Display) -> None:
        self._experiments, self._display = experiments, display
        self._labels = [
            {run.hash: f"{case.name}, seed {run.seed}" for case, run in experiment.runs()}
            for experiment in experiments
        ]
        self.found: list[Failure | None] = [None] * len(experiments)
        """Of each experiment, in their order."""

    def of_training(self, training: Training, error: Failure) -> None:
        """Note that a training failed."""
        for index, labels in enumerate(self._labels):
            if training.run.hash in labels:
                self.of_experiment(index, type(error)(f"{labels[training.run.hash]}: {error}"))

    def of_experiment(self, index: int, error: Failure) -> None:
        """Note that the experiment of this number failed."""
        if self.found[index] is None:
            self.found[index] = error
            self._display.line(f"{self._experiments[index].name}: {error}", level=-1)


# --- shards --------------------------------------------------------------------------------------


def parse_shard(text: str) -> tuple[int, int]:
    """`2/8` as (2, 8).

    Raises:
        UserError: the text is no such share.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard {text!r}: write i/n with i from 1 to n, for example 2/8")
    return int(match[1]), int(match[2])


def shard_of(trainings: Sequence[Training], number: int, of: int) -> list[Training]:
    """The trainings of one shard: every `of`-th from the `number`-th, counted from 1.

    Shards of one list are disjoint and together complete.
    """
    return list(trainings[number - 1 :: of])


def train_shard(
    experiments: Sequence[Experiment],
    number: int,
    of: int,
    context: Context,
    display: Display,
    stopper: Stopper,
) -> list[Failure | None]:
    """Train one shard. What is trained already is left.

    Returns:
        What failed of each experiment, such as data that are missing; the others were trained.

    Raises:
        Interrupted: `stopper` said so; the state is saved.
    """
    mine = shard_of(distinct_trainings(experiments, context), number, of)
    failures = Failures(experiments, display)
    num_done = 0
    for training in mine:
        try:
            train_case(training.experiment, training.case, training.run, context, display, stopper)
            num_done += 1
        except (UserError, RunError) as error:
            failures.of_training(training, error)
    failed = f", {len(mine) - num_done} failed" if num_done < len(mine) else ""
    display.line(
        f"shard {number} of {of}: {num_done} trainings done{failed}; when all shards are, the same "
        "command without --shard writes the tables and asks the studies"
    )
    return failures.found


# --- Ray -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cluster:
    """Where tasks go, and what each is given."""

    address: str | None = None
    """Of a running cluster; None starts one on this machine."""
    cpus: int = 1
    """Processor cores, and torch threads, for each task."""
    device: str = "auto"
    """As the option has it: each worker finds its own, whatever this machine has."""


def task_options(cluster: Cluster, resources: Mapping[str, float]) -> dict[str, int]:
    """What Ray is asked for each task; on a cluster that has GPUs one each, unless told `cpu`.

    Args:
        resources: the cluster's (`ray.cluster_resources`).

    Raises:
        UserError: a GPU is asked for by its number, or of a cluster without one.
    """
    if cluster.device not in ("auto", "cpu", "cuda"):
        raise UserError(
            f"--device {cluster.device}: on Ray each task has a device of its own; use auto, cpu "
            "or cuda"
        )
    num_gpus = int(cluster.device != "cpu" and resources.get("GPU", 0) >= 1)
    if cluster.device == "cuda" and not num_gpus:
        raise UserError("--device cuda: the Ray cluster has no GPU; use --device cpu or auto")
    return {"num_cpus": cluster.cpus, "num_gpus": num_gpus, "max_retries": RETRIES}


def run_on_ray(
    experiments: Sequence[Experiment],
    folders: Sequence[Path],
    context: Context,
    display: Display,
    stopper: Stopper,
    cluster: Cluster,
) -> list[Failure | None]:
    """Every training, then every study, as tasks of a Ray cluster.

    Args:
        folders: where each experiment's results go.

    Returns:
        What failed of each experiment: a task's input is bad (`UserError`), it failed, or its
        workers were lost too often (`RunError`). The others are done.

    Raises:
        Interrupted: `stopper` said so; the trainings under way are saved.
        UserError: ray is not installed, the cluster is not there, or has not what each task asks
            for.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs Ray: pip install ray") from None
    surroundings = _Surroundings(
        folder=os.getcwd(),
        command=tuple(sys.argv),
        device=cluster.device,
        threads=cluster.cpus,
        context=context.elsewhere(),
    )
    _connect(cluster)
    failures = Failures(experiments, display)
    try:
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        options = task_options(cluster, resources)
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        most = max(node["Resources"].get("CPU", 0) for node in nodes if node["Alive"])
        if cluster.cpus > most:
            raise UserError(
                f"--ray-cpus {cluster.cpus}: no machine of the cluster has more than {most:g} "
                "cores, so no task would ever begin"
            )
        trainings = [
            _Task(
                training.label,
                _train,
                (surroundings, training),
                partial(failures.of_training, training),
            )
            for training in distinct_trainings(experiments, context)
            if find_finished(context, training.run) is None
        ]
        _all_done(trainings, options, display, stopper)
        studies = [
            _Task(
                experiment.name,
                _study,
                (surroundings, experiment, folder),
                partial(failures.of_experiment, index),
            )
            for index, (experiment, folder) in enumerate(zip(experiments, folders, strict=True))
            if failures.found[index] is None
        ]
        _all_done(studies, options, display, stopper)
    finally:
        ray.shutdown()
    return failures.found


def _connect(cluster: Cluster) -> None:
    """Join the cluster, or start one.

    Raises:
        UserError: it is not there.
    """
    import ray

    if cluster.address is not None:
        _knock(cluster.address)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=cluster.address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            ignore_reinit_error=True,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"--ray-address {cluster.address}: {one_line(error)}") from None
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own ends the process at once


def _knock(address: str) -> None:
    """Refuse a host and port where nothing answers: Ray itself would try for minutes."""
    match = re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+?)\]?:(\d{1,9})", address)
    if match is None:  # `auto`, or nothing that Ray knows, which it says
        return
    try:
        socket.create_connection((match[1], int(match[2])), timeout=KNOCK_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(
            f"--ray-address {address}: no cluster answers there ({one_line(error)}); start one by "
            "`ray start --head`, or leave the option out"
        ) from None


@dataclass(frozen=True)
class _Surroundings:
    """What a worker needs to work as the calling process would."""

    folder: str
    command: tuple[str, ...]
    device: str
    """As asked for; what it is on the worker is found there."""
    threads: int
    context: Context

    def enter(self) -> Context:
        os.chdir(self.folder)
        sys.argv = list(self.command)  # provenance tells the command that was typed
        torch.set_num_threads(self.threads)
        device = pick_device(self.device, deterministic=self.context.deterministic)
        return replace(self.context, device=device)


def _train(stopper: Stopper, surroundings: _Surroundings, training: Training) -> None:
    train_run(
        surroundings.enter(),
        training.run,
        experiment=training.experiment.name,
        case=training.case.name,
        profile=training.experiment.profile,
        stopper=stopper,
    )


def _study(
    stopper: Stopper, surroundings: _Surroundings, experiment: Experiment, folder: Path
) -> None:
    run_experiment(experiment, surroundings.enter(), Display(verbosity=-2), stopper, folder)


def _work(
    flag: Any, number: int, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    """A task on its worker."""
    function(FlagStopper(flag, number), *arguments)


@dataclass(frozen=True)
class _Task:
    label: str
    function: Callable[..., None]
    """Takes a stopper, then the arguments."""
    arguments: tuple[Any, ...]
    failed: Callable[[Failure], None]
    """Takes what went wrong."""


def _all_done(
    tasks: Sequence[_Task],
    options: Mapping[str, int],
    display: Display,
    stopper: Stopper,
) -> None:
    """Run tasks and wait for all, those that fail included."""
    import ray

    flag = _raisable_flag(len(tasks))
    remote = ray.remote(_work).options(**options)
    numbers = {
        remote.remote(flag, number, task.function, task.arguments): number
        for number, task in enumerate(tasks)
    }
    pending = list(numbers)
    with display.progress("tasks on Ray") as update:
        while pending:
            done, pending = ray.wait(pending, timeout=WAIT_SECONDS)
            for reference in done:
                task, error = tasks[numbers[reference]], _failure_of(reference)
                if error is not None:
                    task.failed(error)
                    continue
                display.line(f"{task.label}: done ({len(tasks) - len(pending)}/{len(tasks)})")
            update(len(tasks) - len(pending), len(tasks), "")
            if stopper() and pending:
                _stop({reference: numbers[reference] for reference in pending}, flag, len(tasks))


def _raisable_flag(num_tasks: int) -> Any:
    """A `StopFlag` that holds a call of every task and its retries, and takes the one to go up."""
    import ray

    calls = num_tasks * (RETRIES + 1) + 1
    actor: Any = ray.remote(StopFlag)
    return actor.options(
        num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=calls
    ).remote()


def _stop(pending: Mapping[Any, int], flag: Any, num_tasks: int) -> NoReturn:
    """Let the tasks under way save and end, and end those that do not.

    Args:
        pending: the number of each task that is not done.

    Raises:
        Interrupted: always; it says how to go on.
    """
    import ray

    until = time.monotonic() + SAVE_SECONDS
    asked, waiting = flag.go_up.remote(), list(pending)
    begun, done = None, 0
    while waiting and time.monotonic() < until:
        if begun is None and ray.wait([asked], timeout=WAIT_SECONDS)[0]:
            begun = ray.get(asked)
            for reference in waiting:
                if pending[reference] not in begun:  # nor has it anything to save
                    ray.cancel(reference, force=True)
            waiting = [reference for reference in waiting if pending[reference] in begun]
        if waiting:
            ended, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=WAIT_SECONDS)
            done += sum(_is_done(reference) for reference in ended)
    for reference in waiting:
        ray.cancel(reference, force=True)
    unsaved = f", {len(waiting)} of them not saved within {SAVE_SECONDS:.0f} s" if waiting else ""
    raise Interrupted(
        f"stopped with {len(pending) - done} of {num_tasks} tasks to do{unsaved}; the same command "
        f"goes on from {'their last checkpoints' if waiting else 'there'}"
    )


def _is_done(reference: Any) -> bool:
    """A task that has ended did its work."""
    import ray

    try:
        ray.get(reference)
    except ray.exceptions.RayError:  # whatever a task raises is one
        return False
    return True


def _failure_of(reference: Any) -> Failure | None:
    """What a finished task raised, as this process would have; None if it did its work."""
    import ray

    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UserError | RunError):
            return type(cause)(str(cause))
        return RunError(f"{type(cause).__name__}: {one_line(cause)}")
    except ray.exceptions.RayError as error:
        return RunError(
            f"its worker was lost, {RETRIES} retries included ({one_line(error)}); the same "
            "command goes on from the last checkpoint"
        )
    return None
