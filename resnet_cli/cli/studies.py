"""Commands on one network: eval, lesion, paths, signal."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from resnet_cli.cli import completion
from resnet_cli.cli.app import app, examples
from resnet_cli.cli.options import (
    BudgetOption,
    CheckpointOption,
    DataDirOption,
    DatasetOption,
    DeviceOption,
    DownloadOption,
    EngineOption,
    ImagesOption,
    JsonOption,
    LocalOutOption,
    NormalizeOption,
    ProfileOption,
    QuietOption,
    SetOption,
    StudySeedOption,
    VerboseOption,
)
from resnet_cli.cli.shared import (
    file_names,
    find_network,
    local_folder,
    make_context,
    make_display,
    make_stopper,
    range_of,
    show_files,
    span,
    unusual,
    writable,
)
from resnet_cli.runtime.errors import UserError

if TYPE_CHECKING:
    from resnet_cli.runtime.display import Display
    from resnet_cli.studies.runner import AnyStudy
    from resnet_cli.training.context import Context

SAMPLES = 20
BATCH_SIZE = 128
TOP5_FROM = 100
"""Classes from which the top-5 error is told."""


@app.command(
    name="eval",
    epilog=examples(
        "eval",
        "eval --checkpoint preact110-cifar10 --data-dir DATA",
        "eval --checkpoint x.th --normalize imagenet --data-dir DATA",
    ),
)
def evaluate_command(
    checkpoint: CheckpointOption = None,
    dataset: DatasetOption = None,
    normalize: NormalizeOption = None,
    images: ImagesOption = None,
    test_size: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="imagefolder: side of the centre crop, 224 or 320 in paper 1."
        ),
    ] = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Measure a network's test error and loss. From 100 classes on the top-5 error too."""
    from resnet_cli.runtime.interrupt import watched
    from resnet_cli.training.evaluation import evaluate

    display = make_display(as_json, quiet, verbose)
    context = make_context(device, data_dir, download)
    subject = find_network(display, context, checkpoint, dataset, normalize, images, test_size)
    batches = subject.batches("test")
    stopper = make_stopper(None)
    with stopper.listening(), display.progress(f"evaluating {subject.label}") as update:
        report = watched(update, stopper, "stopped; nothing was measured")
        result = evaluate(subject.loaded.network, batches, report=report)
    chance = 100.0 * (1 - 1 / subject.loaded.num_classes)
    display.line(f"test error {result.error:.2f} % on {result.images:,} images", level=-1)
    top5_error = result.top5_error if subject.loaded.num_classes >= TOP5_FROM else None
    if top5_error is not None:
        display.line(f"top-5 error {top5_error:.2f} %", level=-1)
    display.line(f"loss {result.loss:.4f}", level=-1)
    if result.error > 0.8 * chance:
        display.paragraph(
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
            "top5_error": top5_error,
            "loss": result.loss,
        }
    )


