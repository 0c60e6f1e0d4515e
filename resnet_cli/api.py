"""The Python API: a network, its data, interventions and measurements.

    import resnet_cli as rc

    net = rc.load("preact20-cifar10")
    data = rc.dataset("cifar10", root="DATA").test
    rc.delete(net, [4]).error(data)
    rc.lesions(net, data, k=range(1, 6))
    rc.spectrum(net, data).plot()

These functions use the same code as the commands: a measurement has the numbers and columns of the
command's CSV. Invalid arguments raise `UserError`, a `ValueError`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from resnet_cli.config.fields import first_error_message, validated
from resnet_cli.config.schema import DataConfig
from resnet_cli.datasets.batches import Batches
from resnet_cli.datasets.catalogue import SplitName
from resnet_cli.datasets.normalisation import Normalization
from resnet_cli.figures.titles import Heading, network_title
from resnet_cli.models import adapt
from resnet_cli.results.columns import table_of
from resnet_cli.runtime.device import pick_device
from resnet_cli.runtime.display import Display
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.base import Study
from resnet_cli.studies.delete import DeleteUnits
from resnet_cli.studies.paths.study import Paths
from resnet_cli.studies.progress import Progress
from resnet_cli.studies.reorder import ReorderUnits
from resnet_cli.studies.runner import heading_for
from resnet_cli.studies.signal import Signal
from resnet_cli.studies.subject import Subject, subject_of
from resnet_cli.studies.walks import along, intact
from resnet_cli.studies.walks import delete as without
from resnet_cli.studies.walks import reorder as in_order
from resnet_cli.training.context import Context
from resnet_cli.training.evaluation import evaluate
from resnet_cli.weights.load import Loaded, load_network
from resnet_cli.weights.third_party import recognise

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = [
    "Data",
    "Dataset",
    "Measurement",
    "Net",
    "UserError",
    "dataset",
    "delete",
    "lesions",
    "load",
    "reorder",
    "reorderings",
    "signal",
    "spectrum",
    "tensors",
    "wrap",
]


@dataclass(frozen=True)
class Net:
    """A network as a stem, a list of residual units, and a head."""

    loaded: Loaded

    @property
    def module(self) -> nn.Module:
        """The PyTorch module: normalised images [N, C, H, W] -> logits [N, classes]."""
        return self.loaded.network

    @property
    def units(self) -> list[str]:
        """The names of the units in forward order, such as `stage2.unit05`."""
        return [place.name for place in self.loaded.network.places]

    @property
    def assumptions(self) -> dict[str, str]:
        """Properties of the network that a third-party file does not specify, and the values that
        were assumed."""
        return {assumed.key: assumed.value for assumed in self.loaded.assumptions}

    def error(self, data: "Data") -> float:
        """Top-1 error in percent.

        Raises:
            UserError: the network has other classes than the data, or the data were not found.
        """
        with _python_names():
            subject = data.subject(self)
            return evaluate(subject.loaded.network, subject.batches(data.split)).error

    def __repr__(self) -> str:
        return f"Net({self.loaded.label}, {len(self.units)} units, {self.loaded.source})"


@dataclass(frozen=True)
class Data:
    """Images with labels, on which networks are measured."""

    context: Context
    config: DataConfig | None
    """None for the tensors in `batches`."""
    split: SplitName = "test"
    images: int | None = None
    normalize: str | None = None
    batches: Batches | None = None

    def first(self, images: int) -> "Data":
        """Only the first `images` images.

        Raises:
            UserError: there are fewer images, or `images` is below 1. For a data set, which is read
                later, the first measurement compares it with the number of images.
        """
        if images < 1:
            raise UserError(f"images={images}: give at least 1")
        if self.batches is None:
            return replace(self, images=images)
        if images > len(self.batches):
            raise UserError(f"images={images}: there are only {len(self.batches)} images")
        kept = self.batches
        return replace(self, batches=_TensorBatches(kept.images[:images], kept.labels[:images]))

    def subject(self, net: Net) -> Subject:
        """The network with these data, as the subject of a study."""
        if self.config is None:
            none = Normalization(torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
            net.loaded.network.to(self.context.device)
            return _OnData(net.loaded, DataConfig(), none, self.context, self)
        test_images = self.images if self.split == "test" else None
        found = subject_of(
            self.context, net.loaded, self.config.dataset, self.normalize, test_images
        )
        return _OnData(found.loaded, found.data, found.normalization, found.context, self)

    def __repr__(self) -> str:
        if self.batches is not None:
            return f"Data({len(self.batches)} images)"
        assert self.config is not None
        count = "" if self.images is None else f", {self.images} images"
        return f"Data({self.config.dataset}, {self.split}{count})"


@dataclass(frozen=True)
class Dataset:
    """The two splits of a data set."""

    train: Data
    test: Data


class Measurement:
    """The tables and figures of a study."""

    def __init__(self, study: Study, subject: Subject, tables: "dict[str, DataFrame]") -> None:
        self.tables = tables
        """Tables by name, with the columns of the CSV files with these names."""
        self._study, self._subject = study, subject

    @property
    def table(self) -> "DataFrame":
        """The study's main table, which is the last one that was measured."""
        return list(self.tables.values())[-1]

    def plot(self, name: str | None = None) -> "Figure":
        """Draw a figure of the study.

        Args:
            name: the figure's file name without suffix; None means the first figure.

        Raises:
            UserError: the study has no such figure.
        """
        loaded = self._subject.loaded
        heading = Heading(None, network_title(loaded.label), self._subject.data.dataset)
        figures = self._study.figures(self.tables, heading_for(self._subject, heading))
        by_name = {figure.name: figure for figure in figures}
        chosen = next(iter(by_name), None) if name is None else name
        if chosen not in by_name:
            raise UserError(f"no figure {chosen!r}; this study has {', '.join(by_name) or 'none'}")
        return by_name[chosen].draw()

    def _repr_html_(self) -> str:
        return str(self.table._repr_html_())  # type: ignore[operator]

    def __repr__(self) -> str:
        return repr(self.table)


