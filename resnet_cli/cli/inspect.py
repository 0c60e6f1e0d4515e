"""Commands that show what is available: list, show, models, data, bench, weights."""

from pathlib import Path
from typing import Annotated

import typer

from resnet_cli.bench.catalog import GPU_NAMES, NAMES
from resnet_cli.cli.app import command
from resnet_cli.cli.files import writable
from resnet_cli.cli.options import (
    DataDirOption,
    DetailOptions,
    DeviceOption,
    DownloadOption,
    ExperimentName,
    OutputOptions,
    ProfileOption,
    SeedOption,
    SetOption,
    complete_checkpoint,
    make_stopper,
    starting_with,
)
from resnet_cli.results.layout import LOCAL, RESULTS
from resnet_cli.runtime.errors import UserError, unknown


@command(
    "list",
    "list",
    "list --json",
)
def list_command(options: OutputOptions) -> None:
    """List the experiments that come with the program."""
    from resnet_cli.config.experiments import listed_experiments

    display = options.display()
    found = listed_experiments()
    rows = []
    for one in found:
        profiles: dict[str, list[str]] = {}
        for profile, about in one.profiles.items():
            time = "" if about["time"] == "seconds" else f" {about['time']}"
            profiles.setdefault(about["dataset"], []).append(f"{profile}{time}")
        shown = "; ".join(f"{data}: {', '.join(times)}" for data, times in profiles.items())
        rows.append([one.name, one.title, shown])
    display.table(
        "Experiments, with the data of each profile and the time on two cores, if not seconds",
        ["name", "title", "data: profiles"],
        rows,
    )
    display.summary(
        {
            "command": "list",
            "experiments": {one.name: one.title for one in found},
            "profiles": {one.name: one.profiles for one in found},
        }
    )


@command(
    "show",
    "show quickstart",
    "show veit2016/fig3 --profile cpu",
    "show quickstart --set train.lr=0.2",
)
def show(
    options: OutputOptions,
    experiment: ExperimentName = "quickstart",
    profile: ProfileOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
) -> None:
    """Show an experiment's configuration with all defaults."""
    import yaml

    from resnet_cli.config.experiments import load_experiment

    loaded = load_experiment(experiment, profile, settings or (), seed)
    content = loaded.model_dump(mode="json")
    display = options.display()
    display.line(f"# hash {loaded.hash}", level=-1)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    display.line(text.rstrip(), level=-1)
    display.summary({"command": "show", "hash": loaded.hash, "config": content})


@command(
    "models",
    "models",
    "models --json",
)
def models(options: OutputOptions) -> None:
    """List the papers' networks: units, layers, parameters."""
    from resnet_cli.models.catalog import catalog

    display = options.display()
    rows = catalog()
    for size in dict.fromkeys(row["input"] for row in rows):
        display.table(
            f"Networks on {size} images (multiply-adds in millions, for one image)",
            ["network", "units", "layers", "parameters", "published", "mult-adds"],
            [
                [
                    row["network"],
                    row["units"],
                    row["layers"],
                    f"{row['parameters']:,}",
                    row["published_parameters"] or "-",
                    round(row["multiply_adds"] / 1e6),
                ]
                for row in rows
                if row["input"] == size
            ],
        )
    display.summary({"command": "models", "models": rows})


def _fixed_datasets() -> list[str]:
    """The data sets that have fixed images; class folders may be anywhere."""
    from resnet_cli.datasets.catalogue import datasets

    return [entry.name for entry in datasets() if entry.is_fixed]


@command(
    "data",
    "data",
    "data cifar10 --data-dir DATA",
    "data cifar10 --download",
)
def data(
    options: DetailOptions,
    dataset: Annotated[
        str | None,
        typer.Argument(
            metavar="DATASET",
            help="The data set.  [default: all]",
            autocompletion=starting_with(_fixed_datasets),
        ),
    ] = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
) -> None:
    """Show which data sets are available, and where. --download downloads one."""
    from resnet_cli.datasets import catalogue

    entries = {name: catalogue.dataset(name) for name in _fixed_datasets()}
    if dataset is not None and dataset not in entries:
        raise unknown("data set", dataset, entries)
    display = options.display()
    root = catalogue.data_root(data_dir)
    if download:
        if dataset is None:
            raise UserError("--download needs a name: resnet-cli data cifar10 --download")
        with display.progress(f"downloading {dataset}") as update:
            entries[dataset].download(root, lambda n, done, total: update(done, total or done, n))
    wanted = list(entries) if dataset is None else [dataset]
    findings = [location for name in wanted for location in entries[name].locations(root)]
    shown = []
    for one in wanted:
        of_set = [f for f in findings if f.dataset == one]
        there = [f for f in of_set if f.state != "missing"]
        if options.verbose or (dataset is not None and not there):
            shown += of_set
        else:
            nowhere = catalogue.Location(one, f"{len(of_set)} places", "missing", "-v names them")
            shown += there or [nowhere]
    display.table(
        "Data sets",
        ["data set", "state", "place", "detail"],
        [[f.dataset, f.state, f.place, f.detail] for f in shown],
    )
    display.summary(
        {
            "command": "data",
            "found": sorted({f.dataset for f in findings if f.state == "found"}),
            "places": [vars(f) for f in findings],
        }
    )