@app.command(
    epilog=examples(
        "lesion --blocks 1 --ranked",
        "lesion --blocks 1-20 --samples 50",
        "lesion --only 4,17 --per-class",
        "lesion --reorder 1-20",
        "lesion --greedy 20",
        "lesion --additivity 2-10",
        "lesion --checkpoint preact110-cifar10 --data-dir DATA",
    )
)
def lesion(
    blocks: Annotated[
        str | None,
        typer.Option(
            metavar="K|K1-K2",
            help="Delete so many random units; 1 deletes each in turn.  [default: 1]",
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, metavar="N", help="Draws for each number of units.")
    ] = SAMPLES,
    only: Annotated[
        str | None, typer.Option(metavar="UNITS", help="Delete just these units, together.")
    ] = None,
    reorder: Annotated[
        str | None, typer.Option(metavar="N|N1-N2", help="Swap so many pairs of equal shape.")
    ] = None,
    greedy: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Delete the least harmful unit, N times; beside random ones."
        ),
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
    out: LocalOutOption = None,
    budget: BudgetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Delete or reorder units and measure the test error."""
    from resnet_cli.config.schema import AdditivityStudy, DeleteStudy, GreedyStudy, ReorderStudy

    if sum(option is not None for option in (blocks, only, reorder, greedy, additivity)) > 1:
        raise UserError(
            "--blocks, --only, --reorder, --greedy and --additivity exclude each other; give one"
        )
    deletes = all(option is None for option in (reorder, greedy, additivity))
    for name, given in (("--per-class", per_class), ("--ranked", ranked)):
        if given and not deletes:
            raise UserError(f"{name} goes with --blocks or --only")
    study: AnyStudy
    question: dict[str, object]
    if reorder is not None:
        swaps = range_of("--reorder", reorder)
        study = ReorderStudy(kind="reorder", swaps=swaps, samples=samples)
        question = {"reorder": span(swaps)}
    elif greedy is not None:
        study = GreedyStudy(kind="greedy", max_units=greedy, samples=samples)
        question = {"greedy": greedy}
    elif additivity is not None:
        k = range_of("--additivity", additivity)
        if min(k) < 2:
            raise UserError("--additivity starts at 2: one unit's damage is its own sum")
        study = AdditivityStudy(kind="additivity", k=k, samples=samples)
        question = {"additivity": span(k)}
    else:
        k = range_of("--blocks", "1" if blocks is None else blocks)
        study = DeleteStudy(kind="delete", k=k, samples=samples, per_class=per_class)
        question = {"blocks": span(k)}
    together = None if only is None else range_of("--only", only)
    if together is not None:
        question = {"only": span(together)}
    _study(
        study,
        question | {"samples": unusual(samples, SAMPLES), "per-class": per_class},
        display=make_display(as_json, quiet, verbose),
        subject=(
            make_context(device, data_dir, download, engine),
            checkpoint,
            dataset,
            normalize,
            images,
        ),
        seed=seed,
        out=out,
        budget=budget,
        command="lesion",
        only=together,
        ranked=ranked,
    )


@app.command(
    epilog=examples(
        "paths",
        "paths --k 10 --samples 1000",
        "paths --exact --stages",
        "paths --lengths",
        "paths --exact --estimator image",
    )
)
def paths(
    k: Annotated[
        str | None,
        typer.Option("--k", metavar="K|K1-K2", help="Path lengths to sample.  [default: all]"),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, metavar="N", help="Sampled paths for each length.")
    ] = SAMPLES,
    exact: Annotated[
        bool, typer.Option("--exact", help="Add the exact spectrum: all paths of each length.")
    ] = False,
    estimator: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="batch: one path for a batch, as published; image: one for each image.",
            autocompletion=completion.estimators,
        ),
    ] = "batch",
    stages: Annotated[
        bool, typer.Option("--stages", help="Add the exact spectrum of each stage.")
    ] = False,
    unit: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="UNIT", help="Add the exact spectrum at this unit's parameters."
        ),
    ] = None,
    lengths: Annotated[
        bool, typer.Option("--lengths", help="Only the number of paths by length.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Images in a sample's batch.")
    ] = BATCH_SIZE,
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
    out: LocalOutOption = None,
    budget: BudgetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Measure path lengths and the gradient by path length."""
    from resnet_cli.config.schema import PathsStudy

    if estimator not in ("batch", "image"):
        raise UserError(f"--estimator {estimator}: use batch or image")
    if lengths:
        for name, given in (
            ("--k", k is not None),
            ("--exact", exact),
            ("--stages", stages),
            ("--unit", unit is not None),
            ("--batch-statistics", batch_statistics),
        ):
            if given:
                raise UserError(
                    f"--lengths and {name} exclude each other: --lengths only counts paths, no "
                    "gradient is measured"
                )
    if batch_statistics and (exact or stages or unit is not None):
        raise UserError(
            "the exact spectrum is by running statistics, with which images do not see one "
            "another; it would not compare with samples by --batch-statistics"
        )
    ks = None if k is None else range_of("--k", k)
    study = PathsStudy(
        kind="paths",
        k=ks,
        samples=samples,
        batch_size=batch_size,
        estimator=cast('Literal["batch", "image"]', estimator),
        exact=exact,
        stages=stages,
        unit=unit,
        lengths_only=lengths,
    )
    question = {
        "k": None if ks is None else span(ks),
        "lengths": lengths,
        "exact": exact,
        "stages": stages,
        "unit": unit,
        "samples": unusual(samples, SAMPLES),
        "estimator-": unusual(estimator, "batch"),
        "batch": unusual(batch_size, BATCH_SIZE),
        "batch-statistics": batch_statistics,
    }
    _study(
        study,
        question,
        display=make_display(as_json, quiet, verbose),
        subject=(
            make_context(device, data_dir, download, engine),
            checkpoint,
            dataset,
            normalize,
            None,
        ),
        seed=seed,
        out=out,
        budget=budget,
        command="paths",
        batch_statistics=batch_statistics,
    )


