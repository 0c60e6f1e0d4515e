"""The network under study, with its data."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from resnet_cli.config.schema import DataConfig, RunConfig
from resnet_cli.datasets import catalogue
from resnet_cli.datasets.batches import Batches
from resnet_cli.datasets.catalogue import SplitName
from resnet_cli.datasets.normalisation import Normalization
from resnet_cli.models import build
from resnet_cli.models.survival import set_survival
from resnet_cli.results.layout import WEIGHTS_FILE
from resnet_cli.runtime.errors import UserError
from resnet_cli.training.context import Context
from resnet_cli.training.run_folder import recorded_fingerprint
from resnet_cli.weights.load import DEFAULT_WEIGHTS, Loaded, load_network, read_safetensors

INITIALISATION = "initialisation"
"""What stands for the file of weights that no training has changed."""


@dataclass(frozen=True)
class Subject:
    """A network under study and the data it is asked about."""

    loaded: Loaded
    data: DataConfig
    normalization: Normalization
    context: Context

    def batches(self, name: SplitName) -> Batches:
        """The batches of a split, as the network was trained to see them.

        Raises:
            UserError: the data set has other classes than the network.
        """
        split = self.context.split(self.data, name)
        if len(split.classes) != self.loaded.num_classes:
            raise UserError(
                f"{self.loaded.source} tells {self.loaded.num_classes} classes apart, "
                f"{self.data.dataset} has {len(split.classes)}; name its data set by --dataset"
            )
        return self.context.batches(self.data, name, self.normalization)

    def first(self, images: int | None) -> "Subject":
        """The network with the first test images only; None: all of them."""
        if images is None:
            return self
        available = len(self.batches("test"))
        data = self.data.model_copy(update={"test_images": min(images, available)})
        return replace(self, data=data)

    def other_images(self, name: SplitName) -> str | None:
        """A line for people if the images at hand are not those that the network's own training
        used; None where they are, where that is not known, or where other data were named."""
        run, path = self.loaded.run, Path(self.loaded.source)
        if run is None or run.data != self.data:
            return None
        folder = path.parent if path.name == WEIGHTS_FILE else path
        recorded = recorded_fingerprint(folder, f"{self.data.dataset}/{name}")
        found = self.context.split(self.data, name).fingerprint
        if recorded in (None, found):
            return None
        return (
            f"these {name} images are not those of the training of {self.loaded.source}: "
            f"fingerprint {found[:12]}…, there {str(recorded)[:12]}…"
        )

    @property
    def num_units(self) -> int:
        """Units of the network."""
        return len(self.loaded.network.units)

    @property
    def label(self) -> str:
        """For titles: the network and the data set."""
        return f"{self.loaded.label}, {self.data.dataset}"

    @property
    def name(self) -> str:
        """For folders: the bundled weights' name, the run's folder or the file's stem, and the data
        set where it is not the weights' own."""
        path = Path(os.path.abspath(self.loaded.source))
        if path.name == WEIGHTS_FILE:  # the run's folder says more
            path = path.parent
        name = path.stem if path.is_file() else path.name
        other = self.data.dataset != own_dataset(self.loaded)
        return f"{name}-{self.data.dataset}" if other else name


def own_dataset(loaded: Loaded) -> str | None:
    """The data set that a network was trained on; for weights of others, what the number of classes
    suggests, if anything."""
    if loaded.run is not None:
        return loaded.run.data.dataset
    assumed = (e.name for e in catalogue.datasets() if e.assumed_for == loaded.num_classes)
    return next(assumed, None)


