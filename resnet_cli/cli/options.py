"""Options and arguments that several commands share, and the objects that options stand for.

A fixed set of choices is a `Literal`: Typer checks it and completes it on the tab key. Where other
text is valid too, such as a file, a completer offers the names.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from resnet_cli.config.experiments import experiment_names
from resnet_cli.config.schema import Profile
from resnet_cli.results.layout import RUNS, WEIGHTS_FILE
from resnet_cli.runtime import processes
from resnet_cli.runtime.engine import Engine
from resnet_cli.runtime.errors import UserError
from resnet_cli.weights.cards import bundled_names

if TYPE_CHECKING:
    from resnet_cli.runtime.display import Display
    from resnet_cli.runtime.interrupt import Stopper
    from resnet_cli.training.context import Context


def starting_with(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """A completer that offers the names beginning with what was typed; if there are none, shells
    offer files."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def checkpoint_names() -> list[str]:
    """The names of bundled weights, and the folders of finished runs in the working folder."""
    trained = sorted(str(path.parent) for path in RUNS.glob(f"*/{WEIGHTS_FILE}"))
    return [*bundled_names(), *trained]


complete_experiment = starting_with(experiment_names)
complete_checkpoint = starting_with(checkpoint_names)

Paper = Literal["he2016", "veit2016"]
ExperimentName = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="A YAML path, or a name from `resnet-cli list`.",
        autocompletion=complete_experiment,
    ),
]
ProfileOption = Annotated[
    Profile | None,
    typer.Option(
        "--profile",
        help="How far to scale the experiment down.  "
        "[default: the first of mini, smoke, cpu, paper that the experiment has]",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a key of the YAML; repeatable."),
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", min=0, metavar="N", help="Use this seed instead of those of the YAML."),
]
StudySeedOption = Annotated[
    int, typer.Option("--seed", min=0, metavar="N", help="Seed of the study's random draws.")
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Folder of the data sets.  [default: $RESNET_CLI_DATA or ./data]",
    ),
]
DownloadOption = Annotated[
    bool, typer.Option("--download", help="Download the data set if it is missing.")
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="auto, cpu, cuda or cuda:N.",
        autocompletion=starting_with(lambda: ("auto", "cpu", "cuda")),
    ),
]
EngineOption = Annotated[
    Engine, typer.Option("--engine", help="plain: the most direct computation, for comparison.")
]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="TIME",
        help="Stop after this time, such as 90s, 150m or 2h, with the state saved.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Folder for CSVs and plots.  [default: results/<paper>/<profile>/<experiment>, or "
        "results/local/<experiment>/<profile> for an experiment of no paper]",
    ),
]
ShownResultsOption = Annotated[
    Path | None,
    typer.Option(
        "--results",
        metavar="DIR",
        help="The folder that contains <paper>/<profile>/<experiment>/.  [default: results, or, if "
        "it has nothing of the papers, the results that come with the program]",
    ),
]


@dataclass
class OutputOptions:
    """What a command prints."""

    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line on stdout.")] = False
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print only results and errors.")] = (
        False
    )

    @property
    def verbosity(self) -> int:
        return -int(self.quiet)

    def display(self) -> "Display":
        """Prints for the command; under torchrun, only in the first process."""
        from resnet_cli.runtime.display import Display

        silent = processes.rank() > 0
        return Display(as_json=self.as_json, verbosity=self.verbosity, silent=silent)


@dataclass
class DetailOptions(OutputOptions):
    """What a command prints that can print more."""

    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Print more details.")] = False

    @property
    def verbosity(self) -> int:
        return int(self.verbose) - int(self.quiet)


@dataclass
class WorkOptions(DetailOptions):
    """The data and the device of a command that evaluates or trains networks."""

    data_dir: DataDirOption = None
    download: DownloadOption = False
    device: DeviceOption = "auto"

    def __post_init__(self) -> None:
        """Check the options before PyTorch is imported, which takes seconds.

        Raises:
            UserError: an option is not valid.
        """
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise UserError(f"--device {self.device}: use auto, cpu, cuda or cuda:n")

    def context(self) -> "Context":
        """The device and the data.

        Raises:
            UserError: the device does not exist here.
        """
        from resnet_cli.runtime.device import pick_device
        from resnet_cli.training.context import Context

        return Context(pick_device(self.device), self.data_dir, self.download)


def make_stopper(budget: str | None) -> "Stopper":
    """Stops the command at a signal, or when `--budget` is used up.

    Raises:
        UserError: the budget is not a duration.
    """
    from resnet_cli.runtime.interrupt import Stopper, parse_duration

    return Stopper(None if budget is None else parse_duration(budget))
