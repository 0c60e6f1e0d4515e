"""A run's epochs as TensorBoard event files: the rows of training.csv, written during training.

The log is made from the rows alone. A command that starts, resumes or finds a run rewrites the log
from all rows, so no point appears twice, however the previous command ended. The log is not part of
the run: neither its configuration and hash nor its numbers depend on it.
"""

import shutil
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from resnet_cli.results.layout import LOG_FOLDER
from resnet_cli.results.tables import explained
from resnet_cli.runtime import processes
from resnet_cli.runtime.errors import UserError

LogName = Literal["tensorboard"]
COLUMNS = ("train_loss", "train_error", "test_loss", "test_error", "lr", "images_per_second")
"""The columns of training.csv that become curves over iterations. Errors are in percent, losses in
nats."""


def check_log(name: LogName | None) -> None:
    """Check, before any work, that the package that `--log` needs is installed.

    Raises:
        UserError: it is not installed.
    """
    if name is not None:
        _writer_class()


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("--log tensorboard needs TensorBoard: pip install tensorboard") from None
    return SummaryWriter


class EpochLog:
    """The event files of one run, rewritten with the rows so far.

    With several processes, only the first one writes.

    Args:
        folder: the run's folder.
        rows: the rows of training.csv so far.
        started: when the training began (ISO 8601). The time of a point is this plus its training
            time, so a log written later has the same time axis.

    Raises:
        UserError: TensorBoard is not installed, or the folder cannot be written.
    """

    def __init__(self, folder: Path, rows: Iterable[Mapping[str, Any]], started: str) -> None:
        self._place = folder / LOG_FOLDER
        self._began = datetime.fromisoformat(started).timestamp()
        self._writer: Any = None
        if processes.rank() == 0:
            with explained(self._place):
                if self._place.exists():
                    shutil.rmtree(self._place)
                self._writer = _writer_class()(self._place)
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add one epoch's row. Values that were not measured get no point."""
        if self._writer is None:
            return
        when = self._began + row["seconds"]
        with explained(self._place):
            for column in COLUMNS:
                if row[column] is not None:
                    self._writer.add_scalar(column, row[column], row["iteration"], when)
            self._writer.flush()

    def close(self) -> None:
        """Close the event files."""
        if self._writer is not None:
            with explained(self._place):
                self._writer.close()

    def __enter__(self) -> "EpochLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
