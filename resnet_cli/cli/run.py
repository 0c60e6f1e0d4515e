"""Commands that run experiments: run, reproduce."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from resnet_cli.cli.app import command
from resnet_cli.cli.files import file_names, show_files, writable
from resnet_cli.cli.options import OutOption, Paper, ProfileOption, complete_experiment
from resnet_cli.cli.train import TrainOptions, run_and_show
from resnet_cli.config.schema import Experiment, Profile
from resnet_cli.results.layout import RESULTS, is_provenance, repeated_folder
from resnet_cli.runtime.errors import UserError

if TYPE_CHECKING:
    from resnet_cli.run.executors import Executor
    from resnet_cli.runtime.display import Display
    from resnet_cli.training.context import Context


@dataclass
class RunOptions(TrainOptions):
    """The options that `run` and `reproduce` share."""

    executor: Annotated[
        Literal["serial", "ray"],
        typer.Option(
            "--executor", help="ray: run trainings and studies as tasks of a Ray cluster."
        ),
    ] = "serial"
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="ADDRESS",
            help="A running Ray cluster.  [default: start one on this machine]",
        ),
    ] = None
    ray_cpus: Annotated[
        int, typer.Option("--ray-cpus", min=1, metavar="N", help="CPU cores of each task on Ray.")
    ] = 1
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="I/N", help="Run only the I-th of N shares of trainings."),
    ] = None
    pretrained: Annotated[
        bool,
        typer.Option(
            "--pretrained",
            help="Use bundled weights instead of training where they exist; see `weights`.",
        ),
    ] = False

    def with_executor(self) -> "tuple[RunOptions, Executor]":
        """The executor, and the options with the device that this process uses."""
        from resnet_cli.run.executors import choose_executor

        executor = choose_executor(
            self.executor, self.shard, self.ray_address, self.ray_cpus, self.device
        )
        return replace(self, device=executor.local_device(self.device)), executor

    def context(self) -> "Context":
        return replace(super().context(), pretrained=self.pretrained)


@command(
    "run",
    "run veit2016/fig5a --profile smoke",
    "run veit2016/fig6 --profile cpu --pretrained --data-dir DATA",
    "run 'he2016/table*' --profile mini --budget 2h",
    "run results/veit2016/mini/fig7/path_survival.provenance.json",
)
def run(
    options: RunOptions,
    experiments: Annotated[
        list[str],
        typer.Argument(
            metavar="EXPERIMENT",
            help="YAML paths, names, folders, or the .provenance.json of a result.",
            autocompletion=complete_experiment,
        ),
    ],
    profile: ProfileOption = None,
    out: OutOption = None,
) -> None:
    """Run whole experiments: trainings, studies, tables, plots. Finished parts are skipped."""
    from resnet_cli.config.experiments import expand_names

    display = options.display()
    recorded = [name for name in experiments if is_provenance(name)]
    if recorded:
        if len(experiments) > 1 or profile or options.settings or options.seed is not None:
            raise UserError(
                f"{recorded[0]}: a provenance file contains all settings and is run alone; leave "
                "out --profile, --set, --seed and other experiments"
            )
        _rerun(Path(recorded[0]), *options.with_executor(), display, out)
        return
    names = expand_names(experiments)
    if len(names) > 1:  # a single experiment without this profile is an error
        names, _ = _with_profile(names, profile, display)
    loaded = [options.load(name, profile) for name in names]
    if out is not None and len(loaded) > 1:
        raise UserError("--out needs a single experiment; without it, each has its own folder")
    options, executor = options.with_executor()
    summary, failures = run_and_show(loaded, executor, options.session(display), out=out)
    display.summary({"command": "run"} | summary)
    failures.raise_first()


def _rerun(
    path: Path, options: RunOptions, executor: "Executor", display: "Display", out: Path | None
) -> None:
    """Repeat the measurement that a provenance file describes."""
    from resnet_cli.run.rerun import check_data, read_spec, rerun_study

    spec = read_spec(path)
    session = replace(
        options,
        deterministic=options.deterministic or spec.deterministic,
        engine=options.engine if spec.engine == "fast" else spec.engine,
        pretrained=options.pretrained or spec.pretrained,
    ).session(display)
    check_data(spec, session.context)
    if spec.trains:
        assert isinstance(spec.work, Experiment)
        summary, failures = run_and_show([spec.work], executor, session, out=out)
        display.summary({"command": "run"} | summary)
        failures.raise_first()
        return
    if executor.keeps_going:
        raise UserError(f"{path}: needs no training; leave out --shard and --executor")
    with session.stopper.listening():
        written = rerun_study(spec, session, writable(out or repeated_folder(path)))
    show_files(display, written)
    display.summary({"command": "run", "files": file_names(written)} | written.facts)


@command(
    "reproduce",
    "reproduce he2016 --profile smoke",
    "reproduce --profile mini --budget 150m",
    "reproduce veit2016 --profile cpu --data-dir DATA --shard 1/4",
)
def reproduce(
    options: RunOptions,
    paper: Annotated[Paper | None, typer.Argument(help="The paper.  [default: both]")] = None,
    profile: Annotated[
        Profile, typer.Option("--profile", help="How far to scale the experiments down.")
    ] = "mini",
    results: Annotated[
        Path,
        typer.Option(
            "--results",
            metavar="DIR",
            help="The folder for <paper>/<profile>/<experiment>/.",
        ),
    ] = RESULTS,
) -> None:
    """Run all experiments of a paper, then compare. If data are missing, the others still run."""
    from resnet_cli.claims.compare import compare as compare_paper
    from resnet_cli.claims.papers import PAPERS
    from resnet_cli.claims.show import show as show_comparison
    from resnet_cli.run.experiment import paper_experiments

    display = options.display()
    options, executor = options.with_executor()
    papers = PAPERS if paper is None else (paper,)
    names = [name for one in papers for name in paper_experiments(one)]
    offered, left_out = _with_profile(names, profile, display)
    summary, failures = run_and_show(
        [options.load(name, profile) for name in offered],
        executor,
        options.session(display),
        results=results,
        keep_going=True,
    )
    summary |= {"command": "reproduce", "profile": profile, "not_offered": left_out}
    if not executor.trains_only:
        comparisons: dict[str, Any] = {}
        for one in papers:
            if any(name.startswith(f"{one}/") and name not in failures for name in offered):
                comparison = compare_paper(one, profile, results)
                show_comparison(comparison, display)
                comparisons[one] = comparison.to_dict()
        summary["comparisons"] = comparisons
    display.summary(summary)
    failures.raise_first()


def _with_profile(
    names: list[str], profile: str | None, display: "Display"
) -> tuple[list[str], list[str]]:
    """The experiments that have a profile, and those that do not, which are printed."""
    from resnet_cli.config.experiments import profiles_of

    if profile is None:
        return names, []
    profiles = profiles_of(names, profile)
    left_out = [name for name in names if profile not in profiles[name]]
    for name in left_out:
        has = ", ".join(profiles[name])
        display.paragraph(f"{name}: not offered at {profile} (it has {has})")
    return [name for name in names if name not in left_out], left_out
