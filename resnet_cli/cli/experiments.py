"""Commands on experiments: train, run, reproduce, compare, report."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnet_cli.cli import completion
from resnet_cli.cli.app import app, examples
from resnet_cli.cli.options import (
    BudgetOption,
    DataDirOption,
    DeterministicOption,
    DeviceOption,
    DownloadOption,
    EngineOption,
    ExecutorOption,
    ExperimentName,
    JsonOption,
    LogOption,
    OutOption,
    PretrainedOption,
    ProfileOption,
    QuietOption,
    RayAddressOption,
    RayCpusOption,
    ReproducedProfileOption,
    ResultsOption,
    SeedOption,
    SetOption,
    ShardOption,
    VerboseOption,
)
from resnet_cli.cli.shared import (
    file_names,
    local_folder,
    make_context,
    make_display,
    make_stopper,
    show_files,
    writable,
)
from resnet_cli.runtime.errors import UserError

if TYPE_CHECKING:
    from resnet_cli.run.executors import Failure
    from resnet_cli.run.rerun import Told
    from resnet_cli.runtime.display import Display
    from resnet_cli.runtime.interrupt import Stopper
    from resnet_cli.training.context import Context

    Ahead = Callable[
        [list[Any], list[Path], Context, Display, Stopper], tuple[bool, list[Failure | None]]
    ]


@app.command(
    epilog=examples(
        "train",
        "train quickstart --set train.epochs=3 --seed 1",
        "train mine.yaml --data-dir DATA --budget 150m",
        "train quickstart --log tensorboard",
    )
)
def train(
    experiment: ExperimentName = "quickstart",
    profile: ProfileOption = None,
    settings: SetOption = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    device: DeviceOption = "auto",
    deterministic: DeterministicOption = False,
    engine: EngineOption = "fast",
    seed: SeedOption = None,
    out: OutOption = None,
    budget: BudgetOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Train all cases and seeds of an experiment. What is unfinished goes on where it stopped."""
    from resnet_cli.config.experiments import load_experiment

    display = make_display(as_json, quiet, verbose)
    loaded = load_experiment(experiment, profile, settings or (), seed)
    if loaded.study is not None:
        loaded = loaded.model_copy(update={"study": None})
    _run(
        [loaded],
        display,
        make_context(device, data_dir, download, engine, deterministic=deterministic, log=log),
        out,
        budget,
        "train",
    )