# --- networks and data ---------------------------------------------------------------------------


def load(source: str | Path, *, model: Mapping[str, str] | None = None) -> Net:
    """Load a network from a file or by name.

    Args:
        source: a checkpoint, the folder of a run, the name of bundled weights
            (`resnet-cli weights` lists them), or a Python file whose function `network` returns an
            adapted network (`resnet_cli.models.adapt`).
        model: properties that cannot be inferred from the shapes of third-party weights, such as
            `{"stride_in": "1x1"}`; `Net.assumptions` lists the values assumed by default.

    Raises:
        UserError: the source does not exist, is damaged, or does not match any known network.
    """
    with _python_names():
        return Net(load_network(source, model))


def wrap(
    model: nn.Module,
    *,
    stem: nn.Module | None = None,
    units: "Sequence[adapt.Parts] | None" = None,
    head: nn.Module | None = None,
    example: Tensor,
) -> Net:
    """Use any residual network in PyTorch, divided into stem, units and head.

    The parts must compute the same logits as the model, which is checked. If they are not given,
    they are inferred from the names of the model's weights. This works for the networks listed in
    docs/checkpoints.md, such as torchvision's `resnet50` and `vit_b_16`.

    Args:
        model: inputs -> logits [N, classes].
        units: in forward order, each y = h(pre(x)) + F(pre(x)), x_next = f(y).
        example: inputs of the model's input shape; they may be random.

    Raises:
        UserError: the parts do not fit together, or compute other logits than the model.
    """
    if stem is None or units is None or head is None:
        if not (stem is None and units is None and head is None):
            raise UserError("stem, units, head: give all three or none of them")
        return Net(recognise(model, example))
    adapted = adapt.adapt(model, stem=stem, units=units, head=head, example=example)
    name = type(model).__name__
    digest = adapt.weights_hash(adapted.network)
    return Net(Loaded(adapted.network, None, adapted.num_classes, name, digest))


