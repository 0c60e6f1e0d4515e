"""The catalogue: all that the program knows of each data set, and how its images are loaded.

A data set is one `DataSet` object in a module of its own, registered by name in
`config.registry.DATASETS`. No other module names a data set. The objects are light: what reads
images imports torch, pyarrow and the like when it is called.
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
Progress = Callable[[str, int, int | None], None]
"""Called during a download with (file name, bytes so far, bytes in all or None)."""


class NotFoundError(UserError):
    """A split is in none of the places where it may lie; a download may help."""


@dataclass(frozen=True)
class Location:
    """What was found in one place where a data set may lie."""

    dataset: str
    place: str
    state: Literal["found", "missing", "damaged"]
    detail: str
    """The number of images and how far they were verified, or what is missing or wrong."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSet:
    """A data set: its facts, and how it is found, read and downloaded."""

    name: str
    """In YAML files and options."""
    title: str
    """In titles and tables."""
    classes: tuple[str, ...] = ()
    """In the order of the labels; empty if they depend on the folder that the user names."""
    counts: Mapping[SplitName, int] = field(default_factory=dict)
    """Images in each split; empty if they depend on the user's folder."""
    image_size: int
    """Pixels a side unless the configuration says otherwise."""
    image_sizes: tuple[int, ...] = ()
    """The sizes that can be chosen; empty: images are resized to any size."""
    normalize: str = "channel"
    """What `data.normalize: auto` means."""
    usual_normalize: str = "channel"
    """How inputs are usually normalised for networks trained elsewhere."""
    augmentations: tuple[str, ...] = ("crop",)
    """Valid values of `data.augment`; `auto` is the first."""
    embedded: bool = False
    """Whether it comes with the program, so that no folder is needed."""
    assumed_for: int | None = None
    """Networks trained elsewhere with this number of classes are assumed to be for this set."""
    paper_name: str | None = None
    """What the papers' tables call the data that this set stands for."""
    paper_title: str | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether its images are always the same; else the user names a folder of any images."""
        return bool(self.classes)

    def read(
        self, config: "DataConfig", split: SplitName, root: Path, limit: int | None
    ) -> "Split | Folder":
        """The first `limit` images of a split, or all for None.

        Args:
            config: explicit (`DataConfig.explicit`).
            root: the folder in which data sets are.

        Raises:
            NotFoundError: the split is not there.
            UserError: a file is damaged, or the configuration does not fit.
        """
        raise NotImplementedError

    def locations(self, root: Path) -> list[Location]:
        """What is in each place where the data set may lie; every image there is read."""
        raise NotImplementedError

    def download(self, root: Path, progress: Progress | None = None) -> Path:
        """Download the data set into `root`, unless it is there; returns its folder.

        Raises:
            UserError: it cannot be downloaded, or the folder cannot be written.
            RunError: the download failed.
        """
        raise UserError(f"{self.title} cannot be downloaded")


def dataset(name: str) -> DataSet:
    """The data set of this name.

    Raises:
        UserError: there is none; lists the valid names.
    """
    found: DataSet = registered(DATASETS, "data set", name)
    return found


def datasets() -> list[DataSet]:
    """All data sets."""
    return [dataset(name) for name in DATASETS]


def known(name: str) -> DataSet | None:
    """The data set of this name, or None for a name in an old or foreign file."""
    return dataset(name) if name in DATASETS else None


def titles() -> dict[str, str]:
    """The title of every data set by its name; the papers' names come last."""
    ours = {entry.name: entry.title for entry in datasets()}
    papers = {e.paper_name: e.paper_title for e in datasets() if e.paper_name and e.paper_title}
    return ours | papers


def title_of(name: str) -> str:
    """The title of a data set, ours or a paper's; an unknown name is its own title."""
    return titles().get(name, name)


def names_folder(data_dir: Path | None) -> bool:
    """Whether a command names the folder in which data sets are, by `data_dir` or by the
    environment."""
    return data_dir is not None or bool(os.environ.get("RESNET_CLI_DATA"))


def data_root(data_dir: Path | None = None) -> Path:
    """The folder in which data sets are: `data_dir`, else $RESNET_CLI_DATA, else ./data.

    Raises:
        UserError: it names the home folder of an unknown user.
    """
    folder = data_dir or Path(os.environ.get("RESNET_CLI_DATA") or "data")
    try:
        return folder.expanduser()
    except RuntimeError:
        raise UserError(f"--data-dir {folder}: there is no such user") from None


def load_split(
    config: "DataConfig",
    split: SplitName,
    data_dir: Path | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> "Split | Folder":
    """Read one split of the configured data set, checked, up to `train_images`/`test_images`.

    Args:
        config: names the data set and its sizes.
        split: `train` or `test`; where a data set has a validation split only, that is `test`.
        data_dir: the folder in which data sets are, see `data_root`.
        download: download the data set into that folder if it is not there.
        progress: called during the download.

    Returns:
        images uint8 [N, 3, H, W]; H = W = `image_size`, or `test_size` for test images.

    Raises:
        UserError: nothing was found (names every folder tried), a file is damaged or not what it
            should be (names it), or the configuration does not fit the data set.
        RunError: the download failed.
    """
    entry, config, root = dataset(config.dataset), config.explicit(), data_root(data_dir)
    if entry.image_sizes and config.image_size not in entry.image_sizes:
        sizes = " or ".join(map(str, entry.image_sizes))
        raise UserError(
            f"data.image_size: {config.image_size} does not fit; {entry.title} has {sizes}"
        )
    limit = config.train_images if split == "train" else config.test_images
    try:
        return entry.read(config, split, root, limit)
    except NotFoundError:
        if not download:
            raise
    entry.download(root, progress)
    return entry.read(config, split, root, limit)
