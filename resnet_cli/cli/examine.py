"""Commands that evaluate a whole network: eval, examine."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from resnet_cli.cli.app import command
from resnet_cli.cli.files import file_names, show_files, writable
from resnet_cli.cli.network import NetworkOptions, find_network
from resnet_cli.cli.options import StudySeedOption, complete_checkpoint, make_stopper
from resnet_cli.config.fields import chance_error
from resnet_cli.results.layout import EXAMINATION_FILE
from resnet_cli.runtime.errors import UserError


@command(
    "eval",
    "eval",
    "eval --checkpoint preact110-cifar10 --data-dir DATA",
    "eval --checkpoint x.th --normalize imagenet --data-dir DATA",
)
def evaluate(
    options: NetworkOptions,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            metavar="PATH|NAME",
            help="Weights: the folder of a run, a checkpoint file, or a bundled name.  "
            "[default: the newest finished run, or else bundled weights]",
            autocompletion=complete_checkpoint,
        ),
    ] = None,
    test_size: Annotated[
        int | None,
        typer.Option(
            "--test-size",
            min=1,
            metavar="N",
            help="imagefolder: side of the centre crop; 224 or 320 in paper 1.",
        ),
    ] = None,
) -> None:
    """Measure a network's test error and loss. With 100 classes or more, also the top-5 error."""
    options.check_checkpoints([checkpoint] if checkpoint is not None else [])
    from resnet_cli.runtime.interrupt import interruptible
    from resnet_cli.studies.finite import check_outputs
    from resnet_cli.training import evaluation

    display, stopper = options.display(), make_stopper(None)
    with stopper.listening():
        subject = find_network(
            checkpoint,
            options,
            options.context(),
            display,
            test_size=test_size,
            should_stop=stopper,
        )
    loaded = subject.loaded
    batches = subject.batches("test")
    line = subject.other_images("test")
    if line is not None:
        display.paragraph(line)
    with stopper.listening(), display.progress(f"evaluating {subject.label}") as update:
        report = interruptible(update, stopper, "stopped; nothing was measured")
        result = evaluation.evaluate(loaded.network, batches, report=report)
    if not math.isfinite(result.loss):
        check_outputs(subject, "test")
        raise UserError(f"{loaded.source}: its loss on these images is {result.loss}")
    display.line(f"test error {result.error:.2f} % on {result.images:,} images", level=-1)
    has_top5 = loaded.num_classes >= evaluation.TOP5_FROM
    if has_top5:
        display.line(f"top-5 error {result.top5_error:.2f} %", level=-1)
    display.line(f"loss {result.loss:.4f}", level=-1)
    chance = chance_error(loaded.num_classes)
    if loaded.run is None and result.error > 0.8 * chance:
        display.paragraph(
            f"hint: guessing gives {chance:.0f} %; were these weights trained with another "
            "normalisation? Try --normalize imagenet or --normalize cifar",
            level=-1,
        )
        if loaded.assumptions:
            listed = ", ".join(map(str, loaded.assumptions))
            display.paragraph(f"or is one of these assumptions wrong: {listed}?", level=-1)
    display.summary(
        {
            "command": "eval",
            "checkpoint": loaded.source,
            "dataset": subject.data.dataset,
            "images": result.images,
            "test_error": result.error,
            "top5_error": result.top5_error if has_top5 else None,
            "loss": result.loss,
            "assumptions": _values(loaded.assumptions),
        }
    )


@command(
    "examine",
    "examine preact56-digits",
    "examine preact20-cifar10 --data-dir DATA --budget 5m",
    "examine mine.pth theirs.pth --dataset cifar10",
)
def examine(
    options: NetworkOptions,
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT [CHECKPOINT]",
            help="One network, or two to compare: the folder of a run, a checkpoint file, or the "
            "name of bundled weights.",
        ),
    ],
    seed: StudySeedOption = 0,
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            metavar="TIME",
            help="About how long it may take, such as 90s or 10m; determines the numbers of images "
            "and draws. Nothing is cut off.",
        ),
    ] = "10m",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for the page, CSVs and plots.  [default: a folder in results/local/, "
            "named after the networks]",
        ),
    ] = None,
) -> None:
    """Examine a network: deletions, reorderings, paths, signals. Writes one HTML page."""
    from resnet_cli.runtime.interrupt import parse_duration

    if len(checkpoints) > 2:
        raise UserError(f"{len(checkpoints)} checkpoints; the page has one, or two side by side")
    options.check_checkpoints(checkpoints)
    seconds = parse_duration(budget) / len(checkpoints)
    from resnet_cli.report.examination import findings_of, write_examination
    from resnet_cli.run.examine import DEFAULT_BUDGET
    from resnet_cli.run.examine import examine as examine_network
    from resnet_cli.studies.runner import Written
    from resnet_cli.studies.subject import check_names, results_folder

    display, stopper = options.display(), make_stopper(None)
    context = options.context()
    with stopper.listening():
        subjects = [
            find_network(checkpoint, options, context, display, should_stop=stopper)
            for checkpoint in checkpoints
        ]
        check_names(subjects)
        words = {
            "images": options.images,
            "normalize-": options.normalize,
            "seed": seed or None,
            "budget": budget if parse_duration(budget) != DEFAULT_BUDGET else None,
            **{f"{key}-": value for key, value in options.overrides.items()},
        }
        folder = writable(out or results_folder("examine", subjects, words))
        written, examined, facts = Written(), [], []
        for subject in subjects:
            own = folder / subject.name if len(subjects) > 1 else folder
            one, files = examine_network(subject, own, display, stopper, budget=seconds, seed=seed)
            written.files += files.files
            written.kept += files.kept
            examined.append(one)
            found = findings_of(one)
            facts.append(
                {
                    "checkpoint": subject.loaded.source,
                    "dataset": subject.data.dataset,
                    "assumptions": _values(subject.loaded.assumptions),
                }
                | files.facts
                | {"findings": found}
            )
            display.table(
                f"{subject.label}: findings of paper 2",
                ["finding", "here", "evidence"],
                [[f["text"], f["verdict"], f["evidence"]] for f in found],
            )
        written.files.append(write_examination(examined, folder / EXAMINATION_FILE))
    show_files(display, written)
    display.summary({"command": "examine", "networks": facts, "files": file_names(written)})


def _values(assumptions: Any) -> dict[str, str]:
    return {assumption.key: assumption.value for assumption in assumptions}
