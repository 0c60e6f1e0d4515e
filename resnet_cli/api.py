"""The Python API: a network, its data, interventions and measurements.

    import resnet_cli as rc

    net = rc.load("preact20-cifar10")
    data = rc.dataset("cifar10", root="DATA").test
    rc.delete(net, [4]).error(data)
    rc.lesions(net, data, k=range(1, 6))
    rc.spectrum(net, data).plot()

The objects are those that the commands use: a measurement has the numbers and the columns of the
command's CSV. Errors in the arguments are `UserError`, a `ValueError`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from resnet_cli.config.fields import error_message
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
from resnet_cli.weights.foreign import recognise
from resnet_cli.weights.load import Loaded, load_network

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
        """images [N, C, H, W], normalised -> logits [N, classes]."""
        return self.loaded.network

    @property
    def units(self) -> list[str]:
        """The names of the units in forward order, such as `stage2.unit05`."""
        return [place.name for place in self.loaded.network.places]

    @property
    def assumptions(self) -> dict[str, str]:
        """What the file of others does not say of the network, and the value that was taken."""
        return {assumed.key: assumed.value for assumed in self.loaded.assumptions}

    def error(self, data: "Data") -> float:
        """Top-1 error in percent.

        Raises:
            UserError: the data have other classes than the network, or are not found.
        """
        with _python_names():
            subject = data.subject(self)
            return evaluate(subject.loaded.network, subject.batches(data.split)).error

    def __repr__(self) -> str:
        return f"Net({self.loaded.label}, {len(self.units)} units, {self.loaded.source})"


@dataclass(frozen=True)
class Data:
    """Images with their labels, on which a network is measured."""

    context: Context
    config: DataConfig | None
    """None: the tensors of `batches`."""
    split: SplitName = "test"
    images: int | None = None
    normalize: str | None = None
    batches: Batches | None = None

    def first(self, images: int) -> "Data":
        """The first images only.

        Args:
            images: how many.

        Raises:
            UserError: there are fewer.
        """
        if self.batches is None:
            return replace(self, images=images)
        if images > len(self.batches):
            raise UserError(f"images={images}: there are {len(self.batches)}")
        kept = self.batches
        return replace(self, batches=_TensorBatches(kept.images[:images], kept.labels[:images]))

    def subject(self, net: Net) -> Subject:
        """The network with these data, as a study takes it."""
        if self.config is None:
            none = Normalization(torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
            return _OnData(net.loaded, DataConfig(), none, self.context, self)
        found = subject_of(
            self.context, net.loaded, self.config.dataset, self.normalize, self.images
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
    """A data set with its two splits."""

    train: Data
    test: Data


class Measurement:
    """The tables of a study, and its figure."""

    def __init__(self, study: Study, subject: Subject, tables: "dict[str, DataFrame]") -> None:
        self.tables = tables
        """Tables by name, with the columns of the CSV of that name."""
        self._study, self._subject = study, subject

    @property
    def table(self) -> "DataFrame":
        """The study's main table: the last that was measured."""
        return list(self.tables.values())[-1]

    def plot(self, name: str | None = None) -> "Figure":
        """Draw a figure of the study.

        Args:
            name: which, by the stem of its file; None: the first.

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
    """A network from a file or by name.

    Args:
        source: a checkpoint, the folder of a run, the name of bundled weights
            (`resnet-cli weights` lists them), or a Python file whose function `network` returns an
            adapted network (`resnet_cli.models.adapt`).
        model: what the shapes of others' weights cannot tell, such as `{"stride_in": "1x1"}`; by
            default what `Net.assumptions` states.

    Raises:
        UserError: nothing is there, it is damaged, or it fits no known network.
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
    """Any residual network in PyTorch, divided into stem, units and head.

    The parts are compared with the model: they must compute the same logits. Without parts, they
    follow from the names of the model's weights, which works for the networks that
    docs/checkpoints.md lists, such as torchvision's `resnet50` and `vit_b_16`.

    Args:
        model: inputs -> logits [N, classes].
        units: in forward order, each y = h(pre(x)) + F(pre(x)), x_next = f(y).
        example: inputs of the shape that the model takes; random numbers will do.

    Raises:
        UserError: the parts do not fit one another, or compute other logits than the model.
    """
    if stem is None or units is None or head is None:
        if not (stem is None and units is None and head is None):
            raise UserError("stem, units and head: give all three, or none")
        found = recognise(model, example)
        digest = adapt.weights_hash(found.network)
        return Net(
            Loaded(
                found.network,
                found.model,
                found.num_classes,
                type(model).__name__,
                digest,
                name=found.label,
                assumptions=found.assumptions,
            )
        )
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
        root: the folder that holds it; None: `$RESNET_CLI_DATA`, else `data`.
        normalize: what `--normalize` takes; None: as the network was trained, or the data set's
            usual normalisation for the weights of others.
        download: download CIFAR if it is not there.
        device: `auto`, `cpu`, `cuda` or `cuda:N`: where networks are measured.

    Raises:
        UserError: there is no such data set or device.
    """
    with _python_names():
        try:
            config = DataConfig.model_validate({"dataset": name})
        except ValueError as error:
            raise UserError(f"dataset {name!r}: {_first(error)}") from None
        where = None if root is None else Path(root)
        context = Context(pick_device(device), where, download)
    test = Data(context, config, "test", normalize=normalize)
    return Dataset(replace(test, split="train"), test)


def tensors(images: Tensor, labels: Tensor, *, device: str = "auto") -> Data:
    """Images that are ready for the network, with their labels.

    Args:
        images: floating-point [N, ...], normalised as the network takes them.
        labels: int64 [N].
        device: where networks are measured.

    Raises:
        UserError: the shapes or types differ from these.
    """
    if not images.is_floating_point() or labels.shape != images.shape[:1] or not len(labels):
        raise UserError(
            f"images of type {images.dtype} and shape {list(images.shape)} with labels "
            f"{list(labels.shape)}: floating-point images [N, ...] and labels [N] are expected"
        )
    chosen = pick_device(device)
    batches = _TensorBatches(images.to(chosen), labels.long().to(chosen))
    return Data(Context(chosen), None, batches=batches)


# --- interventions -------------------------------------------------------------------------------


def delete(net: Net, units: Iterable[int]) -> Net:
    """The network with the residual branches of these units deleted (paper 2, section 4.1).

    A new network that shares the weights; `net` stays as it is.

    Raises:
        UserError: a unit does not exist.
    """
    network = net.loaded.network
    walk = without(intact(len(network.units)), set(units))
    return Net(replace(net.loaded, network=along(network, walk)))


def reorder(net: Net, order: Sequence[int]) -> Net:
    """The network with its units in another order (paper 2, section 4.3).

    A new network that shares the weights; `net` stays as it is.

    Args:
        order: position i takes unit order[i]; only units of one stage that keep the shape can
            change places.

    Raises:
        UserError: `order` is not a permutation of the units, or moves one to another shape.
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
        k: numbers of units.
        samples: draws for each k > 1.
        recalibrate: re-estimate the batch-norm statistics along each lesion, on this number of
            training images without their labels (1000 is usual), of tensors on these themselves;
            None: the network's own.

    Returns:
        The columns of lesion_delete.csv, a row for each deletion; errors in percent. With
        `recalibrate` those of lesion_delete_recalibrated.csv.

    Raises:
        UserError: the network has fewer units, or other classes than the data; or no batch norms
            or training images, with `recalibrate`.
    """
    study = DeleteUnits(k=_numbers(k), samples=samples, recalibrate=recalibrate)
    return _measure(net, data, study, seed).table


def reorderings(
    net: Net, data: Data, swaps: int | Iterable[int] = 1, *, samples: int = 20, seed: int = 0
) -> "DataFrame":
    """The error after swapping random pairs of units of equal shape.

    Returns:
        The columns of lesion_reorder.csv, a row for each draw; errors in percent.

    Raises:
        UserError: the network has no two units of equal shape, or other classes than the data.
    """
    return _measure(net, data, ReorderUnits(swaps=_numbers(swaps), samples=samples), seed).table


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
        k: path lengths to sample; None: all.
        samples: sampled paths for each length.
        exact: also the gradient that all paths of a length deliver together.
        batch_size: images in a sample's batch.

    Returns:
        path_lengths, path_gradients and path_spectrum, the last as `table`.

    Raises:
        UserError: a length does not exist, or the data have other classes than the network.
    """
    lengths = None if k is None else _numbers(k)
    study = Paths(k=lengths, samples=samples, exact=exact, batch_size=batch_size, on="test")
    return _measure(net, data, study, seed)


