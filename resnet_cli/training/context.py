"""What a command works with: its device, its data and the folder of its runs."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from resnet_cli.config.schema import DataConfig
from resnet_cli.datasets import catalogue
from resnet_cli.datasets.batches import Batches
from resnet_cli.datasets.catalogue import NotFoundError, SplitName, load_split
from resnet_cli.datasets.normalisation import Normalization, parse_normalization
from resnet_cli.results.layout import RUNS
from resnet_cli.runtime import processes
from resnet_cli.runtime.engine import Engine
from resnet_cli.training.epoch_log import LogName

if TYPE_CHECKING:
    from resnet_cli.datasets.folder import Folder
    from resnet_cli.datasets.split import Split


@dataclass
class Context:
    """Device, data and folders, as set by a command's options; each split is loaded only once."""

    device: torch.device
    data_dir: Path | None = None
    download: bool = False
    runs: Path = RUNS
    engine: Engine = "fast"
    """For studies and training."""
    deterministic: bool = False
    """Use only deterministic kernels (`pick_device`)."""
    log: LogName | None = None
    """Where a run's epochs are written in addition to training.csv."""
    pretrained: bool = False
    """Use bundled weights instead of training, where they exist."""
    _splits: dict[tuple[DataConfig, str], "Split | Folder"] = field(default_factory=dict)

    def for_worker(self) -> "Context":
        """A copy for another machine, without loaded splits; the device is resolved there."""
        return replace(self, device=torch.device("cpu"), _splits={})

    def split(self, data: DataConfig, name: SplitName) -> "Split | Folder":
        """One split of a data set.

        Raises:
            UserError: the data set is missing or damaged.
        """
        key = (data, name)
        if key not in self._splits:
            load = partial(load_split, data, name, self.data_dir, self.download)
            self._splits[key] = processes.first_then_others(load) if self.download else load()
        return self._splits[key]

    def fingerprint(self, data: DataConfig, name: SplitName) -> str | None:
        """The fingerprint of a split whose images are available: already loaded, or in the folder
        that the command names (or, for a folder of images, its default folder). Otherwise None.

        Raises:
            UserError: the data set is damaged.
        """
        key = (data, name)
        if key not in self._splits:
            entry = catalogue.dataset(data.dataset)
            if entry.embedded or (entry.is_fixed and not catalogue.names_folder(self.data_dir)):
                return None
            try:
                found = load_split(data, name, self.data_dir)
            except NotFoundError:
                return None
            if self.download:  # `split` loads data that may be downloaded in all processes together
                return found.fingerprint
            self._splits[key] = found
        return self._splits[key].fingerprint

    def normalization(self, data: DataConfig) -> Normalization:
        """The normalisation given by a data configuration."""
        return parse_normalization(data.explicit().normalize, lambda: self.split(data, "train"))

    def batches(self, data: DataConfig, name: SplitName, normalization: Normalization) -> Batches:
        """The batches of a split on the device, with the configuration's augmentation."""
        return self.split(data, name).batches(normalization, data.pad, data.flip, self.device)