@app.command(
    epilog=examples(
        "run veit2016/fig5a --profile smoke",
        "run veit2016/fig6 --profile cpu --pretrained --data-dir DATA",
        "run 'he2016/table*' --profile mini --budget 2h",
        "run results/veit2016/mini/fig7/path_survival.provenance.json",
    )
)
def run(
    experiments: Annotated[
        list[str],
        typer.Argument(
            metavar="EXPERIMENT",
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
    engine: EngineOption = "fast",
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
    """Run experiments whole: trainings, studies, tables, plots. Done parts are skipped."""
    from resnet_cli.config.experiments import expand_names, load_experiment
    from resnet_cli.run.rerun import is_provenance, read

    display = make_display(as_json, quiet, verbose)
    own = _own_device(device, executor)
    ahead = _ahead(executor, ray_address, ray_cpus, shard, device)
    if any(is_provenance(name) for name in experiments):
        if len(experiments) > 1 or profile or settings or seed is not None:
            raise UserError(
                f"{next(filter(is_provenance, experiments))}: a provenance is run alone, and holds "
                "all settings; leave out --profile, --set, --seed and other experiments"
            )
        told = read(Path(experiments[0]))
        deterministic |= told.deterministic
        engine = engine if told.engine == "fast" else told.engine
        context = make_context(
            own, data_dir, download, engine, deterministic=deterministic, log=log
        )
        context.pretrained = pretrained or told.of_bundled_weights
        _run_again(told, display, context, out, budget, ahead)
        return
    context = make_context(own, data_dir, download, engine, deterministic=deterministic, log=log)
    context.pretrained = pretrained
    names = expand_names(experiments)
    if len(names) > 1:  # of a folder, what has this profile; a single one is refused by name
        names, _ = _offered(names, profile, display)
    loaded = [load_experiment(name, profile, settings or (), seed) for name in names]
    if out is not None and len(loaded) > 1:
        raise UserError("--out takes one experiment; without it each has a folder of its own")
    _run(loaded, display, context, out, budget, "run", ahead)


def _run_again(
    told: "Told",
    display: "Display",
    context: "Context",
    out: Path | None,
    budget: str | None,
    ahead: "Ahead | None",
) -> None:
    """What a provenance file tells: an experiment, or a study that trains nothing."""
    from resnet_cli.config.schema import Experiment
    from resnet_cli.run.experiment import measure_signals
    from resnet_cli.run.rerun import check_data, run_typed

    check_data(told, context)
    if isinstance(told.work, Experiment) and not told.untrained:
        _run([told.work], display, context, out, budget, "run", ahead)
        return
    if ahead is not None:
        raise UserError(f"{told.path}: nothing is to be trained; leave out --shard and --executor")
    folder = writable(out or local_folder("again", _below_results(told.path), {}))
    stopper = make_stopper(budget)
    with stopper.listening():
        if isinstance(told.work, Experiment):
            written = measure_signals(told.work, context, display, stopper, folder)
        else:
            written = run_typed(told.work, context, display, folder, stopper)
    show_files(display, written)
    display.summary({"command": "run", "files": file_names(written)} | written.facts)


def _below_results(table: Path) -> str:
    """The folders that a result lies in, from results/ on, or its own folder alone."""
    folders = Path(os.path.abspath(table)).parent.parts[1:]
    last = len(folders) - 1
    start = max((i + 1 for i, name in enumerate(folders[:last]) if name == "results"), default=last)
    return "-".join(folders[start:])


@app.command(
    epilog=examples(
        "reproduce he2016 --profile smoke",
        "reproduce --profile mini --budget 150m",
        "reproduce veit2016 --profile cpu --data-dir DATA --shard 1/4",
    )
)
def reproduce(
    paper: Annotated[
        str | None,
        typer.Argument(
            metavar="PAPER",
            help="he2016 or veit2016.  [default: both]",
            autocompletion=completion.papers,
        ),
    ] = None,
    profile: ReproducedProfileOption = "mini",
    settings: SetOption = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    device: DeviceOption = "auto",
    deterministic: DeterministicOption = False,
    engine: EngineOption = "fast",
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
    """Run all experiments of a paper, then compare. Missing data leave the others running."""
    from resnet_cli.claims.compare import compare as compare_paper
    from resnet_cli.claims.compare import show as show_comparison
    from resnet_cli.claims.papers import PAPERS
    from resnet_cli.config.experiments import load_experiment
    from resnet_cli.config.schema import PROFILES
    from resnet_cli.run.experiment import paper_experiments
    from resnet_cli.runtime.errors import unknown

    display = make_display(as_json, quiet, verbose)
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    papers = PAPERS if paper is None else (paper,)
    names = [name for one in papers for name in paper_experiments(one)]
    offered, left_out = _offered(names, profile, display)
    experiments = [load_experiment(name, profile, settings or (), seed) for name in offered]
    own = _own_device(device, executor)
    context = make_context(own, data_dir, download, engine, deterministic=deterministic, log=log)
    context.pretrained = pretrained
    summary: dict[str, Any] = {"command": "reproduce", "profile": profile, "not_offered": left_out}
    failures: dict[str, Failure] = {}
    ahead = _ahead(executor, ray_address, ray_cpus, shard, device)
    summary |= _carry_out(
        experiments,
        display,
        context,
        budget,
        results=results,
        failures=failures,
        ahead=ahead,
    )
    summary["failed"] = {name: str(error) for name, error in failures.items()}
    if shard is not None:
        display.summary(summary)
        _raise_first(failures)
        return
    comparisons = {}
    for one in papers:
        if any(name.startswith(f"{one}/") and name not in failures for name in offered):
            comparison = compare_paper(one, profile, results)
            show_comparison(comparison, display)
            comparisons[one] = comparison.to_dict()
    display.summary(summary | {"comparisons": comparisons})
    _raise_first(failures)


def _offered(
    names: list[str], profile: str | None, display: "Display"
) -> tuple[list[str], list[str]]:
    """Which experiments have this profile, and which have not; the latter get a line each."""
    from resnet_cli.config.experiments import experiment_profiles
    from resnet_cli.config.schema import PROFILES
    from resnet_cli.runtime.errors import unknown

    if profile is None:
        return names, []
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    profiles = {name: experiment_profiles(name) for name in names}
    offered = [name for name in names if profile in profiles[name]]
    left_out = [name for name in names if name not in offered]
    for name in left_out:
        display.paragraph(f"{name}: not offered at {profile} (it has {_list(profiles[name])})")
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
    failures: dict[str, Failure] | None = None if ahead is None else {}
    done = _carry_out(
        experiments, display, context, budget, out=out, failures=failures, ahead=ahead
    )
    summary = {"command": command} | done
    if failures is not None:
        summary["failed"] = {name: str(error) for name, error in failures.items()}
    display.summary(summary)
    _raise_first(failures or {})


def _raise_first(failures: "Mapping[str, Failure]") -> None:
    """Raise what the first experiment failed of, naming the others; nothing if none failed."""
    if failures:
        (name, error), *others = failures.items()
        more = f"; neither could {_list(other for other, _ in others)}" if others else ""
        raise type(error)(f"{name} could not run: {error}{more}")


def _own_device(device: str, executor: str) -> str:
    """This process's device: on Ray the workers have what is asked for, this one may lack it."""
    return "auto" if executor == "ray" and device == "cuda" else device


def _ahead(
    executor: str, ray_address: str | None, ray_cpus: int, shard: str | None, device: str
) -> "Ahead | None":
    """What is done before experiments are run here: all of it on Ray, or a shard's trainings.

    It returns whether to go on, and what failed of each experiment.
    """
    from resnet_cli.runtime.errors import unknown

    if executor not in ("serial", "ray"):
        raise unknown("executor", executor, ("serial", "ray"))
    if executor == "serial" and (ray_address is not None or ray_cpus != 1):
        raise UserError("--ray-address and --ray-cpus go with --executor ray")
    if executor == "ray" and shard is not None:
        raise UserError("--shard is for machines without Ray; leave out --executor ray")
    from resnet_cli.run import executors as fanout

    if shard is not None:
        number, of = fanout.parse_shard(shard)

        def train(
            experiments: list[Any],
            folders: list[Path],
            context: "Context",
            display: "Display",
            stopper: "Stopper",
        ) -> "tuple[bool, list[Failure | None]]":
            return False, fanout.train_shard(experiments, number, of, context, display, stopper)

        return train
    if executor == "serial":
        return None

    def on_ray(
        experiments: list[Any],
        folders: list[Path],
        context: "Context",
        display: "Display",
        stopper: "Stopper",
    ) -> "tuple[bool, list[Failure | None]]":
        cluster = fanout.Cluster(ray_address, ray_cpus, device)
        return True, fanout.run_on_ray(experiments, folders, context, display, stopper, cluster)

    return on_ray


def _carry_out(
    experiments: list[Any],
    display: "Display",
    context: "Context",
    budget: str | None,
    *,
    out: Path | None = None,
    results: Path | None = None,
    failures: "dict[str, Failure] | None" = None,
    ahead: "Ahead | None" = None,
) -> dict[str, Any]:
    """Run experiments and return what they found.

    Given `failures`, an experiment whose data are missing is noted there and the others go on; so
    is one that failed in what was done ahead, which asks for `failures`.
    """
    from resnet_cli.run.experiment import default_out, run_experiment

    stopper = make_stopper(budget)
    if results is None:
        folders = [writable(out or default_out(experiment)) for experiment in experiments]
    else:
        folders = [writable(default_out(e, results), "--results") for e in experiments]
    found: dict[str, Any] = {}
    with stopper.listening():
        left = list(zip(experiments, folders, strict=True))
        if ahead is not None:
            assert failures is not None
            goes_on, failed = ahead(experiments, folders, context, display, stopper)
            of_name = zip((experiment.name for experiment in experiments), failed, strict=True)
            failures |= {name: error for name, error in of_name if error is not None}
            left = [pair for pair in left if goes_on and pair[0].name not in failures]
        for experiment, folder in left:
            try:
                written = run_experiment(experiment, context, display, stopper, folder)
            except UserError as error:
                if failures is None:
                    raise
                failures[experiment.name] = error
                display.paragraph(f"{experiment.name}: {error}", level=-1)
                continue
            show_files(display, written)
            found[experiment.name] = written.facts | {
                "files": file_names(written),
                "profile": experiment.profile,
            }
    return {"experiments": found}
