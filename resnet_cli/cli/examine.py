"""The command `examine`: everything that paper 2 measures, on one network or two."""

from pathlib import Path
from typing import Annotated

import typer

from resnet_cli.cli.app import app, examples
from resnet_cli.cli.options import (
    AssumeOption,
    DataDirOption,
    DatasetOption,
    DeviceOption,
    DownloadOption,
    ImagesOption,
    JsonOption,
    NormalizeOption,
    QuietOption,
    StudySeedOption,
    VerboseOption,
)
from resnet_cli.cli.shared import (
    check_checkpoints,
    check_words,
    file_names,
    find_network,
    local_folder,
    make_context,
    make_display,
    make_stopper,
    show_files,
    unusual,
    writable,
)


@app.command(
    epilog=examples(
        "examine preact56-digits",
        "examine preact20-cifar10 --data-dir DATA --budget 5m",
        "examine mine.pth theirs.pth --dataset cifar10",
    )
)
def examine(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT [CHECKPOINT]",
            help="One network, or two to compare: a run's folder, a checkpoint file, or the name "
            "of bundled weights.",
        ),
    ],
    dataset: DatasetOption = None,
    normalize: NormalizeOption = None,
    model: AssumeOption = None,
    images: ImagesOption = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    device: DeviceOption = "auto",
    seed: StudySeedOption = 0,
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            metavar="TIME",
            help="About how long it may take, such as 90s or 10m: sets the numbers of images and "
            "draws. It is not cut off.",
        ),
    ] = "10m",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for the page, CSVs and plots.  [default: one below results/local/, named "
            "after the networks]",
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Examine a network: deletions, reorderings, paths, signals. Writes one HTML page."""
    check_checkpoints(checkpoints, model or ())
    check_words(dataset, normalize, device)
    from resnet_cli.report.examination import findings_of, write_examination
    from resnet_cli.results.layout import EXAMINATION_FILE
    from resnet_cli.run.examine import examine as examine_network
    from resnet_cli.runtime.interrupt import parse_duration
    from resnet_cli.studies.runner import Written

    seconds = parse_duration(budget) / len(checkpoints)
    display, stopper = make_display(as_json, quiet, verbose), make_stopper(None)
    context = make_context(device, data_dir, download)
    with stopper.listening():
        subjects = [
            find_network(
                display,
                context,
                checkpoint,
                dataset,
                normalize,
                images,
                assume=model or (),
                should_stop=stopper,
            )
            for checkpoint in checkpoints
        ]
        names = "-and-".join(subject.name for subject in subjects)
        words = {"images": images, "normalize-": normalize, "seed": unusual(seed, 0)}
        folder = writable(out or local_folder("examine", names, words))
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
                    "assumptions": {a.key: a.value for a in subject.loaded.assumptions},
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
