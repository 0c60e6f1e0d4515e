"""The options of commands on one network, and the lines that say which network it is."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from resnet_cli.cli.options import WorkOptions, starting_with
from resnet_cli.config.fields import NORMALIZATIONS
from resnet_cli.config.registry import DATASETS
from resnet_cli.runtime.errors import UserError, unknown
from resnet_cli.weights.assumptions import parse_overrides
from resnet_cli.weights.cards import bundled_path

if TYPE_CHECKING:
    from resnet_cli.runtime.display import Display
    from resnet_cli.studies.subject import Subject
    from resnet_cli.training.context import Context


@dataclass
class NetworkOptions(WorkOptions):
    """The data of a network, and what its file does not state."""

    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            metavar="NAME",
            help=f"{', '.join(DATASETS)}.  [default: that of the training]",
            autocompletion=starting_with(lambda: DATASETS),
        ),
    ] = None
    normalize: Annotated[
        str | None,
        typer.Option(
            "--normalize",
            metavar="NAME|M1,M2,M3/S1,S2,S3",
            help="imagenet, cifar, channel, pixel, none, or means and standard deviations.  "
            "[default: that of the training]",
            autocompletion=starting_with(lambda: NORMALIZATIONS[:-1]),
        ),
    ] = None
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="KEY=VALUE",
            help="A property that third-party weights do not determine, such as stride_in=1x1; "
            "repeatable.  [default: assumed and reported]",
        ),
    ] = None
    images: Annotated[
        int | None,
        typer.Option(
            "--images", min=1, metavar="N", help="Use only the first N test images.  [default: all]"
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataset is not None and self.dataset not in DATASETS:
            raise unknown("data set", self.dataset, DATASETS)
        name = self.normalize
        if name is not None and "/" not in name and name.strip() not in NORMALIZATIONS:
            raise unknown("normalisation", name, NORMALIZATIONS)
        self.overrides = parse_overrides(self.model or ())

    def check_checkpoints(self, references: Sequence[str]) -> None:
        """Check the networks of a command.

        Raises:
            UserError: one is given twice or does not exist, or `--model` is given with several.
        """
        for reference in references:
            if references.count(reference) > 1:
                raise UserError(f"{reference} is given twice; give different networks")
        if self.model and len(references) > 1:
            raise UserError("--model needs a single checkpoint; measure the networks one by one")
        for reference in references:
            if not os.path.lexists(reference):
                bundled_path(reference)


def find_network(
    reference: str | None,
    options: NetworkOptions,
    context: "Context",
    display: "Display",
    *,
    test_size: int | None = None,
    should_stop: "Callable[[], bool] | None" = None,
) -> "Subject":
    """The network that a command measures; prints which one it is and what is assumed about it.

    Args:
        reference: the checkpoint; None: the newest finished run, or else bundled weights.
        should_stop: if given, values that the file does not determine are tried on labelled images
            (`resnet_cli.studies.alternatives`), until this returns True.
    """
    from resnet_cli.studies.subject import find_subject
    from resnet_cli.weights.cards import unusual_width

    normalize = options.normalize
    subject = find_subject(
        context,
        reference,
        options.dataset,
        normalize,
        options.images,
        test_size,
        options.overrides,
    )
    loaded = subject.loaded
    kind = "as inferred from its file" if loaded.assumptions else "adapted"
    if loaded.model is not None:
        kind = "vgg, plain" if loaded.is_plain else f"resnet, {loaded.model.placement}"
        width = unusual_width(loaded.model)
        kind += f", {width}" if width else ""
    # Even --quiet prints which network was chosen, unless the command line names it.
    level = 0 if reference is not None else -1
    display.paragraph(
        f"network: {loaded.label} ({kind}, {len(loaded.network.units)} units) from {loaded.source}",
        level=level,
    )
    if reference is None and loaded.outcome.get("profile") == "smoke":
        display.paragraph(
            "this is the newest run, which was trained for seconds (profile smoke): its numbers "
            "only show that the code runs; choose another network with --checkpoint",
            level=level,
        )
    if loaded.assumptions:
        listed = ", ".join(map(str, loaded.assumptions))
        display.paragraph(f"not stated in the file: {listed}; --model KEY=VALUE overrides it")
    for note in loaded.notes:
        display.paragraph(note)
    normalized = normalize or subject.data.explicit().normalize
    if normalize is None and loaded.run is None and loaded.normalization is not None:
        normalized = "what the file states"
    display.paragraph(f"data: {subject.data.dataset}, normalised by {normalized}")
    if normalize is None and loaded.normalization is None:
        display.paragraph(
            "the file does not state how the inputs were normalised in training; if this is not "
            "right, use --normalize"
        )
    if should_stop is not None and loaded.assumptions:
        return _with_alternatives(display, subject, should_stop)
    return subject


def _with_alternatives(
    display: "Display", subject: "Subject", should_stop: "Callable[[], bool]"
) -> "Subject":
    """The subject with the assumed values that give a clearly lower test error; prints them."""
    from resnet_cli.studies.alternatives import try_alternatives

    with display.progress("trying other assumptions on test images") as update:
        subject, trials = try_alternatives(subject, should_stop, update)
    for trial in trials:
        display.paragraph(str(trial), level=-1 if trial.is_taken else 1)
    if trials and not any(trial.is_taken for trial in trials):
        keys = ", ".join(sorted({trial.assumption.key for trial in trials}))
        display.paragraph(f"tried on test images: no other value of {keys} is clearly better")
    return subject