def dataset(
    name: str,
    root: str | Path | None = None,
    *,
    normalize: str | None = None,
    download: bool = False,
    device: str = "auto",
) -> Dataset:
    """A data set by name. Its files are read when they are first needed.

    Args:
        root: the folder of data sets; None means `$RESNET_CLI_DATA`, or `data` if that is not set.
        normalize: a value of `--normalize`; None means the normalisation with which the network
            was trained or, for third-party weights, the data set's usual one.
        download: download CIFAR if it is not there.
        device: `auto`, `cpu`, `cuda` or `cuda:N`, where networks are measured.

    Raises:
        UserError: there is no such data set or device.
    """
    with _python_names():
        try:
            config = DataConfig.model_validate({"dataset": name})
        except ValueError as error:
            raise UserError(f"dataset {name!r}: {first_error_message(error)}") from None
        where = None if root is None else Path(root)
        context = Context(pick_device(device), where, download)
    test = Data(context, config, "test", normalize=normalize)
    return Dataset(replace(test, split="train"), test)


def tensors(images: Tensor, labels: Tensor, *, device: str = "auto") -> Data:
    """Normalised images and their labels, as tensors.

    Args:
        images: floating-point [N, ...], normalised as the network expects.
        labels: int64 [N].
        device: where networks are measured.

    Raises:
        UserError: a shape or type is not as above.
    """
    if not images.is_floating_point() or labels.shape != images.shape[:1] or not len(labels):
        raise UserError(
            f"images of type {images.dtype} and shape {list(images.shape)} with labels "
            f"{list(labels.shape)}: give floating-point images [N, ...] and labels [N]"
        )
    with _python_names():
        chosen = pick_device(device)
    batches = _TensorBatches(images.to(chosen), labels.long().to(chosen))
    return Data(Context(chosen), None, batches=batches)


# --- interventions -------------------------------------------------------------------------------


def delete(net: Net, units: Iterable[int]) -> Net:
    """The network with the residual branches of these units deleted (paper 2, section 4.1).

    Returns a new network that shares the weights; `net` does not change.

    Raises:
        UserError: a unit does not exist.
    """
    network = net.loaded.network
    walk = without(intact(len(network.units)), set(units))
    return Net(replace(net.loaded, network=along(network, walk)))


def reorder(net: Net, order: Sequence[int]) -> Net:
    """The network with its units in another order (paper 2, section 4.3).

    Returns a new network that shares the weights; `net` does not change.

    Args:
        order: unit order[i] moves to position i. Only units of the same stage that do not change
            the shape can be exchanged.

    Raises:
        UserError: `order` is not a permutation of the units, or a unit does not fit its position.
    """
    network = net.loaded.network
    walk = in_order(intact(len(network.units)), order, network.places)
    return Net(replace(net.loaded, network=along(network, walk)))


# --- measurements --------------------------------------------------------------------------------


def lesions(
    net: Net,
    data: Data,
    k: int | Iterable[int] = 1,
    *,
    samples: int = 20,
    recalibrate: int | None = None,
    seed: int = 0,
) -> "DataFrame":
    """The error after deleting k units at random; k = 1 deletes each unit in turn.

    Args:
        k: one or more numbers of units.
        samples: random draws for each k > 1.
        recalibrate: re-estimate batch-norm statistics for each lesion on this number of training
            images, without labels (1000 is usual), or on the given tensors themselves; None keeps
            the network's own statistics.

    Returns:
        The columns of lesion_delete.csv, with one row for each deletion; errors in percent. With
        `recalibrate`, those of lesion_delete_recalibrated.csv.

    Raises:
        UserError: the network has fewer than k units, or other classes than the data; with
            `recalibrate`, also if there are no batch norms or no training images.
    """
    fields = {"k": _numbers(k), "samples": samples, "recalibrate": recalibrate}
    return _measure(net, data, validated(DeleteUnits, fields, "lesions"), seed).table


