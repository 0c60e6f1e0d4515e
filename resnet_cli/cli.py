"""The command line: parse, call, print.

Heavy modules are imported inside the commands that use them, so that `--help` answers at once.
"""

import errno
import io
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from resnet_cli import __version__, completion, processes
from resnet_cli.allocator import keep_freed_memory
from resnet_cli.errors import RunError, UserError, shortened

if TYPE_CHECKING:
    from resnet_cli.context import Context, Subject
    from resnet_cli.display import Display
    from resnet_cli.study_runner import AnyStudy
    from resnet_cli.training.interrupt import Stopper

    Ahead = Callable[[list[Any], list[Path], Context, Display, Stopper], bool]

app = typer.Typer(
    name="resnet-cli",
    help="Reproduce two papers on residual networks: identity mappings (He et al. 2016), and "
    "lesions and paths (Veit et al. 2016).",
    epilog="Start with: resnet-cli train; resnet-cli lesion --blocks 1; resnet-cli paths",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

# --- options that several commands share ---------------------------------------------------------

ExperimentName = Annotated[
    str,
    typer.Argument(
        metavar="[EXPERIMENT]",
        help="A YAML path, or a name: resnet-cli list.",
        autocompletion=completion.experiments,
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        help="smoke, mini, cpu or paper.",
        metavar="PROFILE",
        autocompletion=completion.profiles,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a key of the YAML; repeatable."),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(help="Where data sets lie.  [default: $RESNET_CLI_DATA or ./data]"),
]
DownloadOption = Annotated[bool, typer.Option("--download", help="Fetch the data if missing.")]
DeviceOption = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:N.", autocompletion=completion.devices)
]
DeterministicOption = Annotated[
    bool, typer.Option("--deterministic", help="Same bits every time on CUDA too, slower.")
]
LogOption = Annotated[
    str | None,
    typer.Option(
        "--log",
        metavar="tensorboard",
        help="Also write every epoch to runs/<run>/tensorboard/, for TensorBoard.",
        autocompletion=completion.logs,
    ),
]
PretrainedOption = Annotated[
    bool,
    typer.Option("--pretrained", help="Study bundled weights of the same training; see `weights`."),
]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Replaces the seeds of the YAML.")]
StudySeedOption = Annotated[int, typer.Option(min=0, help="Seed of the study's draws.")]
OutOption = Annotated[Path | None, typer.Option(help="Folder for CSVs and plots.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Results and errors only.")]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="More detail.")]
BudgetOption = Annotated[
    str | None, typer.Option(help="Stop cleanly, state saved, after e.g. 90s, 150m or 2h.")
]
ExecutorOption = Annotated[
    str,
    typer.Option(
        help="serial, or ray: trainings and studies as tasks of a Ray cluster.",
        autocompletion=completion.executors,
    ),
]
RayAddressOption = Annotated[
    str | None, typer.Option(help="A running Ray cluster.  [default: one is started here]")
]
RayCpusOption = Annotated[int, typer.Option(min=1, help="Cores for each task on Ray.")]
ShardOption = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Only train the I-th of N shares of the trainings."),
]
ResultsOption = Annotated[
    Path, typer.Option(metavar="DIR", help="Where <paper>/<profile>/<experiment>/ lie.")
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        metavar="PATH|NAME",
        help="Weights: a run's folder, a file of ours or of others, or a bundled name.  "
        "[default: the newest finished run, else bundled weights]",
        autocompletion=completion.checkpoints,
    ),
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        help="digits, cifar10, cifar100 or imagefolder.  [default: the weights' own]",
        autocompletion=completion.datasets,
    ),
]
NormalizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|M1,M2,M3/S1,S2,S3",
        help="imagenet, cifar, channel, pixel, none, or means and deviations.  "
        "[default: the weights' own]",
        autocompletion=completion.normalizations,
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        help="fast; or plain: as one would write it by hand, to compare with.",
        autocompletion=completion.engines,
    ),
]
ImagesOption = Annotated[
    int | None, typer.Option(min=1, help="Only the first N test images.  [default: all]")
]


# --- training ------------------------------------------------------------------------------------