@app.command(
    epilog=examples(
        "signal",
        "signal --checkpoint preact110-cifar10 --data-dir DATA",
        "signal he2016/table1 --profile mini",
    )
)
def signal(
    experiment: Annotated[
        str | None,
        typer.Argument(
            metavar="EXPERIMENT",
            help="Measure every network of an experiment instead; nothing is trained.",
            autocompletion=completion.experiments,
        ),
    ] = None,
    profile: ProfileOption = None,
    settings: SetOption = None,
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Training images in the batch.")
    ] = BATCH_SIZE,
    checkpoint: CheckpointOption = None,
    dataset: DatasetOption = None,
    normalize: NormalizeOption = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    device: DeviceOption = "auto",
    seed: StudySeedOption = 0,
    out: LocalOutOption = None,
    budget: BudgetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Measure activations and gradients unit by unit. Untrained and trained; shortcuts' factors."""
    from resnet_cli.config.experiments import load_experiment
    from resnet_cli.config.schema import SignalStudy

    display = make_display(as_json, quiet, verbose)
    context = make_context(device, data_dir, download)
    study = SignalStudy(kind="signal", batch_size=batch_size)
    question: dict[str, object] = {"batch": unusual(batch_size, BATCH_SIZE)}
    of_networks: tuple[tuple[str, object], ...] = (
        ("--checkpoint", checkpoint),
        ("--dataset", dataset),
        ("--normalize", normalize),
        ("--seed", unusual(seed, 0)),
    )
    if experiment is None:
        for name, of_experiment in (("--profile", profile), ("--set", settings)):
            if of_experiment:
                raise UserError(f"{name} goes with an EXPERIMENT: resnet-cli signal quickstart")
        subject = (context, checkpoint, dataset, normalize, None)
        _study(
            study,
            question,
            display=display,
            subject=subject,
            seed=seed,
            out=out,
            budget=budget,
            command="signal",
        )
        return
    for name, given in of_networks:
        if given is not None:
            raise UserError(f"{name} and an EXPERIMENT exclude each other")
    from resnet_cli.run.experiment import measure_signals

    loaded = load_experiment(experiment, profile, settings or ())
    question = {loaded.profile: True, "set-": loaded.hash[:8] if settings else None} | question
    loaded = loaded.model_copy(update={"study": study})
    folder = writable(out or local_folder("signal", loaded.name, question))
    stopper = make_stopper(budget)
    with stopper.listening():
        written = measure_signals(loaded, context, display, stopper, folder)
    show_files(display, written)
    display.summary(
        {
            "command": "signal",
            "experiment": loaded.name,
            "profile": loaded.profile,
            "files": file_names(written),
        }
        | written.facts
    )


def _study(
    study: "AnyStudy",
    question: Mapping[str, object],
    *,
    display: "Display",
    subject: "tuple[Context, str | None, str | None, str | None, int | None]",
    seed: int,
    out: Path | None,
    budget: str | None,
    command: str,
    **options: Any,
) -> None:
    """Ask a study of a network; `question` has the options that name the folder by default."""
    from resnet_cli.studies.runner import run_study

    context, _, _, normalize, images = subject
    question = dict(question) | {
        "images": images,
        "normalize-": normalize,
        "seed": unusual(seed, 0),
        context.engine: context.engine != "fast",
    }
    stopper = make_stopper(budget)
    with stopper.listening():
        found = find_network(display, *subject)
        folder = writable(out or local_folder(command, found.name, question))
        written = run_study(
            found,
            study,
            seed=seed,
            out=folder,
            display=display,
            should_stop=stopper,
            **options,
        )
    show_files(display, written)
    display.summary(
        {
            "command": command,
            "checkpoint": found.loaded.source,
            "dataset": found.data.dataset,
            "files": file_names(written),
        }
        | written.facts
    )
