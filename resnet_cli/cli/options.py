"""Arguments and options that several commands share.

A fixed set of choices is a `Literal`: Typer checks it and offers it on the tab key. Where other
text is valid too, such as a file, a short function completes the names.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from resnet_cli.config.experiments import experiment_names
from resnet_cli.config.fields import NORMALIZATIONS
from resnet_cli.config.registry import DATASETS
from resnet_cli.config.schema import PROFILES, Profile
from resnet_cli.results.layout import RUNS, WEIGHTS_FILE
from resnet_cli.runtime.engine import Engine
from resnet_cli.weights.cards import bundled_names


def starting_with(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """A completer: those of the names that continue what is typed. If none do, shells offer
    files."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def checkpoint_names() -> list[str]:
    """The bundled weights by name, and the folders of finished runs in the working folder."""
    trained = sorted(str(path.parent) for path in RUNS.glob(f"*/{WEIGHTS_FILE}"))
    return [*bundled_names(), *trained]


def shown_datasets() -> list[str]:
    """The data sets that `resnet-cli data` looks for; class folders may lie anywhere."""
    from resnet_cli.datasets.catalogue import datasets

    return [entry.name for entry in datasets() if entry.is_fixed]


complete_experiment = starting_with(experiment_names)
complete_checkpoint = starting_with(checkpoint_names)

Paper = Literal["he2016", "veit2016"]
ExperimentName = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="A YAML path, or a name: resnet-cli list.",
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
ReproducedProfileOption = Annotated[
    Profile, typer.Option("--profile", help="How far to scale the experiments down.")
]
ComparedProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="PROFILE",
        help="smoke, mini, cpu or paper, or another folder of results/<paper>/, such as resnet20.  "
        "[default: the first of paper, cpu, mini, smoke that has results]",
        autocompletion=starting_with(lambda: PROFILES),
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a key of the YAML; repeatable."),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Where data sets lie.  [default: $RESNET_CLI_DATA or ./data]",
    ),
]
DownloadOption = Annotated[bool, typer.Option("--download", help="Fetch the data if missing.")]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="auto, cpu, cuda or cuda:N.",
        autocompletion=starting_with(lambda: ("auto", "cpu", "cuda")),
    ),
]
DeterministicOption = Annotated[
    bool, typer.Option("--deterministic", help="Same bits every time on CUDA too, slower.")
]
LogOption = Annotated[
    Literal["tensorboard", "wandb"] | None,
    typer.Option(
        "--log",
        help="Also write every epoch for TensorBoard, to runs/<run>/tensorboard/, or for Weights & "
        "Biases.",
    ),
]
PretrainedOption = Annotated[
    bool,
    typer.Option("--pretrained", help="Take bundled weights of the same training; see `weights`."),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", min=0, metavar="N", help="Replaces the seeds of the YAML.")
]
StudySeedOption = Annotated[
    int, typer.Option("--seed", min=0, metavar="N", help="Seed of the study's draws.")
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Folder for CSVs and plots.  [default: results/<paper>/<profile>/<experiment>; "
        "of no paper, results/local/<experiment>/<profile>]",
    ),
]
LocalOutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Folder for CSVs and plots.  [default: one below results/local/, named after the "
        "weights and the question]",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Results and errors only.")]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="More detail.")]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget", metavar="TIME", help="Stop cleanly, state saved, after e.g. 90s, 150m or 2h."
    ),
]
ExecutorOption = Annotated[
    Literal["serial", "ray"],
    typer.Option(
        "--executor",
        help="ray: trainings and studies run as tasks of a Ray cluster.",
    ),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="ADDRESS",
        help="A running Ray cluster.  [default: one is started here]",
    ),
]
RayCpusOption = Annotated[
    int, typer.Option("--ray-cpus", min=1, metavar="N", help="Cores for each task on Ray.")
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N", help="Only train the I-th of N shares of the trainings."
    ),
]
ResultsOption = Annotated[
    Path,
    typer.Option("--results", metavar="DIR", help="Where <paper>/<profile>/<experiment>/ lie."),
]
ShownResultsOption = Annotated[
    Path | None,
    typer.Option(
        "--results",
        metavar="DIR",
        help="Where <paper>/<profile>/<experiment>/ lie.  [default: results; if nothing of the "
        "papers is there, the results that come with the program]",
    ),
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        metavar="PATH|NAME",
        help="Weights: a run's folder, a file of ours or of others, or a bundled name.  "
        "[default: the newest finished run, else bundled weights]",
        autocompletion=complete_checkpoint,
    ),
]
CheckpointsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--checkpoint",
        metavar="PATH|NAME",
        help="Weights: a run's folder, a file of ours or of others, or a bundled name. Twice: "
        "both networks, side by side.  [default: the newest finished run, else bundled weights]",
        autocompletion=complete_checkpoint,
    ),
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help=f"{', '.join(DATASETS)}.  [default: the weights' own]",
        autocompletion=starting_with(lambda: DATASETS),
    ),
]
AssumeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="KEY=VALUE",
        help="What the shapes of others' weights cannot tell, such as stride_in=1x1; repeatable.  "
        "[default: stated with the result]",
    ),
]
NormalizeOption = Annotated[
    str | None,
    typer.Option(
        "--normalize",
        metavar="NAME|M1,M2,M3/S1,S2,S3",
        help="imagenet, cifar, channel, pixel, none, or means and deviations.  "
        "[default: the weights' own]",
        autocompletion=starting_with(lambda: NORMALIZATIONS[:-1]),
    ),
]
EngineOption = Annotated[
    Engine,
    typer.Option("--engine", help="plain: computed as one would write it by hand, for comparison."),
]
ImagesOption = Annotated[
    int | None,
    typer.Option(
        "--images", min=1, metavar="N", help="Only the first N test images.  [default: all]"
    ),
]
