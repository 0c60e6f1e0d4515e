"""Tables as files, and how files are written safely. Their columns: `resnet_cli.results.columns`.

A table is tidy: one measurement a row, columns in a fixed order, floats as `repr` writes them (so
that they read back to the last bit), whole numbers plain, a missing float empty. Errors and
agreement are percentages, shares and fractions run from 0 to 1. Beside each table stands a
`.provenance.json`. results/README.md gives each column's meaning.
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

STATUSES = ("ok", "fail", "diverged")
FORMULA = ("=", "+", "-", "@", "'")
"""Text that begins so is written after an apostrophe, which makes spreadsheets show it as text;
reading removes the apostrophe."""


def header(stem: str) -> tuple[str, ...]:
    """All columns of a table, in order.

    Raises:
        UserError: there is no such table.
    """
    return table_of(stem).header


def write_table(
    rows: Sequence[Mapping[str, object]], stem: str, folder: Path, provenance: Provenance
) -> Path:
    """Write `folder/stem.csv` and its provenance; return the path of the CSV.

    Both files are complete on disk before either is put in its place. The provenance holds the
    SHA-256 of the CSV, so a pair torn by a crash between the two is seen (`is_pair`).

    Args:
        rows: one mapping a row, with exactly the columns of `header(stem)`, in any order.
        stem: the name of a table.
        folder: made if missing.

    Raises:
        UserError: no such table, the files cannot be written, or a number is missing or not finite
            in a column that does not allow it.
        ValueError: a row's columns are not the table's, or a status is unknown.
        TypeError: a value is not of its column's kind.
    """
    contract = table_of(stem)
    columns = contract.header
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for number, row in enumerate(rows):
        if set(row) != set(columns):
            missing = ", ".join(sorted(set(columns) - set(row))) or "none"
            surplus = ", ".join(sorted(set(row) - set(columns))) or "none"
            raise ValueError(f"{stem}, row {number}: missing: {missing}; not its own: {surplus}")
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
        One row a measurement. Text columns are strings; whole ones int64 (Python integers where
        a count of paths exceeds that); all others float64, with NaN where the file is empty.

    Raises:
        UserError: the file cannot be read, its name is no table's, its columns differ, or a value
            is no number or one that its column does not allow; the line names the file and the
            first column that differs.
    """
    columns = table_of(path.stem).columns
    expected = [column.name for column in columns]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is no CSV in UTF-8: {error}") from None
    if not lines:
        raise UserError(f"{path}: is empty; its columns are {','.join(expected)}")
    found, *rows = lines
    for number, (is_name, name) in enumerate(itertools.zip_longest(found, expected), 1):
        if is_name != name:
            told = "is missing" if is_name is None else f"is {is_name[:40]!r}"
            wanted = "nothing" if name is None else repr(name)
            raise UserError(
                f"{path}: column {number} {told}, expected {wanted}; "
                "measure it again with this version"
            )
    for number, row in enumerate(rows):
        if len(row) != len(expected):
            raise UserError(
                f"{path}: row {number + 1} has {len(row)} values; its columns are {len(expected)}"
            )
    return pandas.DataFrame(
        {
            column.name: _read_column([row[index] for row in rows], column, path)
            for index, column in enumerate(columns)
        }
    )


def read_provenance(table: Path) -> dict[str, Any]:
    """The content of the provenance file next to a table, its configuration in the words of this
    edition (`config_hash` stays that of the stored one). `Provenance.read` also checks it.

    Raises:
        UserError: it is missing, no provenance, altered, or of a newer edition.
    """
    path = provenance_path(table)
    content = read_json_object(path)
    check_types(path, content)
    if isinstance(content.get("config"), dict):
        content["config"] = explicit_config(path, content["config"])
    return content


