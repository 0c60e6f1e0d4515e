"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from resnet_cli.cli import completion

ExperimentName = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="A YAML path, or a name: resnet-cli list.",
        autocompletion=completion.experiments,
    ),
]


def _profile(text: str) -> Any:
    return typer.Option(
        "--profile", help=text, metavar="PROFILE", autocompletion=completion.profiles
    )


ProfileOption = Annotated[
    str | None,
    _profile(
        "smoke, mini, cpu or paper.  "
        "[default: the first of mini, smoke, cpu, paper that the experiment has]"
    ),
]
ReproducedProfileOption = Annotated[str, _profile("smoke, mini, cpu or paper.")]
ComparedProfileOption = Annotated[
    str | None,
    _profile(
        "smoke, mini, cpu or paper, or another folder of results/<paper>/, such as resnet20.  "
        "[default: the first of paper, cpu, mini, smoke that has results]"
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
        autocompletion=completion.devices,
    ),
]
DeterministicOption = Annotated[
    bool, typer.Option("--deterministic", help="Same bits every time on CUDA too, slower.")
]
LogOption = Annotated[
    Literal["tensorboard"] | None,
    typer.Option(
        "--log",
        metavar="tensorboard",
        help="Also write every epoch to runs/<run>/tensorboard/, for TensorBoard.",
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
        metavar="NAME",
        help="serial, or ray: trainings and studies as tasks of a Ray cluster.",
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
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        metavar="PATH|NAME",
        help="Weights: a run's folder, a file of ours or of others, or a bundled name.  "
        "[default: the newest finished run, else bundled weights]",
        autocompletion=completion.checkpoints,
    ),
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="digits, cifar10, cifar100 or imagefolder.  [default: the weights' own]",
        autocompletion=completion.datasets,
    ),
]
NormalizeOption = Annotated[
    str | None,
    typer.Option(
        "--normalize",
        metavar="NAME|M1,M2,M3/S1,S2,S3",
        help="imagenet, cifar, channel, pixel, none, or means and deviations.  "
        "[default: the weights' own]",
        autocompletion=completion.normalizations,
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="fast; or plain: as one would write it by hand, to compare with.",
        autocompletion=completion.engines,
    ),
]
ImagesOption = Annotated[
    int | None,
    typer.Option(
        "--images", min=1, metavar="N", help="Only the first N test images.  [default: all]"
    ),
]
