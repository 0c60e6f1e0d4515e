"""The files of results that a command writes."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resnet_cli.runtime.display import Display
    from resnet_cli.studies.runner import Written


def writable(folder: Path, option: str = "--out") -> Path:
    """The folder, after checking that results can be written there, before any work is done.

    Args:
        option: the option that chooses another folder, for the message.

    Raises:
        UserError: nothing can be written there.
    """
    from resnet_cli.results.tables import check_writable

    check_writable(folder, option)
    return folder


def show_files(display: "Display", written: "Written") -> None:
    """Print a line for each file of results."""
    for path in written.kept:
        display.line(f"there already: {path}")
    for path in written.files:
        display.line(f"wrote {path}")


def file_names(written: "Written") -> list[str]:
    """All files of results, new and already there, for a summary."""
    return [str(path) for path in (*written.kept, *written.files)]
