"""The Python API: the objects and numbers of the commands, with Python's names."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import resnet_cli as rc
from resnet_cli.config.schema import ModelConfig
from resnet_cli.models.adapt import Parts
from resnet_cli.models.factory import build
from resnet_cli.results.columns import table_of
from resnet_cli.studies.batch_statistics import estimate, training_images
from resnet_cli.studies.walks import along, delete, evaluate_walks, intact
from resnet_cli.training.context import Context


@pytest.fixture(scope="module")
def net() -> rc.Net:
    return rc.load("preact56-digits")


@pytest.fixture(scope="module")
def data() -> rc.Data:
    return rc.dataset("digits", device="cpu").test.first(60)


class Tiny(nn.Module):
    """Two residual layers on vectors of four numbers, as images [N, 4, 1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.first(x)
        x = x + self.second(x)
        return x.flatten(1)


@pytest.fixture(scope="module")
def tiny() -> rc.Net:
    torch.manual_seed(0)
    model = Tiny()
    units = [Parts(F=model.first), Parts(F=model.second)]
    example = torch.randn(2, 4, 1, 1)
    return rc.wrap(model, stem=nn.Identity(), units=units, head=nn.Flatten(), example=example)


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, resnet_cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_name_is_also_a_subpackage() -> None:
    package = Path(rc.__file__).parent
    folders = {path.name for path in package.iterdir() if path.is_dir()}
    assert not folders & set(rc.__all__)
    assert all(hasattr(rc, name) for name in rc.__all__)


def test_the_error_is_that_of_the_card(net: rc.Net) -> None:
    whole = rc.dataset("digits", device="cpu").test
    assert net.error(whole) == pytest.approx(net.loaded.outcome["test_error"], abs=0.3)
    assert len(net.units) == 27
    assert net.units[0] == "stage1.unit01"


def test_a_deletion_is_a_new_network_and_equals_the_study(net: rc.Net, data: rc.Data) -> None:
    before = {name: t.clone() for name, t in net.module.state_dict().items()}
    intact_error = net.error(data)
    frame = rc.lesions(net, data)
    assert list(frame.columns) == list(table_of("lesion_delete").column_names)
    assert len(frame) == 27
    for unit in (0, 9, 20):
        row = frame[frame["blocks"] == str(unit)].iloc[0]
        assert rc.delete(net, [unit]).error(data) == pytest.approx(row["test_error"])
    assert net.error(data) == intact_error == frame["baseline_error"].iloc[0]
    assert all(torch.equal(t, before[name]) for name, t in net.module.state_dict().items())
    shared = {p.data_ptr() for p in net.module.parameters()}
    assert {p.data_ptr() for p in rc.delete(net, [0]).module.parameters()} == shared


def test_the_first_images_of_either_split_are_measured(net: rc.Net) -> None:
    both = rc.dataset("digits", device="cpu")
    for whole, images in ((both.train, 1437), (both.test, 360)):
        assert len(whole.subject(net).batches("test")) == images
        few = whole.first(100).subject(net)
        assert len(few.batches("test")) == 100
        assert len(few.batches("train")) == 1437, "recalibration uses the training split"
        measured, _ = few.batches("test").evaluation(0, 100)
        assert torch.equal(measured, whole.subject(net).batches("test").evaluation(0, 100)[0])
    assert rc.lesions(net, both.train.first(100))["images"].eq(100).all()


def test_recalibrated_lesions_are_those_of_the_command(net: rc.Net, data: rc.Data) -> None:
    frame = rc.lesions(net, data, recalibrate=20)
    assert list(frame.columns) == list(table_of("lesion_delete_recalibrated").column_names)
    network, images = net.loaded.network, data.subject(net).batches("test")
    train = rc.dataset("digits", device="cpu").train.subject(net).batches("train")
    walks = [intact(27), delete(intact(27), [9])]
    statistics = estimate(network, training_images(train, 20, 0, seed=0), walks, [0, 0])
    pairs = dict(zip(walks, statistics, strict=True))
    (outcome,) = evaluate_walks(network, images, walks[1:], statistics=pairs)
    assert frame.loc[frame["blocks"] == "9", "test_error"].item() == outcome.error
    assert (frame["test_error"] != rc.lesions(net, data)["test_error"]).any()


def test_a_reordered_network_equals_its_walk(net: rc.Net, data: rc.Data) -> None:
    order = list(range(27))
    order[3], order[5] = 5, 3
    other = rc.reorder(net, order)
    assert other.units == net.units
    assert rc.reorder(other, order).error(data) == net.error(data)
    walk = tuple(intact(27)[index] for index in order)
    batches = data.subject(net).batches("test")
    (outcome,) = evaluate_walks(net.loaded.network, batches, [walk], engine="plain")
    assert other.error(data) == pytest.approx(outcome.error)
    frame = rc.reorderings(net, data, swaps=2, samples=3)
    assert list(frame.columns) == list(table_of("lesion_reorder").column_names)
    assert len(frame) == 3


@pytest.mark.parametrize("fields", [{}, {"placement": "original"}, {"family": "vgg"}])
def test_a_network_along_a_walk_computes_what_the_walk_computes(fields: dict[str, str]) -> None:
    config = ModelConfig.model_validate({"depth": 10 if "family" in fields else 8} | fields)
    network = build(config, 10, 0).eval()
    walk = delete(intact(len(network.units)), [1])
    images = torch.randn(3, 3, 32, 32)
    x = network.stem(images)
    for step in walk:
        unit = network.unit_list[step.unit]
        x = unit.skip(x) if step.deleted else unit(x)
    assert torch.equal(along(network, walk)(images), network.head(x))
    deleted = along(network, delete(walk, range(len(walk))))
    assert deleted.is_plain == network.is_plain == ("family" in fields)


def test_the_spectrum_sums_to_the_gradient_and_is_drawn(net: rc.Net, data: rc.Data) -> None:
    found = rc.spectrum(net, data.first(20), k=[1, 2], samples=2)
    assert list(found.tables) == ["path_lengths", "path_gradients", "path_spectrum"]
    assert found.table["share_exact"].sum() == pytest.approx(1)
    assert found.plot().axes
    with pytest.raises(rc.UserError, match="no figure 'other'"):
        found.plot("other")
    assert "share_exact" in repr(found) + found._repr_html_()


def test_a_deleted_unit_has_no_paths(tiny: rc.Net) -> None:
    torch.manual_seed(1)
    data = rc.tensors(torch.randn(8, 4, 1, 1), torch.randint(4, (8,)), device="cpu")
    whole = rc.spectrum(tiny, data, samples=1).table
    assert (whole["exact_norm"] > 0).all()
    left = rc.spectrum(rc.delete(tiny, [0]), data, samples=1).table
    assert left["exact_norm"].iloc[2] == 0
    assert (left["exact_norm"].iloc[:2] > 0).all()


def test_signals_are_measured_on_the_data_given(tiny: rc.Net) -> None:
    data = rc.tensors(torch.ones(8, 4, 1, 1), torch.zeros(8, dtype=torch.long), device="cpu")
    frame = rc.signal(tiny, data).table
    first = frame[frame["unit"] == 0].iloc[0]
    assert first["activation_norm"] == pytest.approx(2.0)


def test_a_network_goes_to_the_device_of_the_tensors() -> None:
    """The meta device stands for a GPU."""
    model = Tiny()
    units = [Parts(F=model.first), Parts(F=model.second)]
    example = torch.randn(2, 4, 1, 1)
    net = rc.wrap(model, stem=nn.Identity(), units=units, head=nn.Flatten(), example=example)
    data = rc.tensors(example, torch.tensor([0, 1]), device="cpu")
    assert data.subject(net).network.device.type == "cpu"
    elsewhere = replace(data, context=Context(torch.device("meta")))
    assert elsewhere.subject(net).network.device.type == "meta"


def test_wrap_compares_with_the_model() -> None:
    model = Tiny()
    units = [Parts(F=model.second), Parts(F=model.first)]
    with pytest.raises(rc.UserError, match="logits of stem, units and head differ"):
        rc.wrap(
            model,
            stem=nn.Identity(),
            units=units,
            head=nn.Flatten(),
            example=torch.randn(2, 4, 1, 1),
        )


def test_errors_name_arguments_and_not_options(net: rc.Net, tmp_path: Path) -> None:
    with pytest.raises(rc.UserError, match="no-such") as caught:
        rc.load(tmp_path / "no-such.pt")
    assert "--" not in str(caught.value)
    with pytest.raises(rc.UserError, match="dataset 'mnist'"):
        rc.dataset("mnist")  # type: ignore[arg-type]
    missing = rc.dataset("cifar10", root=tmp_path, device="cpu").test
    with pytest.raises(rc.UserError) as caught:
        net.error(missing)
    assert "--" not in str(caught.value)
    with pytest.raises(rc.UserError, match="unit 99 does not exist"):
        rc.delete(net, [99])
    with pytest.raises(rc.UserError, match="floating-point"):
        rc.tensors(torch.zeros(3, 4, dtype=torch.uint8), torch.zeros(3))
    with pytest.raises(rc.UserError, match="device=") as caught:
        rc.tensors(torch.zeros(3, 4), torch.zeros(3), device="gpu")
    assert "--" not in str(caught.value)
    assert issubclass(rc.UserError, ValueError)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda net, data: rc.lesions(net, data, samples=0), "lesions: samples: must be greater"),
        (lambda net, data: rc.lesions(net, data, k=0), "lesions: k: 0 is not valid"),
        (lambda net, data: rc.lesions(net, data, k=2.5), "lesions: k: '.*' is not a range"),
        (lambda net, data: rc.lesions(net, data, recalibrate=0), "lesions: recalibrate: must be"),
        (lambda net, data: rc.reorderings(net, data, swaps=[]), "reorderings: swaps: the range is"),
        (lambda net, data: rc.spectrum(net, data, k=-1), "spectrum: k: '.*' is not a range"),
        (lambda net, data: rc.spectrum(net, data, batch_size=0), "spectrum: batch_size: must be"),
        (lambda net, data: net.error(data.first(2 * 10**9)), "data: test_images: must be less"),
    ],
)
def test_a_bad_number_is_one_line(
    measure: Callable[[rc.Net, rc.Data], object], message: str, net: rc.Net, data: rc.Data
) -> None:
    with pytest.raises(rc.UserError, match=message) as caught:
        measure(net, data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("images", [0, -3])
def test_at_least_one_image_is_measured(images: int, data: rc.Data) -> None:
    own = rc.tensors(torch.randn(8, 4, 1, 1), torch.zeros(8), device="cpu")
    for some in (data, own):
        with pytest.raises(rc.UserError, match=f"^images={images}: give at least 1$"):
            some.first(images)


def test_the_notebook_runs_from_top_to_bottom() -> None:
    path = Path(__file__).parents[1] / "examples" / "notebook.ipynb"
    cells = json.loads(path.read_text())["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), str(path), "exec"), names)
    assert isinstance(names["mine"], rc.Net)
    assert len(names["several"]) == 20  # type: ignore[arg-type]