@command(
    "bench",
    "bench",
    "bench lesion_single training_110 --repeats 5",
    "bench --small",
)
def bench(
    options: OutputOptions,
    items: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ITEM",
            help="The benchmarks.  [default: all]",
            autocompletion=starting_with(lambda: NAMES + GPU_NAMES),
        ),
    ] = None,
    repeats: Annotated[
        int,
        typer.Option("--repeats", min=1, metavar="N", help="Repeats; the median is reported."),
    ] = 3,
    small: Annotated[
        bool, typer.Option("--small", help="Tiny networks, seconds; only shows that it runs.")
    ] = False,
    device: DeviceOption = "cpu",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="[default: results/local/bench]"),
    ] = None,
) -> None:
    """Measure speed and memory, compared with plain PyTorch code."""
    from resnet_cli.bench.run import run_benchmarks
    from resnet_cli.bench.subjects import Settings
    from resnet_cli.runtime.device import pick_device

    display = options.display()
    stopper = make_stopper(None)
    folder = writable(out or RESULTS / LOCAL / "bench")
    chosen = pick_device(device)
    rows: object
    with stopper.listening():
        if chosen.type == "cuda" or set(items or ()) & set(GPU_NAMES):
            from resnet_cli.bench import gpu

            settings = gpu.Settings(chosen, small)
            files, rows = gpu.run_gpu_benchmarks(items or [], settings, folder, display, stopper)
        else:
            files, rows = run_benchmarks(
                items or [], Settings(repeats, small), folder, display, stopper
            )
    for path in files:
        display.line(f"wrote {path}")
    display.summary({"command": "bench", "files": [str(f) for f in files], "items": rows})


@command(
    "weights",
    "weights",
    "weights preact110-cifar10",
    "weights --export runs/NAME --name mine --out .",
)
def weights(
    options: DetailOptions,
    card: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Show the model card of these weights; with -v also their configuration.",
            autocompletion=complete_checkpoint,
        ),
    ] = None,
    export: Annotated[
        str | None,
        typer.Option("--export", metavar="RUN", help="Bundle the weights of a finished run."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name of the bundle, for --checkpoint NAME."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the bundle.  [default: that of the package]"
        ),
    ] = None,
    data_dir: DataDirOption = None,
) -> None:
    """List the trained networks that come with the program. --export adds one."""
    import yaml

    from resnet_cli.weights.cards import card_lines, cards, epochs_of, network_of_card

    display = options.display()
    if (export is None) != (name is None):
        raise UserError("--export RUN and --name NAME go together")
    if export is not None and name is not None:
        from resnet_cli.runtime.device import pick_device
        from resnet_cli.training.bundle import bundle
        from resnet_cli.training.context import Context

        context = Context(pick_device("cpu"), data_dir)
        with display.progress(f"evaluating {export} in float16") as update:
            path = bundle(context, export, name, out, report=update)
        display.line(f"wrote {path}")
    found = cards()
    if card is not None:
        chosen = next((c for c in found if c["name"] == card), None)
        if chosen is None:
            raise unknown("bundled weights", card, [c["name"] for c in found])
        for heading, text in card_lines(chosen):
            display.paragraph(f"{heading + ':':<14}{text}", hang=14, level=-1)
        configuration = yaml.safe_dump(chosen["run"], sort_keys=False, allow_unicode=True)
        display.line(f"\n{configuration.rstrip()}", level=1)
        display.summary({"command": "weights", "weights": [chosen]})
        return
    display.table(
        "Bundled weights",
        ["name", "network", "error (%)", "epochs"],
        [[c["name"], network_of_card(c), c["test_error"], epochs_of(c)] for c in found],
    )
    display.summary({"command": "weights", "weights": found})
