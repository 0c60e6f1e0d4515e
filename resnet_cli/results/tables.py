"""Reading and writing tables, and writing files safely. Columns: `resnet_cli.results.columns`.

A table is tidy: one measurement per row, columns in a fixed order, floats written by `repr` (so
that they are read back to the last bit), missing floats empty. Errors and agreement are
percentages; shares and fractions range from 0 to 1. Next to each table is its `.provenance.json`.
results/README.md gives the meaning of each column.
"""

import contextlib
import csv
import errno
import hashlib
import io
import itertools
import math
import operator
import os
import re
import stat
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas

from resnet_cli.results.columns import Column, table_of
from resnet_cli.results.layout import provenance_path
from resnet_cli.results.provenance import (
    Provenance,
    TableFile,
    check_types,
    explicit_config,
    read_json_object,
)
from resnet_cli.runtime.errors import UserError, shortened
from resnet_cli.runtime.text import visible

UNITS = re.compile(r"([0-9]{1,6}( [0-9]{1,6})*)?")
"""The valid values of a column of units."""
STATUSES = ("ok", "fail", "diverged")
FORMULA = ("=", "+", "-", "@", "'")
"""Text that begins with one of these characters is written with an apostrophe in front, so that
spreadsheets do not evaluate it as a formula; reading removes the apostrophe."""


def column_names(stem: str) -> tuple[str, ...]:
    """The names of a table's columns, in order.

    Raises:
        UserError: there is no such table.
    """
    return table_of(stem).column_names


def write_table(
    rows: Sequence[Mapping[str, object]], stem: str, folder: Path, provenance: Provenance
) -> Path:
    """Write `folder/stem.csv` and its provenance; return the path of the CSV.

    Both files are complete on disk before either replaces an old one. The provenance holds the
    SHA-256 of the CSV, so a mismatch after a crash between the two is detected (`is_pair`).

    Args:
        rows: one mapping per row, with exactly the columns of `column_names(stem)`, in any order.
        stem: the name of a table.
        folder: created if missing.

    Raises:
        UserError: there is no such table, the files cannot be written, or a number is missing or
            not finite in a column that does not allow it.
        ValueError: a row does not have the table's columns, or a status is unknown.
        TypeError: a value does not have its column's type.
    """
    contract = table_of(stem)
    columns = contract.column_names
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for number, row in enumerate(rows):
        if set(row) != set(columns):
            missing = ", ".join(sorted(set(columns) - set(row))) or "none"
            surplus = ", ".join(sorted(set(row) - set(columns))) or "none"
            raise ValueError(f"{stem}, row {number}: missing: {missing}; unexpected: {surplus}")
        where = f"{stem}, row {number}"
        writer.writerow([_as_text(row[column.name], column, where) for column in contract.columns])
    content = buffer.getvalue().encode()
    path = folder / f"{stem}.csv"
    table = TableFile(file=path.name, rows=len(rows), sha256=hashlib.sha256(content).hexdigest())
    described = provenance.model_copy(update={"table": table})
    write_together({path: content, provenance_path(path): described.to_json()})
    return path


def read_table(path: Path) -> pandas.DataFrame:
    """Read a table and check it against its contract.

    Returns:
        One row per measurement. Text columns are strings; integer columns are int64 (Python
        integers if a number of paths exceeds that); all others are float64, NaN if empty.

    Raises:
        UserError: the file cannot be read, its name is not that of a table, its columns differ, or
            a value is not a number or not allowed in its column, or the file next to it records
            a different hash; the message names the file and the first column that differs.
    """
    columns = table_of(path.stem).columns
    expected = [column.name for column in columns]
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not a regular file; give the path of a table")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path}: not a CSV file in UTF-8: {error}; measure it again with this version"
        ) from None
    if not lines:
        raise UserError(f"{path}: is empty; expected the columns {','.join(expected)}")
    found, *rows = lines
    for number, (actual, name) in enumerate(itertools.zip_longest(found, expected), 1):
        if actual != name:
            problem = "is missing" if actual is None else f"is {actual[:40]!r}"
            wanted = "no further column" if name is None else repr(name)
            raise UserError(
                f"{path}: column {number} {problem}, expected {wanted}; "
                "measure it again with this version"
            )
    for number, row in enumerate(rows):
        if len(row) != len(expected):
            raise UserError(
                f"{path}: row {number + 1} has {len(row)} values, expected {len(expected)}; "
                "measure it again with this version"
            )
    frame = pandas.DataFrame(
        {
            column.name: _read_column([row[index] for row in rows], column, path)
            for index, column in enumerate(columns)
        }
    )
    _check_recorded(path)
    return frame


