"""The catalogue: everything the program knows about each data set, and how its images are loaded.

A data set is one `DataSet` object in its own module, registered by name in
`config.registry.DATASETS`. No other module names a data set. The modules are cheap to import:
functions that read images import torch, pyarrow and other large packages when they are called.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from resnet_cli.config.registry import DATASETS, registered
from resnet_cli.runtime.errors import UserError

if TYPE_CHECKING:
    from resnet_cli.config.schema import DataConfig
    from resnet_cli.datasets.folder import Folder
    from resnet_cli.datasets.split import Split

SplitName = Literal["train", "test"]
SPLITS: tuple[SplitName, SplitName] = ("train", "test")
DownloadProgress = Callable[[str, int, int | None], None]
"""Called during a download with (file name, bytes so far, total bytes or None)."""


class NotFoundError(UserError):
    """A split was not found in any of its possible locations; it may have to be downloaded."""


@dataclass(frozen=True)
class Location:
    """One possible location of a data set, and what was found there."""

    dataset: str
    place: str
    state: Literal["found", "missing", "damaged"]
    detail: str
    """The number of images and whether they were verified, or what is missing or wrong."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSet:
    """A data set: its properties, and how it is found, read and downloaded."""

    name: str
    """The name in YAML files and options."""
    title: str
    """The name in titles and tables."""
    classes: tuple[str, ...] = ()
    """The class names in order of label; empty if they depend on the user's folder."""
    counts: Mapping[SplitName, int] = field(default_factory=dict)
    """Number of images in each split; empty if it depends on the user's folder."""
    image_size: int
    """Default width and height in pixels."""
    image_sizes: tuple[int, ...] = ()
    """Valid sizes; empty if images can be resized to any size."""
    normalize: str = "channel"
    """The meaning of `data.normalize: auto`."""
    usual_normalize: str = "channel"
    """The usual normalisation of inputs for networks trained elsewhere."""
    augmentations: tuple[str, ...] = ("crop",)
    """Valid values of `data.augment`; `auto` means the first."""
    embedded: bool = False
    """Whether the data set comes with the program, so that no folder is needed."""
    assumed_for: int | None = None
    """Networks trained elsewhere with this number of classes are assumed to be for this data
    set."""
    paper_name: str | None = None
    """The name of the corresponding data set in the papers' tables."""
    paper_title: str | None = None
    """Its title."""

    @property
    def is_fixed(self) -> bool:
        """Whether its images are always the same; otherwise the user gives a folder of images."""
        return bool(self.classes)

    def read(
        self, config: "DataConfig", split: SplitName, root: Path, limit: int | None
    ) -> "Split | Folder":
        """The first `limit` images of a split; None means all.

        Args:
            config: an explicit configuration (`DataConfig.explicit`).
            root: the folder of data sets.

        Raises:
            NotFoundError: the split was not found.
            UserError: a file is damaged, or the configuration is not valid for this data set.
        """
        raise NotImplementedError

    def locations(self, root: Path) -> list[Location]:
        """All possible locations of the data set and what is there; reads every image."""
        raise NotImplementedError

    def download(self, root: Path, progress: DownloadProgress | None = None) -> Path:
        """Download the data set into `root`, unless it is there already; return its folder.

        Raises:
            UserError: the data set cannot be downloaded, or the folder cannot be written.
            RunError: the download failed.
        """
        raise UserError(f"{self.title} cannot be downloaded; give its folder with --data-dir")


def dataset(name: str) -> DataSet:
    """The data set with this name.

    Raises:
        UserError: there is none; the message lists the valid names.
    """
    found: DataSet = registered(DATASETS, "data set", name)
    return found


def datasets() -> list[DataSet]:
    """All data sets."""
    return [dataset(name) for name in DATASETS]


def find_dataset(name: str) -> DataSet | None:
    """The data set with this name, or None, for names in old or third-party files."""
    return dataset(name) if name in DATASETS else None


def titles() -> dict[str, str]:
    """The title of every data set by name, followed by the papers' data sets."""
    ours = {entry.name: entry.title for entry in datasets()}
    papers = {e.paper_name: e.paper_title for e in datasets() if e.paper_name and e.paper_title}
    return ours | papers


def title_of(name: str) -> str:
    """The title of a data set of this program or of a paper; an unknown name is its own title."""
    return titles().get(name, name)


def names_folder(data_dir: Path | None) -> bool:
    """Whether the folder of data sets is given, by `data_dir` or by the environment."""
    return data_dir is not None or bool(os.environ.get("RESNET_CLI_DATA"))


def data_root(data_dir: Path | None = None) -> Path:
    """The folder of data sets: `data_dir`, otherwise $RESNET_CLI_DATA, otherwise ./data.

    Raises:
        UserError: it is the home folder of an unknown user.
    """
    folder = data_dir or Path(os.environ.get("RESNET_CLI_DATA") or "data")
    try:
        return folder.expanduser()
    except RuntimeError:
        raise UserError(f"--data-dir {folder}: unknown user; give the path of the folder") from None


def load_split(
    config: "DataConfig",
    split: SplitName,
    data_dir: Path | None = None,
    download: bool = False,
    progress: DownloadProgress | None = None,
) -> "Split | Folder":
    """Read and check one split of the configured data set, up to `train_images`/`test_images`.

    Args:
        config: the data set and its sizes.
        split: `train` or `test`; a validation split counts as `test` if there is no test split.
        data_dir: the folder of data sets; see `data_root`.
        download: download the data set into that folder if it is not there.
        progress: called during the download.

    Returns:
        images uint8 [N, 3, H, W]; H = W = `image_size`, or `test_size` for test images.

    Raises:
        UserError: nothing was found (the message names every folder tried), a file is damaged or
            has the wrong content, or the configuration is not valid for the data set.
        RunError: the download failed.
    """
    entry, config, root = dataset(config.dataset), config.explicit(), data_root(data_dir)
    if entry.image_sizes and config.image_size not in entry.image_sizes:
        sizes = " or ".join(map(str, entry.image_sizes))
        raise UserError(
            f"data.image_size: {config.image_size} is not available for {entry.title}; use {sizes}"
        )
    limit = config.train_images if split == "train" else config.test_images
    try:
        return entry.read(config, split, root, limit)
    except NotFoundError:
        if not download:
            raise
    entry.download(root, progress)
    return entry.read(config, split, root, limit)
