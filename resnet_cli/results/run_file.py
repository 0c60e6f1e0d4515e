"""run.json, which marks a finished run: its configuration, its results and hashes of its files.

Runs of the first edition have no hashes; only the types of their values are checked.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from resnet_cli.results.layout import RUN_FILE
from resnet_cli.results.tables import atomic_write
from resnet_cli.runtime.errors import UserError, one_line

MAX_BYTES = 1 << 28


def damaged_run(folder: Path, why: str) -> UserError:
    """The error for a run that cannot be used."""
    return UserError(
        f"{folder}: {why}; train the experiment again (train or run), which replaces the run, or "
        "remove the folder"
    )


def write_run_file(folder: Path, content: Mapping[str, Any], names: Iterable[str]) -> None:
    """Write run.json, including the SHA-256 of the named files and of its own content.

    Raises:
        UserError: run.json cannot be written, or a named file cannot be read.
    """
    files = {name: _sha256(folder, name) for name in names}
    whole = {**content, "files": files}
    whole["sha256"] = _digest(whole)
    atomic_write(folder / RUN_FILE, json.dumps(whole, indent=1) + "\n")


def read_run_file(folder: Path) -> dict[str, Any] | None:
    """The content of a folder's run.json without its own hash; None if there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / RUN_FILE
    try:
        if not path.exists():
            return None
        if not path.is_file():
            raise damaged_run(folder, f"{RUN_FILE} is not a regular file")
        if path.stat().st_size > MAX_BYTES:
            raise damaged_run(folder, f"{RUN_FILE} is larger than {MAX_BYTES:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
        recorded = content.pop("sha256", None)
        if recorded is not None and recorded != _digest(content):
            raise damaged_run(folder, f"{RUN_FILE} was changed after the training wrote it")
    except UserError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise damaged_run(folder, f"{RUN_FILE} cannot be read: {one_line(error, 120)}") from None
    return content


def check_files(folder: Path, content: Mapping[str, Any], *names: str) -> None:
    """Compare files with their hashes in run.json; files without a hash are not checked.

    Args:
        content: the content of run.json (`read_run_file`).
        names: files of the folder; by default all those in run.json.

    Raises:
        UserError: a file is missing or differs.
    """
    files = content.get("files", {})
    if not isinstance(files, dict):
        raise damaged_run(folder, f"{RUN_FILE}: files: expected a JSON object")
    for name in names or files:
        if name in files and _sha256(folder, name) != files[name]:
            raise damaged_run(folder, f"{name} was changed after the training wrote it")


def _sha256(folder: Path, name: str) -> str:
    if (folder / name).exists() and not (folder / name).is_file():
        raise damaged_run(folder, f"{name} is not a regular file")
    try:
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise damaged_run(folder, f"{name}: {error.strerror}") from None


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