def _check_recorded(path: Path) -> None:
    """Check a table against the hash in its provenance file, if that is there and readable.

    Raises:
        UserError: the table was changed after it was measured.
    """
    recorded = None
    with contextlib.suppress(UserError):
        recorded = read_json_object(provenance_path(path)).get("table")
    if not isinstance(recorded, dict) or not isinstance(recorded.get("sha256"), str):
        return
    if hashlib.sha256(path.read_bytes()).hexdigest() != recorded["sha256"]:
        raise UserError(
            f"{path}: was changed after it was measured (its hash is not the one in "
            f"{provenance_path(path).name}); restore it or measure it again"
        )


def read_provenance(table: Path) -> dict[str, Any]:
    """The content of the provenance file next to a table, with its configuration converted to the
    current edition (`config_hash` remains that of the stored one). Keys may be missing, unlike
    with `Provenance.read`.

    Raises:
        UserError: the file is missing, not a provenance file, altered, or from a newer edition.
    """
    path = provenance_path(table)
    content = read_json_object(path)
    check_types(path, content)
    if isinstance(content.get("config"), dict):
        content["config"] = explicit_config(path, content["config"])
    return content


def is_pair(table: Path) -> bool:
    """Whether a table is, byte for byte, the one that its provenance describes.

    Raises:
        UserError: the table or its provenance cannot be read.
    """
    recorded = read_provenance(table).get("table")
    try:
        digest = hashlib.sha256(table.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{table}: cannot be read: {error.strerror}") from None
    return isinstance(recorded, dict) and recorded.get("sha256") == digest


# --- values ------------------------------------------------------------------------------------


def _as_text(value: object, column: Column, where: str) -> str:
    """One value as written in the CSV."""
    where = f"{where}, column {column.name}"
    if column.kind == "text":
        if not isinstance(value, str):
            raise TypeError(f"{where}: expected text, not {value!r}")
        if column.name == "status" and value not in STATUSES:
            raise ValueError(f"{where}: {value!r} is not one of {', '.join(STATUSES)}")
        value = visible(value)
        return f"'{value}" if value.startswith(FORMULA) else value
    if column.kind == "units":
        if not isinstance(value, str) or UNITS.fullmatch(value) is None:
            raise ValueError(f"{where}: expected indices joined by spaces, not {value!r}")
        return value
    if isinstance(value, bool):
        raise TypeError(f"{where}: expected a number, not {value!r}")
    if column.kind == "whole":
        try:
            return str(operator.index(value))  # type: ignore[arg-type]
        except TypeError:
            raise TypeError(f"{where}: expected an integer, not {value!r}") from None
    if value is None:
        _check_number(math.nan, column, where, is_missing=True)
        return ""
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise TypeError(f"{where}: expected a number or None, not {value!r}")
    _check_number(float(value), column, where)
    return repr(float(value))


def _check_number(value: float, column: Column, where: str, *, is_missing: bool = False) -> None:
    """Check that a column allows a number.

    Raises:
        UserError: the number is missing, infinite or NaN, and the column does not allow that.
    """
    if is_missing:
        if not column.may_be_empty:
            raise UserError(f"{where}: is empty, but this column must have a value in every row")
    elif not math.isfinite(value) and not column.may_be_infinite:
        raise UserError(f"{where}: {value} is not finite; check the network and its images")


def _read_column(values: list[str], column: Column, path: Path) -> "pandas.Series[Any]":
    """The values of one column, converted to its type."""
    name, is_whole = column.name, column.kind == "whole"
    if column.kind == "text":
        values = [v[1:] if v.startswith("'") and v[1:].startswith(FORMULA) else v for v in values]
        return pandas.Series(values, dtype=str, name=name)
    if column.kind == "units":
        for number, value in enumerate(values, 1):
            if UNITS.fullmatch(value) is None:
                raise UserError(
                    f"{path}: row {number}, column {name!r}: {value[:40]!r} does not list units; "
                    "expected indices joined by spaces"
                )
        return pandas.Series(values, dtype=str, name=name)
    numbers: list[float] = []
    for number, value in enumerate(values):
        where = f"{path}: row {number + 1}, column {name!r}"
        try:
            numbers.append(int(value) if is_whole else float(value or "nan"))
        except ValueError:
            wanted = "an integer" if is_whole else "a number"
            raise UserError(
                f"{where}: {value[:40]!r} is not {wanted}; measure it again with this version"
            ) from None
        if not is_whole:
            _check_number(numbers[-1], column, where, is_missing=not value)
    if not is_whole:
        return pandas.Series(numbers, dtype="float64", name=name)
    small = all(abs(number) < 2**63 for number in numbers)
    return pandas.Series(numbers, dtype="int64" if small else "object", name=name)


# --- files -------------------------------------------------------------------------------------


_TEMPORARY = ".tmp"


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader sees either the old or the new content, never a mixture.

    The content is written to a temporary file in the same folder (created if missing), synced to
    disk, and renamed in one step. If that fails, the old file is unchanged and the temporary file
    is removed.

    Args:
        content: text is written as UTF-8 without translating line ends.

    Raises:
        UserError: the file cannot be written; the message says why and how to fix it.
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes | str]) -> None:
    """`atomic_write` for files that belong together: all are complete before any is replaced.

    Raises:
        UserError: a file cannot be written. If that happens before the first file is replaced (as
            with a full disk), every old file is unchanged.
    """
    temporaries: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            with as_user_error(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                temporaries[path] = path.with_name(f".{uuid.uuid4().hex}{_TEMPORARY}")
                data = content.encode() if isinstance(content, str) else content
                with temporaries[path].open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
        for path, temporary in temporaries.items():
            with as_user_error(path):
                os.replace(temporary, path)
    finally:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    for folder in {path.parent for path in contents}:
        _sync_folder(folder)


def remove_temporaries(folder: Path) -> None:
    """Remove temporary files left in a folder by processes that were killed while writing. No
    process may be writing there now."""
    for path in folder.glob(f".{'[0-9a-f]' * 32}{_TEMPORARY}"):
        with contextlib.suppress(OSError):
            path.unlink()


def check_writable(folder: Path, option: str = "--out") -> None:
    """Check, before any work, that results can be written to a folder.

    Missing folders are not created: it is enough that a temporary file can be created in the
    nearest existing parent, so a command that fails here leaves nothing behind.

    Args:
        option: the option that gives another folder, for the message.

    Raises:
        UserError: the folder cannot be created or written; the message says why and how to fix it.
    """
    with as_user_error(folder, option):
        existing = folder
        while True:
            try:
                mode = existing.stat().st_mode
                break
            except FileNotFoundError:
                if existing.is_symlink():  # a broken link, so mkdir would fail
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
                if existing == existing.parent:
                    raise
                existing = existing.parent
        if not stat.S_ISDIR(mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with tempfile.TemporaryFile(dir=existing):
            pass


def _sync_folder(folder: Path) -> None:
    """Sync a folder's new entries to disk, on systems that support it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_FIXES: dict[int, str] = {
    errno.ENOSPC: "the disk is full; free some space or {elsewhere}",
    errno.EDQUOT: "the disk quota is used up; free some space or {elsewhere}",
    errno.EROFS: "the file system is read-only; {elsewhere}",
    errno.EACCES: "no permission to write there; {elsewhere}",
    errno.EPERM: "no permission to write there; {elsewhere}",
    errno.EEXIST: "there is a file where its folder should be; move it or {elsewhere}",
    errno.ENOTDIR: "there is a file where its folder should be; move it or {elsewhere}",
    errno.EISDIR: "there is a folder where the file should be; move it or {elsewhere}",
    errno.ENAMETOOLONG: "the name is too long; {elsewhere}",
}


@contextlib.contextmanager
def as_user_error(path: Path, option: str = "--out") -> Iterator[None]:
    """Turn an OSError while writing `path` into a UserError that says how to fix it.

    Args:
        option: the option that gives another folder for results. There is none for runs/.
    """
    try:
        yield
    except OSError as error:
        elsewhere = f"choose another folder with {option}"
        if "runs" in path.parts:
            elsewhere = "change to another working folder, which will hold runs/"
        template = _FIXES.get(error.errno or 0, "{problem}; {elsewhere}")
        fix = template.format(problem=error.strerror or error, elsewhere=elsewhere)
        raise UserError(f"{shortened(path)}: cannot be written: {fix}") from error
