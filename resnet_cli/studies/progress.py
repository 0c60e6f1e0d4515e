"""The progress of a measurement: reported, stopped on request, and kept for resuming.

A measurement is a sequence of pieces, such as a chunk of images or one sampled gradient. Each piece
is appended to a file next to the unfinished table. A resumed measurement reads them instead of
computing them again. A piece is a function of the study, the network, the images and the seed, so
the resumed table has the same bytes.
"""

import base64
import contextlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy
import torch

from resnet_cli import __version__
from resnet_cli.results.layout import partial_table
from resnet_cli.results.tables import as_user_error
from resnet_cli.runtime import processes
from resnet_cli.runtime.display import Display
from resnet_cli.runtime.interrupt import Interrupted, interruptible

T = TypeVar("T")
Report = Callable[[int, int], None]
"""Called with (done, total)."""


class Pieces:
    """The pieces of an unfinished table, one line of JSON each.

    The first line identifies the measurement; a file of another one is replaced. A last line
    truncated by a crash is dropped. Under torchrun each process has its own file.
    """

    def __init__(self, table: Path, identity: Mapping[str, Any]) -> None:
        self.identity = {
            **identity,
            "processes": processes.size(),
            "versions": [__version__, torch.__version__],
        }
        self._file: BinaryIO | None = None
        self.begin(table)

    def begin(self, table: Path) -> None:
        """Continue with another table, and read its pieces if there are any."""
        self.close()
        self.path = partial_table(table, processes.rank())
        self._kept, self._length = self._read()
        self._position = 0

    def _read(self) -> tuple[list[Any], int]:
        """The pieces, and the number of bytes of the file up to the last complete one."""
        try:
            content = self.path.read_bytes()
            content = content[: content.rfind(b"\n") + 1]
            header, *lines = content.splitlines()
            if json.loads(header) != json.loads(json.dumps(self.identity)):
                return [], 0
            return [_decode(json.loads(line)) for line in lines], len(content)
        except (OSError, ValueError, KeyError, TypeError, zlib.error):
            return [], 0

    def take(self) -> tuple[bool, Any]:
        """(True, the next piece), or (False, None) if there are no more."""
        if self._position == len(self._kept):
            return False, None
        self._position += 1
        return True, self._kept[self._position - 1]

    def add(self, piece: Any) -> None:
        """Append a measured piece."""
        with as_user_error(self.path):
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("r+b" if self._length else "wb")
                self._file.truncate(self._length)
                self._file.seek(self._length)
                if not self._length:
                    self._write(self.identity)
            self._write(_encode(piece))
            self._file.flush()

    def _write(self, content: object) -> None:
        assert self._file is not None
        self._file.write(json.dumps(content).encode() + b"\n")

    def close(self) -> None:
        """Close the file and keep it for the next run."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Delete the file: the table is complete."""
        self.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def _encode(piece: Any) -> Any:
    if isinstance(piece, torch.Tensor):
        array = piece.detach().cpu().contiguous().numpy()
        data = base64.b64encode(zlib.compress(array.tobytes(), 1)).decode()
        return {"type": array.dtype.str, "shape": array.shape, "data": data}
    if isinstance(piece, tuple | list):
        return [_encode(part) for part in piece]
    return piece


def _decode(content: Any) -> Any:
    if isinstance(content, dict):
        data = zlib.decompress(base64.b64decode(content["data"]))
        array = numpy.frombuffer(data, content["type"]).reshape(content["shape"])
        return torch.from_numpy(array.copy())
    if isinstance(content, list):
        return tuple(_decode(part) for part in content)
    return content


class KeptReport:
    """Reports (done, total), stops on request, and keeps the pieces of the measurement.

    Raises:
        Interrupted: it is called before the end, and `should_stop` returns true.
    """

    def __init__(
        self,
        report: Report,
        should_stop: Callable[[], bool],
        message: str,
        kept: Pieces | None,
    ) -> None:
        self._report = interruptible(report, should_stop, message)
        self._should_stop, self._message = should_stop, message
        self.kept = kept

    def __call__(self, done: int, total: int) -> None:
        self._report(done, total)

    def check(self) -> None:
        """Stop within a piece, which is then not kept.

        Raises:
            Interrupted: `should_stop` returns true.
        """
        if self._should_stop():
            raise Interrupted(self._message)

    @property
    def quiet(self) -> "KeptReport":
        """The same without display, for a part of what the caller reports."""
        return self.replaced(lambda done, total: None)

    def replaced(self, report: Report) -> "KeptReport":
        """The same with another function to report to."""
        return KeptReport(report, self._should_stop, self._message, self.kept)


def shifted(report: Report, number: int, parts: int) -> Report:
    """A report for one of several parts of equal size, in terms of the whole."""

    def report_all(done: int, total: int) -> None:
        report(number * total + done, parts * total)

    if not isinstance(report, KeptReport):
        return report_all
    return report.replaced(report_all)


def quietly(report: Report) -> Report:
    """A report without display, for a part of what `report` is called for."""
    return report.quiet if isinstance(report, KeptReport) else lambda done, total: None


def check_of(report: Report) -> Callable[[], None]:
    """A function that long pieces call at least once a second: it stops on request."""
    return report.check if isinstance(report, KeptReport) else lambda: None


class Progress:
    """The progress of a study: which tables are wanted, and how it is reported.

    Args:
        pieces: where pieces are kept; None: nowhere.
        wanted: the missing tables.
        rows: returns the rows of a finished table.
    """

    def __init__(
        self,
        display: Display,
        should_stop: Callable[[], bool] = lambda: False,
        pieces: Pieces | None = None,
        wanted: Iterable[str] = (),
        rows: Callable[[str], Sequence[Mapping[str, Any]]] = lambda table: (),
    ) -> None:
        self.display, self.should_stop, self.kept = display, should_stop, pieces
        self.rows = rows
        self.facts: dict[str, Any] = {}
        """Facts for `--json` that are not in the tables."""
        self._wanted = set(wanted)

    def wants(self, table: str) -> bool:
        """Whether a table is to be measured."""
        return table in self._wanted

    def check(self) -> None:
        """Stop before the first piece.

        Raises:
            Interrupted: `should_stop` returns true.
        """
        if self.should_stop():
            raise Interrupted("stopped before the first measurement; the same command starts again")

    @contextmanager
    def of(self, label: str) -> Iterator[KeptReport]:
        """A report for one part of the measurement, with its own progress bar."""
        message = f"stopped ({label}); the same command continues from here"
        with self.display.progress(label) as update:
            yield KeptReport(update, self.should_stop, message, self.kept)


def pieces_of(
    report: Report, items: Sequence[T], measure: Callable[[Sequence[T]], Iterable[Any]]
) -> Iterator[Any]:
    """The piece of each item, in order: those kept by an earlier run, then measured ones.

    Args:
        report: if it keeps pieces (`KeptReport`), each measured piece is kept.
        measure: yields the pieces of some of the items, in order.
    """
    kept = report.kept if isinstance(report, KeptReport) else None
    if kept is None:
        yield from measure(items)
        return
    count = 0
    while count < len(items):
        found, piece = kept.take()
        if not found:
            break
        count += 1
        yield piece
    if count < len(items):
        for piece in measure(items[count:]):
            kept.add(piece)
            yield piece
