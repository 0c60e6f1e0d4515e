"""The trainings and studies of experiments, spread over a Ray cluster or a job array's shards.

Both only do the work ahead: afterwards the ordinary run finds every training and study done, and
writes and prints what is left. All machines see the same working folder (a shared file system);
runs/ there is where they meet, with one owner for each run's folder.
"""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from resnet_cli.config import Case, Experiment, RunConfig
from resnet_cli.context import Context
from resnet_cli.device import pick_device
from resnet_cli.display import Display
from resnet_cli.errors import RunError, UserError, one_line
from resnet_cli.runner import pretrained_name, run_experiment, train_case
from resnet_cli.training.epoch_log import LogName
from resnet_cli.training.interrupt import Interrupted, Stopper
from resnet_cli.training.runs import find_finished, train_run

RETRIES = 3
"""Times that a task is started again when its worker is lost; a training goes on from its last
checkpoint."""
WAIT_SECONDS = 0.5


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
) -> int:
    """Train one shard; returns the number of its trainings. What is trained already is left.

    Raises:
        Interrupted: `stopper` said so; the state is saved.
        UserError: data are missing, or a folder cannot be written.
    """
    mine = shard_of(distinct_trainings(experiments, context), number, of)
    for training in mine:
        train_case(training.experiment, training.case, training.run, context, display, stopper)
    return len(mine)


# --- Ray -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cluster:
    """Where tasks go, and what each is given."""

    address: str | None = None
    """Of a running cluster; None starts one on this machine."""
    cpus: int = 1
    """Processor cores, and torch threads, for each task."""


def run_on_ray(
    experiments: Sequence[Experiment],
    folders: Sequence[Path],
    context: Context,
    display: Display,
    stopper: Stopper,
    cluster: Cluster,
) -> None:
    """Every training, then every study, as tasks of a Ray cluster.

    Args:
        folders: where each experiment's results go.

    Raises:
        Interrupted: `stopper` said so; a training that was running goes on from its last
            checkpoint.
        UserError: ray is not installed, the cluster is not there, or a task's input is bad.
        RunError: a task failed, or its workers were lost too often.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs Ray: pip install 'resnet-cli[ray]'") from None
    surroundings = _Surroundings(
        folder=os.getcwd(),
        command=tuple(sys.argv),
        device=str(context.device),
        data_dir=context.data_dir,
        download=context.download,
        threads=cluster.cpus,
        deterministic=context.deterministic,
        log=context.log,
        pretrained=context.pretrained,
    )
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
    try:
        wanted = [
            training
            for training in distinct_trainings(experiments, context)
            if find_finished(context, training.run) is None
        ]
        _all_done(
            [(t.label, _train, (surroundings, t)) for t in wanted],
            cluster,
            context.device,
            display,
            stopper,
        )
        _all_done(
            [
                (experiment.name, _study, (surroundings, experiment, folder))
                for experiment, folder in zip(experiments, folders, strict=True)
            ],
            cluster,
            context.device,
            display,
            stopper,
        )
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class _Surroundings:
    """What a worker needs to work as the calling process would."""

    folder: str
    command: tuple[str, ...]
    device: str
    data_dir: Path | None
    download: bool
    threads: int
    deterministic: bool
    log: LogName | None
    pretrained: bool

    def enter(self) -> Context:
        os.chdir(self.folder)
        sys.argv = list(self.command)  # provenance tells the command that was typed
        torch.set_num_threads(self.threads)
        device = pick_device(self.device, deterministic=self.deterministic)
        return Context(
            device,
            self.data_dir,
            self.download,
            deterministic=self.deterministic,
            log=self.log,
            pretrained=self.pretrained,
        )


def _train(surroundings: _Surroundings, training: Training) -> None:
    train_run(
        surroundings.enter(),
        training.run,
        experiment=training.experiment.name,
        case=training.case.name,
        profile=training.experiment.profile,
        stopper=Stopper(),
    )


def _study(surroundings: _Surroundings, experiment: Experiment, folder: Path) -> None:
    run_experiment(experiment, surroundings.enter(), Display(verbosity=-2), Stopper(), folder)


def _all_done(
    tasks: Sequence[tuple[str, Callable[..., None], tuple[Any, ...]]],
    cluster: Cluster,
    device: torch.device,
    display: Display,
    stopper: Stopper,
) -> None:
    """Run tasks, each (label, function, arguments), and wait for all."""
    import ray

    gpus = 1 if device.type == "cuda" else 0
    labels = {}
    for label, function, arguments in tasks:
        remote = ray.remote(num_cpus=cluster.cpus, num_gpus=gpus, max_retries=RETRIES)(function)
        labels[remote.remote(*arguments)] = label
    pending = list(labels)
    with display.progress("tasks on Ray") as update:
        while pending:
            done, pending = ray.wait(pending, timeout=WAIT_SECONDS)
            for task in done:
                _result_of(task, labels[task])
                display.line(f"{labels[task]}: done ({len(labels) - len(pending)}/{len(labels)})")
            update(len(labels) - len(pending), len(labels), "")
            if stopper() and pending:
                for task in pending:
                    ray.cancel(task, force=True)
                raise Interrupted(
                    f"stopped with {len(pending)} of {len(labels)} tasks under way; the same "
                    "command goes on from their last checkpoints"
                )


def _result_of(task: Any, label: str) -> None:
    """Raise what a task raised, as this process would have."""
    import ray

    try:
        ray.get(task)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UserError | RunError):
            raise type(cause)(f"{label}: {cause}") from None
        raise RunError(f"{label}: {type(cause).__name__}: {one_line(cause)}") from error
    except ray.exceptions.RayError as error:
        raise RunError(f"{label}: its worker was lost: {one_line(error)}") from error