def reorderings(
    net: Net, data: Data, swaps: int | Iterable[int] = 1, *, samples: int = 20, seed: int = 0
) -> "DataFrame":
    """The error after swapping random pairs of units of equal shape.

    Returns:
        The columns of lesion_reorder.csv, with one row for each draw; errors in percent.

    Raises:
        UserError: the network does not have two units of equal shape, or it has other classes than
            the data.
    """
    fields = {"swaps": _numbers(swaps), "samples": samples}
    return _measure(net, data, validated(ReorderUnits, fields, "reorderings"), seed).table


def spectrum(
    net: Net,
    data: Data,
    *,
    k: int | Iterable[int] | None = None,
    samples: int = 20,
    exact: bool = True,
    batch_size: int = 128,
    seed: int = 0,
) -> Measurement:
    """The gradient at the input by path length, sampled and exact (paper 2, Figure 6).

    Args:
        k: path lengths to sample; None means all.
        samples: sampled paths for each length.
        exact: also compute the total gradient over all paths of each length.
        batch_size: images in the batch of each sample.

    Returns:
        The tables path_lengths, path_gradients and path_spectrum; `table` is the last one.

    Raises:
        UserError: there is no path of a length, or the network has other classes than the data.
    """
    fields = {
        "k": None if k is None else _numbers(k),
        "samples": samples,
        "exact": exact,
        "batch_size": batch_size,
        "on": "test",
    }
    return _measure(net, data, validated(Paths, fields, "spectrum"), seed)


def signal(net: Net, data: Data, *, seed: int = 0) -> Measurement:
    """Activations and gradients of every unit on one batch (paper 1, equations 3 to 8).

    Raises:
        UserError: the network has other classes than the data.
    """
    return _measure(net, data, Signal(on="test"), seed)


def _measure(net: Net, data: Data, study: Study, seed: int) -> Measurement:
    """All tables of a study, in memory."""
    from pandas import DataFrame

    with _python_names():
        subject = data.subject(net)
        study.check(subject)
        progress = Progress(Display(silent=True), wanted=study.names())
        tables = {
            name: DataFrame(rows, columns=list(table_of(name).column_names))
            for name, rows, _ in study.measure(subject, seed, progress)
        }
    return Measurement(study, subject, tables)


def _numbers(k: int | Iterable[int]) -> tuple[int, ...]:
    return tuple(k) if isinstance(k, Iterable) else (k,)


@dataclass(frozen=True)
class _OnData(Subject):
    """A network with the caller's data as its `test` split, whichever split they are. Batch-norm
    statistics are re-estimated on the training split or, for tensors, on the tensors themselves."""

    chosen: Data

    def batches(self, name: SplitName) -> Batches:
        if self.chosen.batches is not None:
            return self.chosen.batches
        if name == "test" and self.chosen.split == "train":
            data = self.data
            if self.chosen.images is not None:
                # Not in `subject_of`: normalisation and recalibration use the whole split.
                changed = data.model_dump() | {"train_images": self.chosen.images}
                data = validated(DataConfig, changed, "data")
            return replace(self, data=data).batches("train")
        return super().batches(name)

    @property
    def label(self) -> str:
        return f"{self.loaded.label}, {self.chosen!r}"


class _TensorBatches(Batches):
    """Batches from tensors of normalised images, without augmentation."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels
        self.shape, self.device = tuple(images.shape[1:]), images.device
        self.classes = tuple(map(str, range(int(labels.max()) + 1)))

    def unaugmented(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        chosen = indices.to(self.device)
        return self.images[chosen], self.labels[chosen]

    def evaluation(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return self.images[start:stop], self.labels[start:stop]


@contextmanager
def _python_names() -> Iterator[None]:
    """Replace the names of options in errors (`--dataset`) by those of arguments (`dataset=`)."""
    try:
        yield
    except UserError as error:
        text = re.sub(r"--([a-z][a-z-]*)", lambda m: f"{m[1].replace('-', '_')}=", str(error))
        raise UserError(text) from error.__cause__
