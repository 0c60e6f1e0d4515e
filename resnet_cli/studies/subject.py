"""The network under study, with its data."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from resnet_cli.config.fields import validated
from resnet_cli.config.schema import DataConfig, RunConfig
from resnet_cli.datasets import catalogue
from resnet_cli.datasets.batches import Batches
from resnet_cli.datasets.catalogue import SplitName
from resnet_cli.datasets.normalisation import Normalization
from resnet_cli.models.factory import build
from resnet_cli.models.network import Network
from resnet_cli.models.survival import set_survival
from resnet_cli.results.layout import WEIGHTS_FILE, local_folder
from resnet_cli.results.provenance import recorded_weights
from resnet_cli.runtime import processes
from resnet_cli.runtime.errors import UserError
from resnet_cli.training.context import Context
from resnet_cli.training.run_folder import recorded_fingerprint
from resnet_cli.weights.load import DEFAULT_WEIGHTS, Loaded, load_network, read_safetensors

INITIALISATION = "initialisation"
"""The source of untrained weights, instead of a file."""
USUAL_STEMS = ("best", "checkpoint", "ckpt", "last", "model", "pytorch_model", "weights")
"""Names of files, up to the first dot, that do not say which network they hold."""


@dataclass(frozen=True)
class Subject:
    """A network under study and the data it is evaluated on."""

    loaded: Loaded
    data: DataConfig
    normalization: Normalization
    context: Context

    def batches(self, name: SplitName) -> Batches:
        """The batches of a split, normalised as in the network's training.

        Raises:
            UserError: the data set has other classes than the network.
        """
        split = self.context.split(self.data, name)
        if len(split.classes) != self.loaded.num_classes:
            raise UserError(
                f"{self.loaded.source} has {self.loaded.num_classes} classes, but "
                f"{self.data.dataset} has {len(split.classes)}; give its data set with --dataset"
            )
        return self.context.batches(self.data, name, self.normalization)

    def first(self, images: int | None) -> "Subject":
        """The subject with only this number of first test images; None: all."""
        if images is None:
            return self
        available = len(self.batches("test"))
        data = self.data.model_copy(update={"test_images": min(images, available)})
        return replace(self, data=data)

    def other_images(self, name: SplitName) -> str | None:
        """A message if the available images are not those of the network's training; None if they
        are, if it is not known, or if another data set was given."""
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
            f"fingerprint {found[:12]}… instead of {str(recorded)[:12]}…"
        )

    @property
    def network(self) -> Network:
        """The network itself."""
        return self.loaded.network

    @property
    def num_units(self) -> int:
        """The number of units."""
        return len(self.network.units)

    @property
    def label(self) -> str:
        """The network and the data set, for titles."""
        return f"{self.loaded.label}, {self.data.dataset}"

    @property
    def name(self) -> str:
        """For names of folders: the name of bundled weights, the run's folder or the stem of the
        file (after its folder's name if the stem is a usual one), and the data set if the network
        was trained on another one."""
        path = Path(os.path.abspath(self.loaded.source))
        if path.name == WEIGHTS_FILE:  # the name of the run's folder says more
            path = path.parent
        name = path.stem if path.is_file() else path.name
        if path.is_file() and name.split(".")[0] in USUAL_STEMS:
            name = f"{path.parent.name}-{name}"
        other = self.data.dataset != own_dataset(self.loaded)
        return f"{name}-{self.data.dataset}" if other else name


def results_folder(
    command: str, subjects: Sequence[Subject], options: Mapping[str, object]
) -> Path:
    """The default folder for the results of a command (`local_folder`).

    It is named after the networks. If the folder of that name has results of other weights, these
    are kept, and the name ends in the hashes of the weights.
    """
    name = "-and-".join(subject.name for subject in subjects)
    weights = [subject.loaded.sha256 for subject in subjects]
    folder = local_folder(command, name, options)
    own = local_folder(command, name, options, weights)

    def is_taken() -> bool:
        return os.path.exists(own) or not recorded_weights(folder) <= set(weights)

    return own if processes.from_first(is_taken) else folder


def check_names(subjects: Sequence[Subject]) -> None:
    """Check that each of several networks can have its own folder, named after it.

    Raises:
        UserError: two networks have the same name.
    """
    name, count = Counter(subject.name for subject in subjects).most_common(1)[0]
    if count > 1:
        raise UserError(
            f"{count} of the networks are named {name}, which is also the name of their folder of "
            "results; rename a file or folder"
        )


def own_dataset(loaded: Loaded) -> str | None:
    """The data set that a network was trained on; for third-party weights, the one that the number
    of classes suggests, if any."""
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

    Its data are those of `subject_of`.

    Args:
        overrides: see `load_network`.

    Raises:
        UserError: there is no such network, its data set is not known, or `test_size` is given for
            a data set whose images have one size.
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

    By default the data set and the normalisation are those of its training. For third-party weights
    the data set is inferred from the number of classes, and the normalisation is the usual one of
    the data set.

    Args:
        test_size: side of the test images of an image folder, pixels (paper 1 trains at 224 and
            tests at 320), see `DataConfig.test_size`.

    Raises:
        UserError: the data set is not known, or `test_size` is given for a data set whose images
            have one size.
    """
    entry = None if dataset is None else catalogue.dataset(dataset)
    if loaded.run is not None:
        data = loaded.run.data
    else:
        guess = dataset or own_dataset(loaded)
        if guess is None:
            raise UserError(
                f"{loaded.source} has {loaded.num_classes} classes and does not record its data "
                "set; give it with --dataset"
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
            raise UserError(f"--test-size: the images of {entry.name} have one size")
        changes["test_size"] = test_size
    if changes:
        data = validated(DataConfig, data.model_dump() | changes, "data")
    normalization = loaded.normalization
    if normalization is None or normalize is not None:
        normalization = context.normalization(data)
    loaded.network.to(context.device)
    return Subject(loaded, data, normalization, context)


def untrained_subject(context: Context, run: RunConfig) -> Subject:
    """The network at the start of a training, with the data of the training.

    Raises:
        UserError: the data set is not found, or is damaged.
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
    """The network of a training, for a study that needs neither its weights nor its data."""
    with torch.device("meta"):  # its weights are not used
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
    """The folder of the newest finished run that did not diverge; else bundled weights."""
    found = [path for path in runs.glob(f"*/{WEIGHTS_FILE}") if path.is_file()]
    finished = sorted(found, key=lambda p: (p.stat().st_mtime, str(p)))
    for weights in reversed(finished):
        if not _diverged(weights):
            return str(weights.parent)
    return DEFAULT_WEIGHTS


def _diverged(weights: Path) -> bool:
    """Whether the training of these weights diverged."""
    try:
        outcome = json.loads(read_safetensors(weights)[1]["outcome"])
        return bool(outcome.get("test_error", 0) is None)
    except (ValueError, KeyError, AttributeError, RecursionError):
        return False  # damaged; loading the file reports it