@app.command(epilog="Example: resnet-cli train quickstart --profile mini --set train.epochs=3")
def train(
    experiment: ExperimentName = "quickstart",
    profile: ProfileOption = None,
    settings: SetOption = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    device: DeviceOption = "auto",
    deterministic: DeterministicOption = False,
    seed: SeedOption = None,
    out: OutOption = None,
    budget: BudgetOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Train all cases and seeds of an experiment; what is unfinished goes on where it stopped."""
    from resnet_cli.config import load_experiment

    display = _display(as_json, quiet, verbose)
    loaded = load_experiment(experiment, profile, settings or (), seed)
    if loaded.study is not None:
        loaded = loaded.model_copy(update={"study": None})
    _run(
        [loaded],
        display,
        _context(device, data_dir, download, deterministic=deterministic, log=log),
        out,
        budget,
        "train",
    )


@app.command(epilog="Example: resnet-cli run veit2016/fig5a --profile smoke")
def run(
    experiments: Annotated[
        list[str],
        typer.Argument(
            metavar="EXPERIMENT...",
            help="YAML paths, names, folders, or a result's .provenance.json.",
            autocompletion=completion.experiments,
        ),
    ],
    profile: ProfileOption = None,
    settings: SetOption = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    device: DeviceOption = "auto",
    deterministic: DeterministicOption = False,
    seed: SeedOption = None,
    out: OutOption = None,
    budget: BudgetOption = None,
    log: LogOption = None,
    executor: ExecutorOption = "serial",
    ray_address: RayAddressOption = None,
    ray_cpus: RayCpusOption = 1,
    shard: ShardOption = None,
    pretrained: PretrainedOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run experiments whole, training and study; done parts are skipped."""
    from resnet_cli.config import expand_names, load_experiment
    from resnet_cli.rerun import is_provenance

    display = _display(as_json, quiet, verbose)
    context = _context(device, data_dir, download, deterministic=deterministic, log=log)
    context.pretrained = pretrained
    if any(is_provenance(name) for name in experiments):
        if len(experiments) > 1 or profile or settings or seed is not None:
            raise UserError(
                f"{next(filter(is_provenance, experiments))}: a provenance is run alone, and holds "
                "all settings; leave out --profile, --set, --seed and other experiments"
            )
        _run_again(Path(experiments[0]), display, context, out, budget)
        return
    names = expand_names(experiments)
    if len(names) > 1:  # of a folder, what has this profile; a single one is refused by name
        names, _ = _offered(names, profile, display)
    loaded = [load_experiment(name, profile, settings or (), seed) for name in names]
    if out is not None and len(loaded) > 1:
        raise UserError("--out takes one experiment; without it each has a folder of its own")
    ahead = _ahead(executor, ray_address, ray_cpus, shard)
    _run(loaded, display, context, out, budget, "run", ahead)


def _run_again(
    path: Path, display: "Display", context: "Context", out: Path | None, budget: str | None
) -> None:
    """What a provenance file tells: an experiment, or a study that was typed by hand."""
    from resnet_cli.config import Experiment
    from resnet_cli.rerun import is_of_bundled_weights, read, run_typed

    told = read(path)
    if isinstance(told, Experiment):
        context.pretrained |= is_of_bundled_weights(path)
        _run([told], display, context, out, budget, "run")
        return
    folder = out or Path("results/local") / f"again-{path.parent.name}"
    written = run_typed(told, context, display, folder)
    _show_files(display, written.files)
    display.summary(
        {"command": "run", "files": [str(file) for file in written.files]} | written.facts
    )


@app.command(epilog="Example: resnet-cli reproduce he2016 --profile smoke")
def reproduce(
    paper: Annotated[
        str | None,
        typer.Argument(
            metavar="[PAPER]",
            help="he2016 or veit2016.  [default: both]",
            autocompletion=completion.papers,
        ),
    ] = None,
    profile: ProfileOption = "mini",
    settings: SetOption = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    device: DeviceOption = "auto",
    deterministic: DeterministicOption = False,
    seed: SeedOption = None,
    results: ResultsOption = Path("results"),
    budget: BudgetOption = None,
    log: LogOption = None,
    executor: ExecutorOption = "serial",
    ray_address: RayAddressOption = None,
    ray_cpus: RayCpusOption = 1,
    shard: ShardOption = None,
    pretrained: PretrainedOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run every experiment of a paper at a profile; then set measured beside published."""
    from resnet_cli.config import PROFILES, load_experiment
    from resnet_cli.errors import unknown
    from resnet_cli.papers import PAPERS
    from resnet_cli.results.compare import compare as compare_paper
    from resnet_cli.results.compare import show as show_comparison
    from resnet_cli.runner import paper_experiments

    display = _display(as_json, quiet, verbose)
    if profile not in PROFILES:
        raise unknown("profile", str(profile), PROFILES)
    papers = PAPERS if paper is None else (paper,)
    names = [name for one in papers for name in paper_experiments(one)]
    offered, left_out = _offered(names, profile, display)
    experiments = [load_experiment(name, profile, settings or (), seed) for name in offered]
    context = _context(device, data_dir, download, deterministic=deterministic, log=log)
    context.pretrained = pretrained
    summary = {"command": "reproduce", "profile": profile, "not_offered": left_out}
    failures: dict[str, str] = {}
    ahead = _ahead(executor, ray_address, ray_cpus, shard)
    summary |= _carry_out(
        experiments,
        display,
        context,
        budget,
        results=results,
        failures=failures,
        ahead=ahead,
    )
    if shard is not None:
        display.summary(summary)
        return
    comparisons = {}
    for one in papers:
        if any(name.startswith(f"{one}/") and name not in failures for name in offered):
            comparison = compare_paper(one, profile, results)
            show_comparison(comparison, display)
            comparisons[one] = comparison.to_dict()
    display.summary(summary | {"failed": failures, "comparisons": comparisons})
    if failures:
        name, message = next(iter(failures.items()))
        more = f"; neither could {_list(list(failures)[1:])}" if len(failures) > 1 else ""
        raise UserError(f"{name} could not run: {message}{more}")


@app.command(epilog="Example: resnet-cli compare he2016 --profile mini")
def compare(
    paper: Annotated[
        str,
        typer.Argument(
            metavar="PAPER", help="he2016 or veit2016.", autocompletion=completion.papers
        ),
    ],
    profile: ProfileOption = None,
    results: ResultsOption = Path("results"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measured beside published: a paper's tables row by row, its claims with verdicts."""
    from resnet_cli.results.compare import compare as compare_paper
    from resnet_cli.results.compare import show as show_comparison

    display = _display(as_json, quiet)
    comparison = compare_paper(paper, profile, results)
    show_comparison(comparison, display)
    display.summary({"command": "compare"} | comparison.to_dict())


@app.command(epilog="Example: resnet-cli report --results results --out results/report.html")
def report(
    results: ResultsOption = Path("results"),
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="[default: report.html in that folder]")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """One HTML page: each table and figure as published and as measured, with verdicts."""
    from resnet_cli.report.page import write_report

    display = _display(as_json, quiet)
    page = write_report(results, out or results / "report.html")
    display.line(f"wrote {page}", level=-1)
    display.summary({"command": "report", "files": [str(page)]})


def _offered(
    names: list[str], profile: str | None, display: "Display"
) -> tuple[list[str], list[str]]:
    """Which experiments have this profile, and which have not; the latter get a line each."""
    from resnet_cli.config import PROFILES, experiment_profiles
    from resnet_cli.errors import unknown

    if profile is None:
        return names, []
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    profiles = {name: experiment_profiles(name) for name in names}
    offered = [name for name in names if profile in profiles[name]]
    left_out = [name for name in names if name not in offered]
    for name in left_out:
        display.line(f"{name}: not offered at {profile} (it has {_list(profiles[name])})")
    if not offered:
        raise UserError(f"none of these {len(names)} experiments has the profile {profile!r}")
    return offered, left_out


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def _run(
    experiments: list[Any],
    display: "Display",
    context: "Context",
    out: Path | None,
    budget: str | None,
    command: str,
    ahead: "Ahead | None" = None,
) -> None:
    done = _carry_out(experiments, display, context, budget, out=out, ahead=ahead)
    display.summary({"command": command} | done)


def _ahead(
    executor: str, ray_address: str | None, ray_cpus: int, shard: str | None
) -> "Ahead | None":
    """What is done before experiments are run here: all of it on Ray, or a shard's trainings.

    It returns whether to go on.
    """
    from resnet_cli.errors import unknown

    if executor not in ("serial", "ray"):
        raise unknown("executor", executor, ("serial", "ray"))
    if executor == "serial" and (ray_address is not None or ray_cpus != 1):
        raise UserError("--ray-address and --ray-cpus go with --executor ray")
    if executor == "ray" and shard is not None:
        raise UserError("--shard is for machines without Ray; leave out --executor ray")
    from resnet_cli import fanout

    if shard is not None:
        number, of = fanout.parse_shard(shard)

        def train(
            experiments: list[Any],
            folders: list[Path],
            context: "Context",
            display: "Display",
            stopper: "Stopper",
        ) -> bool:
            count = fanout.train_shard(experiments, number, of, context, display, stopper)
            display.line(
                f"shard {number} of {of}: {count} trainings done; when all shards are, the same "
                "command without --shard writes the tables and asks the studies"
            )
            return False

        return train
    if executor == "serial":
        return None

    def on_ray(
        experiments: list[Any],
        folders: list[Path],
        context: "Context",
        display: "Display",
        stopper: "Stopper",
    ) -> bool:
        cluster = fanout.Cluster(ray_address, ray_cpus)
        fanout.run_on_ray(experiments, folders, context, display, stopper, cluster)
        return True

    return on_ray


def _carry_out(
    experiments: list[Any],
    display: "Display",
    context: "Context",
    budget: str | None,
    *,
    out: Path | None = None,
    results: Path = Path("results"),
    failures: dict[str, str] | None = None,
    ahead: "Ahead | None" = None,
) -> dict[str, Any]:
    """Run experiments and return what they found.

    Given `failures`, an experiment whose data are missing is noted there and the others go on.
    """
    from resnet_cli.runner import default_out, run_experiment
    from resnet_cli.training.interrupt import Stopper, parse_duration

    stopper = Stopper(None if budget is None else parse_duration(budget))
    folders = [_writable(out or default_out(experiment, results)) for experiment in experiments]
    found: dict[str, Any] = {}
    with stopper.listening():
        if ahead is not None and not ahead(experiments, folders, context, display, stopper):
            return {"experiments": {}}
        for experiment, folder in zip(experiments, folders, strict=True):
            try:
                written = run_experiment(experiment, context, display, stopper, folder)
            except UserError as error:
                if failures is None:
                    raise
                failures[experiment.name] = str(error)
                display.line(f"{experiment.name}: {error}", level=-1)
                continue
            _show_files(display, written.files)
            found[experiment.name] = written.facts | {
                "files": [str(path) for path in written.files],
                "profile": experiment.profile,
            }
    return {"experiments": found}


# --- studies -------------------------------------------------------------------------------------


@app.command(
    name="eval", epilog="Example: resnet-cli eval --checkpoint resnet20.th --normalize imagenet"
)
def evaluate_command(
    checkpoint: CheckpointOption = None,
    dataset: DatasetOption = None,
    normalize: NormalizeOption = None,
    images: ImagesOption = None,
    test_size: Annotated[
        int | None,
        typer.Option(min=1, help="imagefolder: side of the centre crop, 224 or 320 in paper 1."),
    ] = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Top-1 test error and loss of a network; from 100 classes on the top-5 error too."""
    from resnet_cli.evaluation import evaluate

    display = _display(as_json, quiet, verbose)
    context = _context(device, data_dir, download)
    subject = _subject(display, context, checkpoint, dataset, normalize, images, test_size)
    batches = subject.batches("test")
    with display.progress(f"evaluating {subject.label}") as update:
        result = evaluate(subject.loaded.network, batches, report=update)
    chance = 100.0 * (1 - 1 / subject.loaded.num_classes)
    display.line(f"test error {result.error:.2f} % on {result.images:,} images", level=-1)
    if result.top5_error is not None and subject.loaded.num_classes >= 100:
        display.line(f"top-5 error {result.top5_error:.2f} %", level=-1)
    display.line(f"loss {result.loss:.4f}", level=-1)
    if result.error > 0.8 * chance:
        display.line(
            f"hint: guessing gives {chance:.0f} %; were these weights trained with another "
            "normalisation? Try --normalize imagenet or --normalize cifar",
            level=-1,
        )
    display.summary(
        {
            "command": "eval",
            "checkpoint": subject.loaded.source,
            "dataset": subject.data.dataset,
            "images": result.images,
            "test_error": result.error,
            "top5_error": result.top5_error,
            "loss": result.loss,
        }
    )


@app.command(
    epilog="Examples: resnet-cli lesion --blocks 1 --ranked (each in turn); --blocks 1-20 "
    "--samples 50; --only 4,17 --per-class; --reorder 1-20; --greedy 20; --additivity 2-10"
)
def lesion(
    blocks: Annotated[
        str | None,
        typer.Option(
            metavar="K|K1-K2",
            help="Delete so many random units; 1 deletes each in turn.  [default: 1]",
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Draws for each number of units.")] = 20,
    only: Annotated[
        str | None, typer.Option(metavar="UNITS", help="Delete just these units, together.")
    ] = None,
    reorder: Annotated[
        str | None, typer.Option(metavar="N|N1-N2", help="Swap so many pairs of equal shape.")
    ] = None,
    greedy: Annotated[
        int | None,
        typer.Option(min=1, help="Delete the least harmful unit, N times; beside random ones."),
    ] = None,
    additivity: Annotated[
        str | None,
        typer.Option(
            metavar="K|K1-K2", help="Joint damage of so many units against the sum of their own."
        ),
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Also each class's error (--blocks, --only).")
    ] = False,
    ranked: Annotated[
        bool, typer.Option("--ranked", help="Show deletions worst first (--blocks).")
    ] = False,
    checkpoint: CheckpointOption = None,
    dataset: DatasetOption = None,
    normalize: NormalizeOption = None,
    images: ImagesOption = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    device: DeviceOption = "auto",
    engine: EngineOption = "fast",
    seed: StudySeedOption = 0,
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Delete or reorder units of a trained network and measure its test error."""
    from resnet_cli.config import AdditivityStudy, DeleteStudy, GreedyStudy, ReorderStudy

    if sum(option is not None for option in (blocks, only, reorder, greedy, additivity)) > 1:
        raise UserError(
            "--blocks, --only, --reorder, --greedy and --additivity exclude each other; give one"
        )
    deletes = all(option is None for option in (reorder, greedy, additivity))
    for name, given in (("--per-class", per_class), ("--ranked", ranked)):
        if given and not deletes:
            raise UserError(f"{name} goes with --blocks or --only")
    study: AnyStudy
    if reorder is not None:
        swaps = _range("--reorder", reorder)
        study = ReorderStudy(kind="reorder", swaps=swaps, samples=samples)
    elif greedy is not None:
        study = GreedyStudy(kind="greedy", max_units=greedy, samples=samples)
    elif additivity is not None:
        k = _range("--additivity", additivity)
        if min(k) < 2:
            raise UserError("--additivity starts at 2: one unit's damage is its own sum")
        study = AdditivityStudy(kind="additivity", k=k, samples=samples)
    else:
        k = _range("--blocks", "1" if blocks is None else blocks)
        study = DeleteStudy(kind="delete", k=k, samples=samples, per_class=per_class)
    _study(
        study,
        display=_display(as_json, quiet, verbose),
        subject=(
            _context(device, data_dir, download, engine),
            checkpoint,
            dataset,
            normalize,
            images,
        ),
        seed=seed,
        out=out,
        command="lesion",
        only=None if only is None else _range("--only", only),
        ranked=ranked,
    )


@app.command(
    epilog="Examples: resnet-cli paths (every length); --k 10 --samples 1000; --exact; --lengths"
)
def paths(
    k: Annotated[
        str | None,
        typer.Option("--k", metavar="K|K1-K2", help="Path lengths to sample.  [default: all]"),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Sampled paths for each length.")] = 20,
    exact: Annotated[
        bool, typer.Option("--exact", help="Add the exact spectrum: all paths of each length.")
    ] = False,
    estimator: Annotated[
        str,
        typer.Option(
            help="batch: one path for a batch, as published; image: one for each image.",
            autocompletion=completion.estimators,
        ),
    ] = "batch",
    stages: Annotated[
        bool, typer.Option("--stages", help="Add the exact spectrum of each stage.")
    ] = False,
    unit: Annotated[
        int | None,
        typer.Option(min=0, help="Add the exact spectrum at this unit's parameters."),
    ] = None,
    lengths: Annotated[
        bool, typer.Option("--lengths", help="Only the number of paths by length.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a sample's batch.")] = 128,
    batch_statistics: Annotated[
        bool,
        typer.Option(
            "--batch-statistics",
            help="Normalise by each batch's own statistics when sampling, as in training.",
        ),
    ] = False,
    checkpoint: CheckpointOption = None,
    dataset: DatasetOption = None,
    normalize: NormalizeOption = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    device: DeviceOption = "auto",
    engine: EngineOption = "fast",
    seed: StudySeedOption = 0,
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Path lengths of a network, and the gradient at its input by path length."""
    from resnet_cli.config import PathsStudy

    if estimator not in ("batch", "image"):
        raise UserError(f"--estimator {estimator}: use batch or image")
    if batch_statistics and (exact or stages or unit is not None):
        raise UserError(
            "the exact spectrum is by running statistics, with which images do not see one "
            "another; it would not compare with samples by --batch-statistics"
        )
    study = PathsStudy(
        kind="paths",
        k=None if k is None else _range("--k", k),
        samples=samples,
        batch_size=batch_size,
        estimator=cast('Literal["batch", "image"]', estimator),
        exact=exact,
        stages=stages,
        unit=unit,
        lengths_only=lengths,
    )
    _study(
        study,
        display=_display(as_json, quiet, verbose),
        subject=(
            _context(device, data_dir, download, engine),
            checkpoint,
            dataset,
            normalize,
            None,
        ),
        seed=seed,
        out=out,
        command="paths",
        batch_statistics=batch_statistics,
    )


@app.command(
    epilog="Examples: resnet-cli signal --checkpoint NAME; resnet-cli signal he2016/table1 "
    "--profile mini (every row; what is trained, also as trained)"
)
def signal(
    experiment: Annotated[
        str | None,
        typer.Argument(
            metavar="[EXPERIMENT]",
            help="Measure every network of an experiment instead; nothing is trained.",
            autocompletion=completion.experiments,
        ),
    ] = None,
    profile: ProfileOption = None,
    settings: SetOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Training images in the batch.")] = 128,
    checkpoint: CheckpointOption = None,
    dataset: DatasetOption = None,
    normalize: NormalizeOption = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    device: DeviceOption = "auto",
    seed: StudySeedOption = 0,
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Signals by unit, untrained and trained: activations, gradients, the shortcuts' factor."""
    from resnet_cli.config import SignalStudy, load_experiment

    display = _display(as_json, quiet, verbose)
    context = _context(device, data_dir, download)
    study = SignalStudy(kind="signal", batch_size=batch_size)
    of_networks = (("--checkpoint", checkpoint), ("--dataset", dataset), ("--normalize", normalize))
    if experiment is None:
        for name, given in (("--profile", profile), ("--set", settings)):
            if given:
                raise UserError(f"{name} goes with an EXPERIMENT: resnet-cli signal quickstart")
        subject = (context, checkpoint, dataset, normalize, None)
        _study(study, display=display, subject=subject, seed=seed, out=out, command="signal")
        return
    for name, given in of_networks:
        if given is not None:
            raise UserError(f"{name} and an EXPERIMENT exclude each other")
    from resnet_cli.runner import measure_signals
    from resnet_cli.training.interrupt import Stopper

    loaded = load_experiment(experiment, profile, settings or ())
    loaded = loaded.model_copy(update={"study": study})
    folder = _writable(out or Path("results/local") / f"signal-{loaded.name.replace('/', '-')}")
    stopper = Stopper(None)
    with stopper.listening():
        written = measure_signals(loaded, context, display, stopper, folder)
    _show_files(display, written.files)
    display.summary(
        {
            "command": "signal",
            "experiment": loaded.name,
            "profile": loaded.profile,
            "files": [str(path) for path in written.files],
        }
        | written.facts
    )


def _study(
    study: "AnyStudy",
    *,
    display: "Display",
    subject: "tuple[Context, str | None, str | None, str | None, int | None]",
    seed: int,
    out: Path | None,
    command: str,
    **options: Any,
) -> None:
    from resnet_cli.study_runner import run_study

    found = _subject(display, *subject)
    folder = _writable(out or Path("results/local") / f"{command}-{found.loaded.label}")
    written = run_study(found, study, seed=seed, out=folder, display=display, **options)
    _show_files(display, written.files)
    display.summary(
        {
            "command": command,
            "checkpoint": found.loaded.source,
            "dataset": found.data.dataset,
            "files": [str(path) for path in written.files],
        }
        | written.facts
    )


# --- looking around ------------------------------------------------------------------------------


@app.command(name="list", epilog="Example: resnet-cli list")
def list_command(as_json: JsonOption = False) -> None:
    """The experiments that travel with the program."""
    from resnet_cli.config import experiment_titles

    display = _display(as_json)
    titles = experiment_titles()
    display.table("Experiments", ["name", "title"], list(titles.items()))
    display.summary({"command": "list", "experiments": titles})


@app.command(epilog="Example: resnet-cli show quickstart --profile smoke --set train.lr=0.2")
def show(
    experiment: ExperimentName = "quickstart",
    profile: ProfileOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """The resolved configuration of an experiment, defaults included."""
    import yaml

    from resnet_cli.config import load_experiment

    loaded = load_experiment(experiment, profile, settings or (), seed)
    content = loaded.model_dump(mode="json")
    display = _display(as_json)
    display.line(f"# hash {loaded.hash}")
    display.line(yaml.safe_dump(content, sort_keys=False, allow_unicode=True).rstrip())
    display.summary({"command": "show", "hash": loaded.hash, "config": content})


@app.command(epilog="Example: resnet-cli models --json")
def models(as_json: JsonOption = False) -> None:
    """Every network of the papers: units, layers, parameters, multiply-adds."""
    from resnet_cli.models.catalog import catalog

    display = _display(as_json)
    with display.progress("building networks") as update:
        rows = catalog(update)
    display.table(
        "Networks (multiply-adds in millions, for one image)",
        ["network", "input", "units", "layers", "parameters", "published", "mult-adds"],
        [
            [
                row["network"],
                row["input"],
                row["units"],
                row["layers"],
                f"{row['parameters']:,}",
                row["published_parameters"] or "-",
                round(row["multiply_adds"] / 1e6),
            ]
            for row in rows
        ],
    )
    display.summary({"command": "models", "models": rows})


@app.command(epilog="Examples: resnet-cli data; resnet-cli data cifar10 --download")
def data(
    dataset: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATASET]",
            help="digits, cifar10 or cifar100; else all.",
            autocompletion=completion.shown_datasets,
        ),
    ] = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    as_json: JsonOption = False,
) -> None:
    """Where data sets were looked for, found and verified; --download fetches one."""
    from resnet_cli.data import data_root, find
    from resnet_cli.errors import unknown

    names = ("digits", "cifar10", "cifar100")
    if dataset is not None and dataset not in names:
        raise unknown("data set", dataset, names)
    display = _display(as_json)
    if download:
        if dataset is None or dataset == "digits":
            raise UserError("--download needs a name: resnet-cli data cifar10 --download")
        from resnet_cli.download import fetch

        with display.progress(f"fetching {dataset}") as update:
            name = cast('Literal["cifar10", "cifar100"]', dataset)
            fetch(name, data_root(data_dir), progress=lambda n, d, t: update(d, t or d, n))
    wanted = names if dataset is None else (dataset,)
    findings = [finding for name in wanted for finding in find(name, data_dir)]
    display.table(
        "Data sets",
        ["data set", "state", "place", "detail"],
        [[f.dataset, f.state, f.place, f.detail] for f in findings],
    )
    display.summary(
        {
            "command": "data",
            "found": sorted({f.dataset for f in findings if f.state == "found"}),
            "places": [vars(f) for f in findings],
        }
    )


@app.command(epilog="Examples: resnet-cli bench; resnet-cli bench lesion_single --repeats 5")
def bench(
    items: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ITEM...]",
            help="Which.  [default: all]",
            autocompletion=completion.benchmarks,
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats, of which the median counts.")] = 3,
    small: Annotated[
        bool, typer.Option("--small", help="Tiny networks: shows that it runs, in seconds.")
    ] = False,
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Speed and memory beside plain PyTorch code for the same work, measured by turns."""
    from resnet_cli.bench.items import Settings
    from resnet_cli.bench.run import run_benchmarks
    from resnet_cli.training.interrupt import Stopper

    display = _display(as_json, quiet)
    stopper = Stopper(None)
    folder = _writable(out or Path("results/local/bench"))
    with stopper.listening():
        files, rows = run_benchmarks(
            items or [], Settings(repeats, small), folder, display, stopper
        )
    _show_files(display, files)
    display.summary({"command": "bench", "files": [str(f) for f in files], "items": rows})


@app.command(
    epilog="Examples: resnet-cli weights; resnet-cli weights --export runs/NAME --name mine --out ."
)
def weights(
    export: Annotated[
        str | None, typer.Option(metavar="RUN", help="Make a bundle of a finished run's folder.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The bundle's name, as --checkpoint will take it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the bundle goes.  [default: the program's own]")
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """The trained networks that travel with the program; --export adds one."""
    from resnet_cli.bundles import bundle, cards

    display = _display(as_json)
    if (export is None) != (name is None):
        raise UserError("--export RUN and --name NAME go together")
    if export is not None and name is not None:
        context = _context("cpu", data_dir, False)
        with display.progress(f"evaluating {export} in float16") as update:
            path = bundle(context, export, name, out, report=update)
        display.line(f"wrote {path}")
    found = cards()
    display.table(
        "Bundled weights",
        ["name", "network", "data", "test error", "epochs", "sha256"],
        [
            [c["name"], c["network"], c["dataset"], c["test_error"], c["epochs"], c["sha256"][:12]]
            for c in found
        ],
    )
    display.summary({"command": "weights", "weights": found})


def _version(value: bool) -> None:
    if value:
        typer.echo(f"resnet-cli {__version__}")
        raise typer.Exit


SHARED = ("train", "run", "reproduce", "eval", "lesion", "paths", "signal")
"""The commands whose work several processes share under torchrun; of others, one does all."""


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    keep_freed_memory()
    if context.invoked_subcommand in SHARED:
        processes.start()
    elif processes.rank() > 0:
        raise typer.Exit


# --- what the commands share ---------------------------------------------------------------------


def _display(as_json: bool, quiet: bool = False, verbose: bool = False) -> "Display":
    from resnet_cli.display import Display

    silent = processes.rank() > 0
    return Display(as_json=as_json, verbosity=int(verbose) - int(quiet), silent=silent)


def _context(
    device: str,
    data_dir: Path | None,
    download: bool,
    engine: str = "fast",
    *,
    deterministic: bool = False,
    log: str | None = None,
) -> "Context":
    from resnet_cli.context import Context
    from resnet_cli.device import pick_device
    from resnet_cli.errors import unknown
    from resnet_cli.studies.engine import ENGINES
    from resnet_cli.training.epoch_log import check_log

    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    return Context(
        pick_device(device, deterministic=deterministic),
        data_dir,
        download,
        engine=engine,
        deterministic=deterministic,
        log=check_log(log),
    )


def _subject(
    display: "Display",
    context: "Context",
    checkpoint: str | None,
    dataset: str | None,
    normalize: str | None,
    images: int | None,
    test_size: int | None = None,
) -> "Subject":
    """The network a study is about, with a line that says which and what it is."""
    from resnet_cli.config import DataConfig
    from resnet_cli.context import find_subject
    from resnet_cli.errors import unknown

    known = DataConfig.model_fields["dataset"].annotation.__args__  # type: ignore[union-attr]
    if dataset is not None and dataset not in known:
        raise unknown("data set", dataset, known)
    subject = find_subject(context, checkpoint, dataset, normalize, images, test_size)
    loaded = subject.loaded
    kind = "adapted"
    if loaded.model is not None:
        kind = "vgg, plain" if loaded.is_plain else f"resnet, {loaded.model.placement}"
    display.line(
        f"network: {loaded.label} ({kind}, {len(loaded.network.units)} units) "
        f"from {loaded.source}; "
        f"data: {subject.data.dataset}, normalised by {normalize or subject.data.normalization}"
    )
    return subject


def _writable(folder: Path) -> Path:
    """A folder for results, refused before the work when it could not take them."""
    from resnet_cli.results.tables import check_writable

    check_writable(folder)
    return folder


def _range(option: str, text: str) -> tuple[int, ...]:
    from resnet_cli.config import parse_range

    try:
        return parse_range(text)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None


def _show_files(display: "Display", files: list[Path]) -> None:
    for path in files:
        display.line(f"wrote {path}")


def run_command(arguments: list[str] | None = None) -> int:
    """Carry out one command line and return its exit code: 0, 1, 2 or 130."""
    code = 1
    try:
        code = _outcome(arguments)
    finally:
        processes.finish(code)
    return code


def _outcome(arguments: list[str] | None) -> int:
    if any("\0" in argument for argument in arguments or ()):  # no shell can pass one on
        _say("an argument holds a null byte, which no name of a file can")
        return 2
    command: Callable[..., Any] = typer.main.get_command(app)
    try:
        code = command(arguments, prog_name="resnet-cli", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except typer.Exit as exit_:
        return int(exit_.exit_code)
    except _USAGE_ERROR as error:
        _say(_usage_message(error))
        return 2
    except UserError as error:
        _say(str(error))
        return 2
    except RunError as error:
        _say(str(error))
        return 1
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:  # no permission, a name too long, a disk that fails
        if error.filename is None:
            raise
        _say(f"{shortened(error.filename)}: {error.strerror}")
        return 2 if error.errno == errno.ENAMETOOLONG else 1
    except Exception as error:
        from resnet_cli.training.interrupt import Interrupted

        if isinstance(error, Interrupted):
            _say(str(error))
            return 130
        if _is_out_of_memory(error):
            _say("not enough memory; a smaller batch, network or image, or fewer, may fit")
            return 1
        raise


def _is_out_of_memory(error: Exception) -> bool:
    """Python, PyTorch on the CPU and PyTorch on a GPU each say it in their own way."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError):
        return True
    if torch is None or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


# The class of all errors in options and arguments, wherever this version of typer keeps it.
_USAGE_ERROR: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


def _usage_message(error: Any) -> str:
    path = error.ctx.command_path if getattr(error, "ctx", None) is not None else "resnet-cli"
    return f"{' '.join(error.format_message().split())} (see {path} --help)"


def _say(message: str) -> None:
    """One line on stderr, whatever a file or an argument put into the message."""
    if processes.may_speak():
        printable = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        print(f"resnet-cli: {''.join(printable)}", file=sys.stderr, flush=True)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):  # a character that the terminal lacks is no crash
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.exit(run_command())
