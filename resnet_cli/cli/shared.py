"""What the commands share: from options to the objects they stand for."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from resnet_cli.config.fields import NORMALIZATIONS
from resnet_cli.config.registry import DATASETS
from resnet_cli.runtime import processes
from resnet_cli.runtime.errors import UserError, unknown
from resnet_cli.weights.cards import bundled_path

if TYPE_CHECKING:
    from resnet_cli.runtime.display import Display
    from resnet_cli.runtime.engine import Engine
    from resnet_cli.runtime.interrupt import Stopper
    from resnet_cli.studies.runner import Written
    from resnet_cli.studies.subject import Subject
    from resnet_cli.training.context import Context
    from resnet_cli.training.epoch_log import LogName

T = TypeVar("T")


def make_display(as_json: bool, quiet: bool = False, verbose: bool = False) -> "Display":
    """What speaks for the command; nothing in the other processes of torchrun."""
    from resnet_cli.runtime.display import Display

    silent = processes.rank() > 0
    return Display(as_json=as_json, verbosity=int(verbose) - int(quiet), silent=silent)


def make_context(
    device: str,
    data_dir: Path | None,
    download: bool,
    engine: "Engine" = "fast",
    *,
    deterministic: bool = False,
    log: "LogName | None" = None,
) -> "Context":
    """Where the command works.

    Raises:
        UserError: there is no such device, or what the log needs is not installed.
    """
    from resnet_cli.runtime.device import pick_device
    from resnet_cli.training.context import Context
    from resnet_cli.training.epoch_log import check_log

    check_log(log)
    return Context(
        pick_device(device, deterministic=deterministic),
        data_dir,
        download,
        engine=engine,
        deterministic=deterministic,
        log=log,
    )


def make_stopper(budget: str | None) -> "Stopper":
    """What ends the command: a signal while it listens, or `--budget`.

    Raises:
        UserError: the budget is no duration.
    """
    from resnet_cli.runtime.interrupt import Stopper, parse_duration

    return Stopper(None if budget is None else parse_duration(budget))


def check_checkpoint(reference: str | None) -> None:
    """Refuse a name that is neither a file nor bundled weights, before torch loads.

    Raises:
        UserError: there is no such file or name.
    """
    if reference is not None and not os.path.lexists(reference):
        bundled_path(reference)


def check_words(dataset: str | None, normalize: str | None, device: str) -> None:
    """Check the names that are known without the data, before torch loads.

    Raises:
        UserError: there is no such data set, normalisation or device.
    """
    if dataset is not None and dataset not in DATASETS:
        raise unknown("data set", dataset, DATASETS)
    if normalize is not None and "/" not in normalize and normalize.strip() not in NORMALIZATIONS:
        raise unknown("normalisation", normalize, NORMALIZATIONS)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise UserError(f"--device {device}: use auto, cpu, cuda or cuda:n")


def check_checkpoints(references: Sequence[str], assume: Sequence[str]) -> None:
    """Check the networks of a command that takes one, or two to compare, before torch loads.

    Raises:
        UserError: there are more, both are the same, one does not exist, or `--model` says of two
            what only one of them may need.
    """
    if len(references) > 2:
        raise UserError(f"{len(references)} checkpoints; name one, or two to compare")
    if len(set(references)) < len(references):
        raise UserError(f"{references[0]} is given twice; name two different networks")
    if assume and len(references) > 1:
        raise UserError("--model goes with one checkpoint; measure the networks one by one")
    for reference in references:
        check_checkpoint(reference)


def find_network(
    display: "Display",
    context: "Context",
    checkpoint: str | None,
    dataset: str | None,
    normalize: str | None,
    images: int | None,
    test_size: int | None = None,
    assume: Sequence[str] = (),
    should_stop: "Callable[[], bool] | None" = None,
) -> "Subject":
    """The network a study is about, with lines that say which and what it is.

    Args:
        assume: the texts of `--model`.
        should_stop: if given, what the file does not tell is tried on labelled images
            (`resnet_cli.studies.alternatives`) until this returns true.
    """
    from resnet_cli.studies.subject import find_subject
    from resnet_cli.weights.assumptions import parse_overrides
    from resnet_cli.weights.cards import unusual_width

    overrides = parse_overrides(assume)
    subject = find_subject(context, checkpoint, dataset, normalize, images, test_size, overrides)
    loaded = subject.loaded
    kind = "as the file has it" if loaded.assumptions else "adapted"
    if loaded.model is not None:
        kind = "vgg, plain" if loaded.is_plain else f"resnet, {loaded.model.placement}"
        width = unusual_width(loaded.model)
        kind += f", {width}" if width else ""
    # Which network was chosen is said even with --quiet when the command line does not name one.
    level = 0 if checkpoint is not None else -1
    display.paragraph(
        f"network: {loaded.label} ({kind}, {len(loaded.network.units)} units) from {loaded.source}",
        level=level,
    )
    if checkpoint is None and loaded.outcome.get("profile") == "smoke":
        display.paragraph(
            "this is the newest run and was trained for seconds (profile smoke): its numbers only "
            "show that the code runs; name another network by --checkpoint",
            level=level,
        )
    if loaded.assumptions:
        listed = ", ".join(map(str, loaded.assumptions))
        display.paragraph(f"not told by the file: {listed}; --model KEY=VALUE overrides it")
    for note in loaded.notes:
        display.paragraph(note)
    normalized = normalize or subject.data.explicit().normalize
    if normalize is None and loaded.run is None and loaded.normalization is not None:
        normalized = "what the file states"
    display.paragraph(f"data: {subject.data.dataset}, normalised by {normalized}")
    if normalize is None and loaded.normalization is None:
        display.paragraph(
            "these weights do not say how their inputs were normalised; if otherwise, name it by "
            "--normalize"
        )
    if should_stop is not None:
        subject = _tried(display, subject, should_stop)
    return subject


def _tried(display: "Display", subject: "Subject", should_stop: "Callable[[], bool]") -> "Subject":
    """The subject with the assumptions that labelled images clearly support, and lines that say
    so."""
    if not subject.loaded.assumptions:
        return subject
    from resnet_cli.studies.alternatives import try_alternatives

    with display.progress("trying what the file does not state on test images") as update:
        subject, trials = try_alternatives(subject, should_stop, update)
    for trial in trials:
        display.paragraph(str(trial), level=-1 if trial.is_taken else 1)
    if trials and not any(trial.is_taken for trial in trials):
        keys = ", ".join(sorted({trial.assumption.key for trial in trials}))
        display.paragraph(f"tried on test images: no other value of {keys} is clearly better")
    return subject


def writable(folder: Path, option: str = "--out") -> Path:
    """A folder for results, refused before the work when it could not take them.

    Args:
        option: names another folder.
    """
    from resnet_cli.results.tables import check_writable

    check_writable(folder, option)
    return folder


def range_of(option: str, text: str) -> tuple[int, ...]:
    """The numbers that an option's text names: `3`, `1-20`, `4,17`.

    Raises:
        UserError: it names none; the line begins with the option.
    """
    from resnet_cli.config.fields import parse_range

    try:
        return parse_range(text)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None


def span(numbers: tuple[int, ...]) -> str:
    """Rising numbers as `range_of` takes them, one text for one set: `1-3,5`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def unusual(value: T, usual: T) -> T | None:
    """The value, if it is not the usual one."""
    return None if value == usual else value


def local_folder(command: str, name: str, question: Mapping[str, object]) -> Path:
    """Where the results of a command typed by hand go: a folder for each question, so that none
    takes the place of another's answer.

    Args:
        name: of the weights or the experiment.
        question: what was asked, by option. Those that are None or False are left out, of those
            that are True only the option's name stands there.
    """
    words = [
        option if value is True else f"{option}{value}"
        for option, value in question.items()
        if value is not None and value is not False
    ]
    return Path("results/local") / "-".join([command, name, *words]).replace("/", "-")


def show_files(display: "Display", written: "Written") -> None:
    """A line for each file of results."""
    for path in written.kept:
        display.line(f"there already: {path}")
    for path in written.files:
        display.line(f"wrote {path}")


def file_names(written: "Written") -> list[str]:
    """All files of results for a summary, written now or there already."""
    return [str(path) for path in (*written.kept, *written.files)]
