"""The command train, and the options of all commands that train."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_cli.cli.app import app, examples
from resnet_cli.cli.groups import with_options
from resnet_cli.cli.options import (
    BudgetOption,
    DataDirOption,
    DeterministicOption,
    DeviceOption,
    DownloadOption,
    EngineOption,
    ExperimentName,
    JsonOption,
    LogOption,
    OutOption,
    ProfileOption,
    QuietOption,
    SeedOption,
    SetOption,
    VerboseOption,
)
from resnet_cli.cli.shared import (
    file_names,
    make_context,
    make_display,
    make_stopper,
    show_files,
    writable,
)

if TYPE_CHECKING:
    from resnet_cli.config.schema import Experiment
    from resnet_cli.run.executors import Executor, Failures
    from resnet_cli.run.trainings import Session
    from resnet_cli.runtime.display import Display
    from resnet_cli.training.context import Context


@dataclass
class TrainOptions:
    """The options that `train`, `run` and `reproduce` share."""

    settings: SetOption = None
    data_dir: DataDirOption = None
    download: DownloadOption = False
    device: DeviceOption = "auto"
    deterministic: DeterministicOption = False
    engine: EngineOption = "fast"
    seed: SeedOption = None
    budget: BudgetOption = None
    log: LogOption = None
    as_json: JsonOption = False
    quiet: QuietOption = False
    verbose: VerboseOption = False

    def __post_init__(self) -> None:
        make_stopper(self.budget)  # a wrong duration is refused before PyTorch loads

    def display(self) -> "Display":
        return make_display(self.as_json, self.quiet, self.verbose)

    def session(self, display: "Display") -> "Session":
        from resnet_cli.run.trainings import Session

        return Session(self.context(), display, make_stopper(self.budget))

    def context(self) -> "Context":
        return make_context(
            self.device,
            self.data_dir,
            self.download,
            self.engine,
            deterministic=self.deterministic,
            log=self.log,
        )

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
    """Run experiments and print what they write; returns the summary and what failed.

    Args:
        out: the folder of the results of one experiment; None takes that of each.
        results: the folder that `--results` names.
    """
    from resnet_cli.results.layout import experiment_folder
    from resnet_cli.run.executors import Job, run_jobs

    if results is None:
        jobs = [Job(one, writable(out or experiment_folder(one))) for one in experiments]
    else:
        jobs = [
            Job(one, writable(experiment_folder(one, results), "--results")) for one in experiments
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
    runs = experiment.runs()
    datasets = ", ".join(dict.fromkeys(run.data.dataset for _, run in runs))
    number = "1 training" if len(runs) == 1 else f"{len(runs)} trainings"
    time = experiment.time or ""
    where = "" if not time or "GPU" in time else " on two cores"
    return f"{experiment.name} ({experiment.profile}): {number} on {datasets}" + (
        f", {time}{where}" if time else ""
    )


@app.command(
    epilog=examples(
        "train",
        "train quickstart --set train.epochs=3 --seed 1",
        "train mine.yaml --data-dir DATA --budget 150m",
        "train quickstart --log tensorboard",
    )
)
@with_options(TrainOptions)
def train(
    options: TrainOptions,
    experiment: ExperimentName = "quickstart",
    profile: ProfileOption = None,
    out: OutOption = None,
) -> None:
    """Train all cases and seeds of an experiment. Unfinished trainings are resumed."""
    display = options.display()
    loaded = options.load(experiment, profile).model_copy(update={"study": None})
    from resnet_cli.run.executors import Executor

    summary, _ = run_and_show([loaded], Executor(), options.session(display), out=out)
    display.summary({"command": "train"} | summary)