def signal(net: Net, data: Data, *, seed: int = 0) -> Measurement:
    """Activations and gradients unit by unit, on one batch (paper 1, equations 3 to 8).

    Raises:
        UserError: the data have other classes than the network.
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
            name: DataFrame(rows, columns=list(table_of(name).header))
            for name, rows, _ in study.measure(subject, seed, progress)
        }
    return Measurement(study, subject, tables)


def _numbers(k: int | Iterable[int]) -> tuple[int, ...]:
    return (k,) if isinstance(k, int) else tuple(k)


@dataclass(frozen=True)
class _OnData(Subject):
    """A network with the data that the caller chose: they are the `test` split, whichever they
    are. Batch-norm statistics are re-estimated on the training split, of tensors on themselves."""

    chosen: Data

    def batches(self, name: SplitName) -> Batches:
        if self.chosen.batches is not None:
            return self.chosen.batches
        return super().batches(self.chosen.split if name == "test" else name)

    @property
    def label(self) -> str:
        return f"{self.loaded.label}, {self.chosen!r}"


class _TensorBatches(Batches):
    """Tensors as batches: nothing is augmented, and the images are normalised already."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels
        self.shape, self.device = tuple(images.shape[1:]), images.device
        self.classes = tuple(map(str, range(int(labels.max()) + 1)))

    def plain(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        chosen = indices.to(self.device)
        return self.images[chosen], self.labels[chosen]

    def evaluation(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return self.images[start:stop], self.labels[start:stop]


@contextmanager
def _python_names() -> Iterator[None]:
    """Errors name arguments (`dataset=`) where the commands name options (`--dataset`)."""
    try:
        yield
    except UserError as error:
        text = re.sub(r"--([a-z][a-z-]*)", lambda m: f"{m[1].replace('-', '_')}=", str(error))
        raise UserError(text) from error.__cause__


def _first(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    return error_message(errors()[0]) if errors else str(error)
