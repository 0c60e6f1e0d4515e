"""The command train, and what all commands that train share."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from resnet_cli.cli.app import command
from resnet_cli.cli.files import file_names, show_files, writable
from resnet_cli.cli.options import (
    BudgetOption,
    EngineOption,
    ExperimentName,
    OutOption,
    ProfileOption,
    SeedOption,
    SetOption,
    WorkOptions,
    make_stopper,
)
from resnet_cli.results.layout import RESULTS, experiment_folder

if TYPE_CHECKING:
    from resnet_cli.config.schema import Experiment
    from resnet_cli.run.executors import Executor, Failures
    from resnet_cli.run.trainings import Session
    from resnet_cli.runtime.display import Display
    from resnet_cli.training.context import Context


@dataclass
class TrainOptions(WorkOptions):
    """The options that `train`, `run` and `reproduce` share."""

    settings: SetOption = None
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="Use deterministic kernels: the same bits each time on CUDA too, but slower.",
        ),
    ] = False
    engine: EngineOption = "fast"
    seed: SeedOption = None
    budget: BudgetOption = None
    log: Annotated[
        Literal["tensorboard", "wandb"] | None,
        typer.Option(
            "--log",
            help="Also log each epoch for TensorBoard, in runs/<run>/tensorboard/, or for Weights "
            "& Biases.",
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        make_stopper(self.budget)

    def context(self) -> "Context":
        from resnet_cli.runtime.device import pick_device
        from resnet_cli.training.context import Context
        from resnet_cli.training.epoch_log import check_log

        check_log(self.log)
        return Context(
            pick_device(self.device, deterministic=self.deterministic),
            self.data_dir,
            self.download,
            engine=self.engine,
            deterministic=self.deterministic,
            log=self.log,
        )

    def session(self, display: "Display") -> "Session":
        from resnet_cli.run.trainings import Session

        return Session(self.context(), display, make_stopper(self.budget))

    def load(self, name: str, profile: str | None) -> "Experiment":
        from resnet_cli.config.experiments import load_experiment

        return load_experiment(name, profile, self.settings or (), self.seed)


def run_and_show(
    experiments: "list[Experiment]",
    executor: "Executor",
    session: "Session",
    *,
    out: Path | None = None,
    results: Path | None = None,
    keep_going: bool = False,
) -> "tuple[dict[str, Any], Failures]":
    """Run experiments and print what they write; return the summary and the failures.

    Args:
        out: the folder of the results of a single experiment.
        results: the folder given by `--results`, in which each experiment has a folder.
    """
    from resnet_cli.run.executors import Job, run_jobs

    option = "--out" if results is None else "--results"
    folders = [out or experiment_folder(one, results or RESULTS) for one in experiments]
    jobs = [
        Job(one, writable(folder, option)) for one, folder in zip(experiments, folders, strict=True)
    ]
    for one in experiments:
        session.display.paragraph(_announcement(one))
    done, failures = run_jobs(jobs, executor, session, show_files, keep_going=keep_going)
    profiles = {one.name: one.profile for one in experiments}
    summary: dict[str, Any] = {
        "experiments": {
            name: written.facts | {"files": file_names(written), "profile": profiles[name]}
            for name, written in done.items()
        }
    }
    if keep_going or executor.keeps_going:
        summary["failed"] = {name: str(error) for name, error in failures.in_order().items()}
    return summary, failures


def _announcement(experiment: "Experiment") -> str:
    """What an experiment trains, and how long it takes: `veit2016/fig5a (mini): 3 trainings on
    digits, 14 minutes on two cores`."""
    from resnet_cli.studies.base import Study

    parts = [f"{experiment.name} ({experiment.profile}): no training"]
    study = experiment.study
    if not isinstance(study, Study) or study.needs_network:
        runs = [run for _, run in experiment.runs()]
        datasets = ", ".join(dict.fromkeys(run.data.dataset for run in runs))
        number = "1 training" if len(runs) == 1 else f"{len(runs)} trainings"
        parts = [f"{experiment.name} ({experiment.profile}): {number} on {datasets}"]
    if experiment.time:
        parts.append(experiment.time + ("" if "GPU" in experiment.time else " on two cores"))
    return ", ".join(parts)


@command(
    "train",
    "train",
    "train quickstart --set train.epochs=3 --seed 1",
    "train mine.yaml --data-dir DATA --budget 150m",
    "train quickstart --log tensorboard",
)
def train(
    options: TrainOptions,
    experiment: ExperimentName = "quickstart",
    profile: ProfileOption = None,
    out: OutOption = None,
) -> None:
    """Train all cases and seeds of an experiment. Unfinished trainings are resumed."""
    loaded = options.load(experiment, profile).model_copy(update={"study": None})
    from resnet_cli.run.executors import Executor

    display = options.display()
    summary, _ = run_and_show([loaded], Executor(), options.session(display), out=out)
    display.summary({"command": "train"} | summary)
