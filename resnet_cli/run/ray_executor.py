"""Trainings and studies as tasks of a Ray cluster."""

import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from resnet_cli.config.schema import Experiment
from resnet_cli.run.executors import Executor, Failure, Failures, Job, Training, distinct_trainings
from resnet_cli.run.experiment import run_experiment
from resnet_cli.run.trainings import Session
from resnet_cli.runtime.device import pick_device
from resnet_cli.runtime.display import Display
from resnet_cli.runtime.errors import RunError, UserError, one_line
from resnet_cli.runtime.interrupt import Interrupted, Stopper
from resnet_cli.training.context import Context
from resnet_cli.training.runs import find_finished, train_run

RETRIES = 3
"""How often a task is restarted if its worker is lost; a training resumes from its last
checkpoint."""
WAIT_SECONDS = 0.5
CONNECT_SECONDS = 10.0
"""Timeout for connecting to the address of a cluster."""
SAVE_SECONDS = 30.0
"""Timeout for running tasks to save their state when the session is stopped."""


@dataclass(frozen=True)
class RayExecutor(Executor):
    """Runs every training, and then every study, as a Ray task."""

    address: str | None = None
    """The address of a running cluster; None starts one on this machine."""
    cpus: int = 1
    """Processor cores and PyTorch threads of each task."""
    device: str = "auto"
    """The value of `--device`, which each worker resolves."""
    keeps_going = True

    def local_device(self, device: str) -> str:
        """With `cuda` the workers use CUDA, but this process may have no CUDA device."""
        return "auto" if device == "cuda" else device

    def task_options(self, resources: Mapping[str, float]) -> dict[str, int]:
        """The Ray options of each task: one GPU if the cluster has any, except with `cpu`.

        Args:
            resources: the cluster's resources (`ray.cluster_resources`).

        Raises:
            UserError: `--device` gives the number of a GPU, or the cluster has no GPU.
        """
        if self.device not in ("auto", "cpu", "cuda"):
            raise UserError(
                f"--device {self.device}: on Ray each task has its own device; use auto, cpu or "
                "cuda"
            )
        num_gpus = int(self.device != "cpu" and resources.get("GPU", 0) >= 1)
        if self.device == "cuda" and not num_gpus:
            raise UserError("--device cuda: the Ray cluster has no GPU; use --device cpu or auto")
        return {"num_cpus": self.cpus, "num_gpus": num_gpus, "max_retries": RETRIES}

    def prepare(self, jobs: Sequence[Job], session: Session, failures: Failures) -> None:
        """Run all tasks and wait for them.

        Raises:
            Interrupted: the session was stopped; running trainings are saved.
            UserError: Ray is not installed, the cluster cannot be reached, or it lacks the
                resources for a task.
        """
        try:
            import ray
        except ImportError:
            raise UserError("--executor ray needs Ray: pip install ray") from None
        setup = WorkerSetup(
            os.getcwd(), tuple(sys.argv), self.device, self.cpus, session.context.for_worker()
        )
        connect(self.address)
        try:
            options = self.task_options(ray.cluster_resources())  # type: ignore[no-untyped-call]
            self._check_cpus(ray.nodes())  # type: ignore[no-untyped-call]
            trainings = [
                _Task(
                    training.label,
                    partial(_train, training),
                    partial(failures.add_training, training),
                )
                for training in distinct_trainings(jobs, session.context)
                if find_finished(session.context, training.run) is None
            ]
            run_tasks(trainings, setup, options, session)
            studies = [
                _Task(
                    job.name,
                    partial(_study, job.experiment, job.out),
                    partial(failures.add, job.name),
                )
                for job in jobs
                if job.name not in failures
            ]
            run_tasks(studies, setup, options, session)
        finally:
            ray.shutdown()

    def _check_cpus(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Check that some machine has enough cores; otherwise tasks would wait forever."""
        most = max(node["Resources"].get("CPU", 0) for node in nodes if node["Alive"])
        if self.cpus > most:
            raise UserError(
                f"--ray-cpus {self.cpus}: no machine of the cluster has more than {most:g} cores; "
                "use a smaller number"
            )


def connect(address: str | None) -> None:
    """Join a running cluster, or start one on this machine.

    Raises:
        UserError: there is no cluster at the address.
    """
    import ray

    if address is not None:
        check_reachable(address)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            ignore_reinit_error=True,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"--ray-address {address}: {one_line(error)}") from None
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's handler would end the process at once


def check_reachable(address: str) -> None:
    """Check that a host and port can be reached, because Ray itself would try for minutes.

    Raises:
        UserError: they cannot be reached.
    """
    match = re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+?)\]?:(\d{1,9})", address)
    if match is None:  # `auto`, or invalid, which Ray reports
        return
    try:
        socket.create_connection((match[1], int(match[2])), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(
            f"--ray-address {address}: no cluster found there ({one_line(error)}); start one with "
            "`ray start --head`, or omit the option"
        ) from None


# --- tasks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkerSetup:
    """The settings with which a worker behaves like the calling process."""

    folder: str
    command: tuple[str, ...]
    device: str
    threads: int
    context: Context

    def apply(self) -> Context:
        """Set up this process; return the context of its task."""
        os.chdir(self.folder)
        sys.argv = list(self.command)  # for the provenance
        torch.set_num_threads(self.threads)
        device = pick_device(self.device, deterministic=self.context.deterministic)
        return replace(self.context, device=device)


def _work(setup: WorkerSetup, function: Callable[[Context, Stopper], None]) -> None:
    """Run a task on its worker. `ray.cancel` has the effect of Ctrl-C: the task saves and ends."""
    stopper = Stopper()
    with stopper.listening():
        function(setup.apply(), stopper)


def _train(training: Training, context: Context, stopper: Stopper) -> None:
    train_run(
        context,
        training.run,
        experiment=training.experiment.name,
        case=training.case.name,
        profile=training.experiment.profile,
        stopper=stopper,
    )


def _study(experiment: Experiment, out: Path, context: Context, stopper: Stopper) -> None:
    run_experiment(experiment, Session(context, Display(verbosity=-2), stopper), out)


@dataclass(frozen=True)
class _Task:
    label: str
    function: Callable[[Context, Stopper], None]
    on_failure: Callable[[Failure], None]


def run_tasks(
    tasks: Sequence[_Task],
    setup: WorkerSetup,
    options: Mapping[str, int],
    session: Session,
) -> None:
    """Run tasks and wait until all have ended, including those that fail.

    Raises:
        Interrupted: the session was stopped.
    """
    import ray

    remote = ray.remote(_work).options(**options)
    by_reference = {remote.remote(setup, task.function): task for task in tasks}
    pending = list(by_reference)
    with session.display.progress("tasks on Ray") as update:
        while pending:
            ended, pending = ray.wait(pending, timeout=WAIT_SECONDS)
            num_ended = len(tasks) - len(pending)
            for reference in ended:
                task, error = by_reference[reference], _failure_of(reference)
                if error is not None:
                    task.on_failure(error)
                else:
                    session.display.line(f"{task.label}: done ({num_ended}/{len(tasks)})")
            update(num_ended, len(tasks), "")
            if session.stopper() and pending:
                _stop(pending, len(tasks))


def _stop(pending: Sequence[Any], num_tasks: int) -> NoReturn:
    """Cancel all tasks that have not ended: waiting tasks do not start, and running tasks save.

    Raises:
        Interrupted: always; the message says how to resume.
    """
    import ray

    for reference in pending:
        ray.cancel(reference)
    ended, unsaved = ray.wait(list(pending), num_returns=len(pending), timeout=SAVE_SECONDS)
    for reference in unsaved:
        ray.cancel(reference, force=True)
    num_left = len(pending) - sum(_failure_of(reference) is None for reference in ended)
    raise Interrupted(
        f"stopped with {num_left} of {num_tasks} tasks left"
        + (f", {len(unsaved)} of them not saved within {SAVE_SECONDS:.0f} s" if unsaved else "")
        + "; the same command resumes from "
        + ("their last checkpoints" if unsaved else "there")
    )


def _failure_of(reference: Any) -> Failure | None:
    """The failure of a task that has ended, or None."""
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
            f"its worker was lost after {RETRIES} retries ({one_line(error)}); the same command "
            "resumes from the last checkpoint"
        )
    return None
