"""The folder below `runs/` of a training, given its configuration and its images.

A run's folder is named after its configuration. The same configuration trained on different images
is a second run, in a folder with the fingerprint of the training split as a suffix.
"""

from contextlib import suppress
from functools import partial
from pathlib import Path

from resnet_cli.config.schema import RunConfig
from resnet_cli.results.layout import run_folder
from resnet_cli.results.run_file import read_run_file
from resnet_cli.runtime import processes
from resnet_cli.runtime.errors import UserError
from resnet_cli.training.checkpoint import checkpoint_data
from resnet_cli.training.context import Context


def folder_of(context: Context, run: RunConfig) -> Path:
    """The folder of a training, which may not exist yet.

    If the images are not available (`Context.fingerprint`), they are not compared, and this is the
    folder named after the configuration alone.

    Raises:
        UserError: the images are damaged.
    """
    fingerprint = context.fingerprint(run.data, "train")
    return processes.from_first(partial(_folder, context.runs, run, fingerprint))


def _folder(runs: Path, run: RunConfig, fingerprint: str | None) -> Path:
    folder = run_folder(run, runs)
    if fingerprint is None:
        return folder
    own = run_folder(run, runs, fingerprint)
    trained_on = recorded_fingerprint(folder, f"{run.data.dataset}/train") or checkpoint_data(
        folder
    )
    return folder if trained_on in (None, fingerprint) and not own.exists() else own


def recorded_fingerprint(folder: Path, split: str) -> str | None:
    """The fingerprint of `data set/split` that a finished run recorded; None if there is none."""
    with suppress(UserError):  # damaged: reported when the run is read
        data = (read_run_file(folder) or {}).get("data")
        found = data.get(split) if isinstance(data, dict) else None
        return found if isinstance(found, str) else None
    return None
