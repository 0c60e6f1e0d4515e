"""This program's weights files: their content and size, and errors about bad files."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from resnet_cli.config.schema import DataConfig, ModelConfig, RunConfig, TrainConfig
from resnet_cli.datasets.normalisation import Normalization
from resnet_cli.models.factory import build
from resnet_cli.models.network import Network
from resnet_cli.results.layout import CHECKPOINT_FILE, WEIGHTS_FILE
from resnet_cli.runtime.errors import UserError
from resnet_cli.training.checkpoint import Position, save_checkpoint
from resnet_cli.weights import cards
from resnet_cli.weights.cards import bundled_folder, bundled_names, unusual_width
from resnet_cli.weights.load import (
    load_network,
    read_safetensors,
    safetensors_bytes,
    weights_bytes,
)

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NORMALIZATION = Normalization(
    torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
)


def make_run(train: dict[str, Any] | None = None, **model: Any) -> RunConfig:
    return RunConfig(
        model=ModelConfig(**({"depth": 8, "widths": (4, 8, 16)} | model)),
        data=DataConfig(train_images=256, pad=2),
        train=TrainConfig(epochs=1, **(train or {})),
        seed=0,
    )


def make_network(run: RunConfig) -> Network:
    """With statistics that differ from their initial values."""
    network = build(run.model, 10, run.seed)
    network.train()
    with torch.no_grad():
        network(torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(1)))
    return network.eval()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    run = make_run()
    path = tmp_path / WEIGHTS_FILE
    path.write_bytes(
        weights_bytes(make_network(run), run, CLASSES, NORMALIZATION, {"test_error": 1.25})
    )
    return path


def rewritten(path: Path, drop: str = "", **metadata: str) -> Path:
    """The file with other metadata, or without one tensor."""
    tensors, old = read_safetensors(path)
    tensors = {name: tensor for name, tensor in tensors.items() if name != drop}
    path.write_bytes(save(tensors, {k: v for k, v in (old | metadata).items() if v}))
    return path


def images() -> Tensor:
    return torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(2))


# --- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"placement": "original"},
        {"placement": "bn_after_addition"},
        {"shortcut": "exclusive_gating"},
        {"shortcut": "convolution", "placement": "original"},
        {"branch": "bottleneck", "depth": 11},
        {"family": "vgg", "depth": 10, "widths": (4, 4, 8, 8, 8)},
    ],
    ids=lambda m: "-".join(map(str, m.values())) or "plain",
)
def test_a_network_comes_back_with_all_that_belongs_to_it(
    model: dict[str, Any], tmp_path: Path
) -> None:
    run = make_run(**model)
    network = make_network(run)
    path = tmp_path / "a.safetensors"
    path.write_bytes(weights_bytes(network, run, CLASSES, NORMALIZATION, {"test_error": 1.25}))
    loaded = load_network(path)
    with torch.no_grad():
        assert torch.equal(loaded.network(images()), network(images()))
    assert not loaded.network.training
    assert loaded.run == run
    assert loaded.model == run.model
    assert loaded.num_classes == 10
    assert loaded.class_names == CLASSES
    assert loaded.outcome == {"test_error": 1.25}
    assert loaded.normalization is not None
    assert torch.equal(loaded.normalization.mean, NORMALIZATION.mean)
    assert torch.equal(loaded.normalization.std, NORMALIZATION.std)


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(3), "a": torch.rand(2, 2), "é": torch.tensor(1.5).half()}
    metadata = {str(number): "å\n\x01" * number for number in range(6)}
    # The library's own order of the metadata changes from call to call.
    assert len({save(tensors, metadata) for _ in range(10)}) > 1
    (content,) = {safetensors_bytes(tensors, metadata) for _ in range(10)}
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    stored, described = read_safetensors(path)
    assert described == metadata
    assert stored.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(stored[name], tensor)
        assert stored[name].dtype == tensor.dtype


def test_survival_comes_back(tmp_path: Path) -> None:
    run = make_run({"active_units": 2})
    path = tmp_path / "a.safetensors"
    path.write_bytes(weights_bytes(make_network(run), run, CLASSES, NORMALIZATION, {}))
    survival = [unit.survival for unit in load_network(path).network.unit_list]
    assert survival == [pytest.approx(2 / 3)] * 3


def test_float16_halves_the_file_and_loads_as_float32(tmp_path: Path) -> None:
    run = make_run(widths=(16, 32, 64))
    network = make_network(run)
    sizes = {}
    for dtype in (torch.float32, torch.float16):
        path = tmp_path / f"{dtype}.safetensors"
        path.write_bytes(weights_bytes(network, run, CLASSES, NORMALIZATION, {}, dtype))
        sizes[dtype] = path.stat().st_size
    assert sizes[torch.float16] < 0.55 * sizes[torch.float32]
    tensors, _ = read_safetensors(path)
    assert tensors["model.head.fc.weight"].dtype == torch.float16
    assert tensors["normalization.mean"].dtype == torch.float32
    loaded = load_network(path)
    for name, tensor in loaded.network.state_dict().items():
        original = network.state_dict()[name]
        assert tensor.dtype == original.dtype
        if tensor.is_floating_point():
            assert torch.equal(tensor, original.half().float()), name
        else:
            assert torch.equal(tensor, original), name
    with torch.no_grad():
        difference = (loaded.network(images()) - network(images())).abs().max()
    assert difference < 0.02


def test_storing_changes_nothing() -> None:
    run = make_run()
    network = make_network(run)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    weights_bytes(network, run, CLASSES, NORMALIZATION, {}, torch.float16)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_run_folder_stands_for_its_weights(file: Path) -> None:
    by_folder, by_file = load_network(file.parent), load_network(file)
    assert by_folder.sha256 == by_file.sha256
    assert by_folder.source == str(file.parent)


# --- bundled weights -----------------------------------------------------------------------------


def test_every_bundled_file_loads_and_is_small() -> None:
    for name in bundled_names():
        loaded = load_network(name)
        assert loaded.source == name
        assert loaded.run is not None
        assert loaded.normalization is not None
        assert "test_error" in loaded.outcome


def test_bundled_weights_by_name(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bundled"
    folder.mkdir()
    for name in ("preact8-digits", "another"):
        shutil.copy(file, folder / f"{name}.safetensors")
    (folder / "README.md").write_text("not weights")
    monkeypatch.setattr(cards, "bundled_folder", lambda: folder)
    assert bundled_names() == ["another", "preact8-digits"]
    assert load_network("preact8-digits").source == "preact8-digits"
    expected = (
        r"unknown bundled weights 'preact8-digit'; did you mean 'preact8-digits'\? "
        r"\(known: another, preact8-digits\)"
    )
    with pytest.raises(UserError, match=expected):
        load_network("preact8-digit")


def test_the_bundled_folder_travels_with_the_package() -> None:
    assert bundled_folder().name == "bundled"
    assert bundled_folder().parent == Path(cards.__file__).parent


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"depth": 20}, ""),
        ({"depth": 20, "widths": (16, 32, 64)}, ""),
        ({"depth": 20, "widths": (8, 16, 32)}, "8-32 wide"),
        ({"depth": 15, "family": "vgg"}, ""),
        ({"depth": 15, "family": "vgg", "widths": (24, 48, 88, 176, 176)}, "24-176 wide"),
        ({"depth": 50, "branch": "bottleneck", "stem": "imagenet"}, ""),
    ],
)
def test_an_unusual_width(model: dict[str, Any], expected: str) -> None:
    assert unusual_width(ModelConfig(**model)) == expected


# --- what is said of bad ones --------------------------------------------------------------------


def one_line(reference: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        load_network(reference)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_a_missing_file(tmp_path: Path) -> None:
    assert one_line(tmp_path / "none.safetensors").endswith(
        "none.safetensors: no such file; check the path"
    )
    assert (
        one_line("none.safetensors")
        == "--checkpoint none.safetensors: no such file; check the path"
    )
    assert one_line("runs/none") == "--checkpoint runs/none: no such file; check the path"


def test_a_folder_without_weights(tmp_path: Path) -> None:
    assert f"{tmp_path}: this folder contains no {WEIGHTS_FILE}; give a finished run" in one_line(
        tmp_path
    )


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    message = one_line(file)
    assert message.startswith(f"{file}: ")
    assert "truncated" in message or "safetensors file" in message or "is empty" in message


def test_a_text_file_with_the_suffix(file: Path) -> None:
    file.write_text("<!DOCTYPE html>" + "not found " * 100)
    assert one_line(file).startswith(f"{file}: is a web page")


def test_a_checkpoint_is_not_taken_for_weights(tmp_path: Path) -> None:
    run = make_run()
    state = {f"model.{n}": t for n, t in make_network(run).state_dict().items()}
    save_checkpoint(tmp_path, run.hash, Position(3), state)
    message = one_line(tmp_path / CHECKPOINT_FILE)
    assert message.startswith(
        f"{tmp_path / CHECKPOINT_FILE}: has the format 'resnet-cli checkpoint"
    )
    assert message.endswith(f"give the run's {WEIGHTS_FILE}")


@pytest.mark.parametrize(
    "metadata",
    [
        {"run": ""},
        {"run": "{"},
        {"run": "{}"},
        {"class_names": ""},
        {"class_names": "3"},
        {"outcome": "nan("},
    ],
    ids=str,
)
def test_a_damaged_description(file: Path, metadata: dict[str, str]) -> None:
    assert f"{file}: its description is damaged" in one_line(rewritten(file, **metadata))


def test_a_missing_normalisation(file: Path) -> None:
    assert "its description is damaged (KeyError)" in one_line(
        rewritten(file, drop="normalization.std")
    )


@pytest.mark.parametrize(
    ("mean", "std"), [((3,), (3, 1, 1)), ((3, 1, 1), (1, 1, 1)), ((4, 1, 1), (4, 1, 1))]
)
def test_a_normalisation_of_another_shape(
    mean: tuple[int, ...], std: tuple[int, ...], file: Path
) -> None:
    tensors, metadata = read_safetensors(file)
    changed = {"normalization.mean": torch.ones(mean), "normalization.std": torch.ones(std)}
    file.write_bytes(save(tensors | changed, metadata))
    assert "its description is damaged" in one_line(file)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "model.units.1.F.3.weight",
            float("nan"),
            r"units\.1\.F\.3\.weight: 1 of \d+ values are not",
        ),
        (
            "model.units.0.F.1.running_mean",
            float("inf"),
            "running_mean: 1 of 4 values are not finite",
        ),
        ("model.units.0.F.1.running_var", -1.0, "running_var: a running variance is negative"),
        ("normalization.std", 0.0, "must be finite, and every std above 0"),
        ("normalization.std", float("nan"), "must be finite, and every std above 0"),
        ("normalization.mean", float("inf"), "must be finite, and every std above 0"),
    ],
)
def test_a_value_that_no_training_leaves_is_named(
    name: str, value: float, words: str, file: Path
) -> None:
    tensors, metadata = read_safetensors(file)
    tensors[name].view(-1)[0] = value
    file.write_bytes(save(tensors, metadata))
    assert re.search(words, one_line(file))


def test_a_missing_weight_is_named(file: Path) -> None:
    message = one_line(rewritten(file, drop="model.units.1.F.0.weight"))
    assert message.endswith("its weights do not match its configuration: units.1.F.0.weight")


def test_a_surplus_weight_is_named(file: Path) -> None:
    tensors, metadata = read_safetensors(file)
    file.write_bytes(save(tensors | {"model.units.9.F.0.weight": torch.ones(1)}, metadata))
    assert one_line(file).endswith("its weights do not match its configuration: units.9.F.0.weight")


def test_a_weight_of_another_shape_is_named(file: Path) -> None:
    tensors, metadata = read_safetensors(file)
    run = json.loads(metadata["run"])
    run["model"]["widths"] = [4, 8, 12]
    file.write_bytes(save(tensors, metadata | {"run": json.dumps(run)}))
    assert "its weights do not match its configuration: units.2." in one_line(file)