def find_subject(
    context: Context,
    checkpoint: str | None,
    dataset: str | None = None,
    normalize: str | None = None,
    test_images: int | None = None,
    test_size: int | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Subject:
    """The network that `--checkpoint` names, else the newest finished run, else bundled weights.

    Its data follow from it (`subject_of`).

    Args:
        overrides: see `load_network`.

    Raises:
        UserError: there is no such network, nothing says which data it takes, or these have
            images of one size only.
    """
    reference = checkpoint if checkpoint is not None else _newest(context.runs)
    loaded = load_network(reference, overrides)
    return subject_of(context, loaded, dataset, normalize, test_images, test_size)


def subject_of(
    context: Context,
    loaded: Loaded,
    dataset: str | None = None,
    normalize: str | None = None,
    test_images: int | None = None,
    test_size: int | None = None,
) -> Subject:
    """A network with its data.

    Its data set and normalisation are those of its training. For weights of others the data set
    follows from the number of classes and the normalisation defaults to that set's usual one,
    unless given.

    Args:
        test_size: pixels a side of the test images of an image folder (paper 1 tests at 320 what
            was trained at 224), see `DataConfig.test_size`.

    Raises:
        UserError: nothing says which data the network takes, or these have images of one size
            only.
    """
    entry = None if dataset is None else catalogue.dataset(dataset)
    if loaded.run is not None:
        data = loaded.run.data
    else:
        guess = dataset or own_dataset(loaded)
        if guess is None:
            raise UserError(
                f"{loaded.source} tells {loaded.num_classes} classes apart and says nothing of "
                "its data; name the data set by --dataset"
            )
        entry = catalogue.dataset(guess)
        data = DataConfig(dataset=guess, normalize=entry.usual_normalize)
    changes: dict[str, object] = {"test_images": test_images} if test_images else {}
    if dataset is not None and dataset != data.dataset:
        changes = {"dataset": dataset, "image_size": None, "test_size": None, "augment": "auto"}
        changes |= {"train_images": None, "test_images": test_images}
    if normalize is not None:
        changes["normalize"] = normalize
    if test_size is not None:
        entry = entry or catalogue.dataset(data.dataset)
        if entry.image_sizes:
            raise UserError(f"--test-size: {entry.name} is tested at its own size")
        changes["test_size"] = test_size
    if changes:
        data = DataConfig.model_validate(data.model_dump() | changes)
    normalization = loaded.normalization
    if normalization is None or normalize is not None:
        normalization = context.normalization(data)
    loaded.network.to(context.device)
    return Subject(loaded, data, normalization, context)


def untrained_subject(context: Context, run: RunConfig) -> Subject:
    """The network that a training starts from, with the data of that training.

    Raises:
        UserError: the data set is not found or damaged.
    """
    num_classes = len(context.split(run.data, "train").classes)
    network = build(run.model, num_classes, run.seed).eval().to(context.device)
    set_survival(network, run.train)
    loaded = Loaded(
        network,
        run.model,
        num_classes,
        source=f"{INITIALISATION}, seed {run.seed}",
        sha256=run.hash,
        run=run,
        is_trained=False,
    )
    return Subject(loaded, run.data, context.normalization(run.data), context)


def dataless_subject(context: Context, run: RunConfig) -> Subject:
    """The network of a training for a study that needs neither its weights nor its data."""
    with torch.device("meta"):  # its units are counted, its weights never used
        network = build(run.model, 10)
    loaded = Loaded(
        network,
        run.model,
        10,
        INITIALISATION,
        run.hash,
        run,
        is_trained=False,
    )
    none = Normalization(torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    return Subject(loaded, run.data, none, context)


def _newest(runs: Path) -> str:
    """The newest finished run's folder, but none that diverged; else bundled weights."""
    found = [path for path in runs.glob(f"*/{WEIGHTS_FILE}") if path.is_file()]
    finished = sorted(found, key=lambda p: (p.stat().st_mtime, str(p)))
    for weights in reversed(finished):
        if not _diverged(weights):
            return str(weights.parent)
    return DEFAULT_WEIGHTS


def _diverged(weights: Path) -> bool:
    """The training of these weights diverged: there is nothing to study in them."""
    try:
        outcome = json.loads(read_safetensors(weights)[1]["outcome"])
        return bool(outcome.get("test_error", 0) is None)
    except (ValueError, KeyError, AttributeError, RecursionError):
        return False  # damaged: loading it says how