def is_pair(table: Path) -> bool:
    """The table is, byte for byte, the one its provenance was written for.

    Raises:
        UserError: one of the two cannot be read.
    """
    recorded = read_provenance(table).get("table")
    try:
        digest = hashlib.sha256(table.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{table}: cannot be read: {error.strerror}") from None
    return isinstance(recorded, dict) and recorded.get("sha256") == digest


# --- values ------------------------------------------------------------------------------------


def _as_text(value: object, column: Column, where: str) -> str:
    """One value as the CSV has it."""
    where = f"{where}, column {column.name}"
    if column.kind == "text":
        if not isinstance(value, str):
            raise TypeError(f"{where}: text is expected, not {value!r}")
        if column.name == "status" and value not in STATUSES:
            raise ValueError(f"{where}: {value!r} is none of {', '.join(STATUSES)}")
        value = visible(value)
        return f"'{value}" if value.startswith(FORMULA) else value
    if isinstance(value, bool):
        raise TypeError(f"{where}: a number is expected, not {value!r}")
    if column.kind == "whole":
        try:
            return str(operator.index(value))  # type: ignore[arg-type]
        except TypeError:
            raise TypeError(f"{where}: a whole number is expected, not {value!r}") from None
    if value is None:
        _check_number(math.nan, column, where, is_missing=True)
        return ""
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise TypeError(f"{where}: a number or None is expected, not {value!r}")
    _check_number(float(value), column, where)
    return repr(float(value))


def _check_number(value: float, column: Column, where: str, *, is_missing: bool = False) -> None:
    """Refuse a number that its column does not allow.

    Raises:
        UserError: it is missing, infinite or NaN.
    """
    if is_missing:
        if not column.may_be_empty:
            raise UserError(f"{where}: no value; this column has one in every row")
    elif not math.isfinite(value) and not column.may_be_infinite:
        raise UserError(
            f"{where}: {value} is not finite; the network or its images give no valid measurement"
        )


def _read_column(values: list[str], column: Column, path: Path) -> "pandas.Series[Any]":
    """One column of text as a series of its kind."""
    name, is_whole = column.name, column.kind == "whole"
    if column.kind == "text":
        values = [v[1:] if v.startswith("'") and v[1:].startswith(FORMULA) else v for v in values]
        return pandas.Series(values, dtype=str, name=name)
    numbers: list[float] = []
    for number, value in enumerate(values):
        where = f"{path}: row {number + 1}, column {name!r}"
        try:
            numbers.append(int(value) if is_whole else float(value or "nan"))
        except ValueError:
            raise UserError(
                f"{where}: {value[:40]!r} is no {'whole ' if is_whole else ''}number"
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
    """Write a file such that a reader sees the old content or the new, never a part.

    The content goes to a temporary file in the same folder (made if missing), reaches the disk,
    and takes the name in one step. When that fails the old file is as it was and the temporary
    one is gone.

    Args:
        content: text is written as UTF-8 without translating line ends.

    Raises:
        UserError: the file cannot be written; the line names it and the mend.
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes | str]) -> None:
    """`atomic_write` for files that belong together: all are complete before any is replaced.

    Raises:
        UserError: a file cannot be written; where that shows before the first replacement (a full
            disk does), every old file is as it was.
    """
    temporaries: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            with explained(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                temporaries[path] = path.with_name(f".{uuid.uuid4().hex}{_TEMPORARY}")
                data = content.encode() if isinstance(content, str) else content
                with temporaries[path].open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
        for path, temporary in temporaries.items():
            with explained(path):
                os.replace(temporary, path)
    finally:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    for folder in {path.parent for path in contents}:
        _sync_folder(folder)


def remove_temporaries(folder: Path) -> None:
    """Remove what processes that were killed while writing left in a folder; none may be writing
    there now."""
    for path in folder.glob(f".{'[0-9a-f]' * 32}{_TEMPORARY}"):
        with contextlib.suppress(OSError):
            path.unlink()


def check_writable(folder: Path, option: str = "--out") -> None:
    """Refuse a folder for results that could not take a file, before the work they come from.

    What is missing is not made: the nearest folder that is there must take a file (which has no
    name, or loses it at once), so that a refused command leaves nothing behind.

    Args:
        option: names another folder.

    Raises:
        UserError: the folder could not be made or written; the line says why and the mend.
    """
    with explained(folder, option):
        there = folder
        while True:
            try:
                mode = there.stat().st_mode
                break
            except FileNotFoundError:
                if there.is_symlink():  # it leads nowhere, and no folder can take its name
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
                if there == there.parent:
                    raise
                there = there.parent
        if not stat.S_ISDIR(mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with tempfile.TemporaryFile(dir=there):
            pass


def _sync_folder(folder: Path) -> None:
    """Bring a folder's new names to the disk, on systems where a folder can be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_MENDS: dict[int, str] = {
    errno.ENOSPC: "the disk is full; free some space or {elsewhere}",
    errno.EDQUOT: "the disk quota is used up; free some space or {elsewhere}",
    errno.EROFS: "the file system is read-only; {elsewhere}",
    errno.EACCES: "no permission to write there; {elsewhere}",
    errno.EPERM: "no permission to write there; {elsewhere}",
    errno.EEXIST: "a file stands where its folder should be; move it or {elsewhere}",
    errno.ENOTDIR: "a file stands where its folder should be; move it or {elsewhere}",
    errno.EISDIR: "a folder stands where the file should be; move it or {elsewhere}",
    errno.ENAMETOOLONG: "the name is too long; {elsewhere}",
}


@contextlib.contextmanager
def explained(path: Path, option: str = "--out") -> Iterator[None]:
    """Turn an OSError while writing `path` into one line with a mend.

    Args:
        option: names another folder for results. Trainings have none: they lie in runs/.
    """
    try:
        yield
    except OSError as error:
        elsewhere = f"choose another folder with {option}"
        if "runs" in path.parts:
            elsewhere = "work in another folder: trainings are kept in its runs/"
        mend = _MENDS.get(error.errno or 0)
        mend = (
            f"{error.strerror or error}; {elsewhere}"
            if mend is None
            else mend.format(elsewhere=elsewhere)
        )
        raise UserError(f"{shortened(path)}: cannot be written: {mend}") from error
