"""Logs for TensorBoard or Weights & Biases: the rows of training.csv, written during training.

The log is made from the rows alone. A command that starts, resumes or finds a run rewrites the log
from all rows, so no point appears twice, however the previous command ended. The log is not part of
the run: neither its configuration and hash nor its numbers depend on it.
"""

import importlib.util
import shutil
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from resnet_cli.results.layout import LOG_FOLDER
from resnet_cli.results.tables import as_user_error
from resnet_cli.runtime import processes
from resnet_cli.runtime.errors import UserError, one_line

LogName = Literal["tensorboard", "wandb"]
COLUMNS = ("train_loss", "train_error", "test_loss", "test_error", "lr", "images_per_second")
"""The columns of training.csv that become curves over iterations. Errors are in percent, losses in
nats."""


def check_log(name: LogName | None) -> None:
    """Check, before any work, that the package that `--log` needs is installed.

    Raises:
        UserError: it is not installed.
    """
    if name == "tensorboard":
        _summary_writer()
    if name == "wandb" and not _has_wandb():
        raise UserError("--log wandb needs Weights & Biases: pip install wandb")


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("--log tensorboard needs TensorBoard: pip install tensorboard") from None
    return SummaryWriter


def _has_wandb() -> bool:
    try:
        return importlib.util.find_spec("wandb") is not None
    except ValueError:  # the module is in sys.modules without a spec
        return True


class _TensorBoard:
    """Event files in `runs/<run>/tensorboard/`."""

    def __init__(self, place: Path) -> None:
        self._writer = _summary_writer()(place)

    def add(self, values: Mapping[str, float], iteration: int, when: float) -> None:
        """Add one epoch; `when` is in seconds since 1970."""
        for column, value in values.items():
            self._writer.add_scalar(column, value, iteration, when)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """A run in the project `resnet-cli`, named after the run's folder, with files in
    `runs/<run>/wandb/`. With `WANDB_MODE=offline`, nothing is uploaded."""

    def __init__(self, place: Path) -> None:
        import wandb

        name = place.parent.name
        try:
            self._run = wandb.init(
                project="resnet-cli",
                id=name,
                name=name,
                resume="allow",
                dir=place.parent,
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.Error as error:  # not logged in, or no connection
            raise UserError(
                f"--log wandb: {one_line(str(error))}; run wandb login, or set WANDB_MODE=offline"
            ) from None

    def add(self, values: Mapping[str, float], iteration: int, when: float) -> None:
        self._run.log(dict(values), step=iteration)

    def close(self) -> None:
        self._run.finish()


class EpochLog:
    """The log of one run, rewritten with the rows so far.

    With several processes, only the first one writes.

    Args:
        folder: the run's folder.
        rows: the rows of training.csv so far.
        started: when the training began (ISO 8601). In TensorBoard, the time of a point is this
            plus its training time, so a log written later has the same time axis.
        name: the program for which the log is written.

    Raises:
        UserError: the program's package is not installed, or the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        rows: Iterable[Mapping[str, Any]],
        started: str,
        name: LogName = "tensorboard",
    ) -> None:
        self._log_folder = folder / (LOG_FOLDER if name == "tensorboard" else name)
        self._began = datetime.fromisoformat(started).timestamp()
        self._writer: _TensorBoard | _WandB | None = None
        if processes.rank() == 0:
            with as_user_error(self._log_folder):
                if self._log_folder.exists():
                    shutil.rmtree(self._log_folder)
                kind = _TensorBoard if name == "tensorboard" else _WandB
                self._writer = kind(self._log_folder)
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add one epoch's row. Values that were not measured are omitted."""
        if self._writer is None:
            return
        values = {column: row[column] for column in COLUMNS if row[column] is not None}
        with as_user_error(self._log_folder):
            self._writer.add(values, row["iteration"], self._began + row["seconds"])

    def close(self) -> None:
        """Close the log."""
        if self._writer is not None:
            with as_user_error(self._log_folder):
                self._writer.close()
