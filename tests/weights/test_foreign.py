"""Checkpoints of others: read, told apart, mapped; each refusal with its words."""

import io
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from resnet_cli.config.schema import ModelConfig
from resnet_cli.models import build
from resnet_cli.runtime.errors import UserError
from resnet_cli.weights.foreign import infer_config, load_foreign, load_state_dict_file

AKAMASTER = Path(__file__).parents[3] / "shared" / "checkpoints" / "akamaster-resnet20-12fca82f.th"

State = dict[str, Tensor]


def fill(module: nn.Module, seed: int = 0) -> None:
    """Weights and batch statistics that keep activations moderate and make every entry matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(7)
        elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.ndim == 1:
            tensor.uniform_(-0.2, 0.2, generator=generator)
        else:
            tensor.normal_(0, (1 / tensor[0].numel()) ** 0.5, generator=generator)


class TheirUnit(nn.Module):
    """A residual unit in the naming that most CIFAR repositories share."""

    def __init__(self, ins: int, outs: int, stride: int, convs: int, zero_padding: bool) -> None:
        super().__init__()
        self.num_convs = convs
        inner = outs // 4 if convs == 3 else outs
        plan = {
            1: [(ins, outs, 3, stride)],
            2: [(ins, outs, 3, stride), (outs, outs, 3, 1)],
            3: [(ins, inner, 1, 1), (inner, inner, 3, stride), (inner, outs, 1, 1)],
        }
        for number, (a, b, kernel, step) in enumerate(plan[convs], 1):
            convolution = nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False)
            setattr(self, f"conv{number}", convolution)
            setattr(self, f"bn{number}", nn.BatchNorm2d(b))
        self.shortcut: nn.Module = nn.Sequential()
        self.padding = (outs - ins) // 2 if zero_padding and (stride != 1 or ins != outs) else None
        self.stride = stride
        if not zero_padding and (stride != 1 or ins != outs):
            self.shortcut = nn.Sequential(
                nn.Conv2d(ins, outs, 1, stride, bias=False), nn.BatchNorm2d(outs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for number in range(1, self.num_convs + 1):
            out = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(out))
            if number < self.num_convs:
                out = functional.relu(out)
        shortcut = self.shortcut(x)
        if self.padding is not None:
            shortcut = x[:, :, :: self.stride, :: self.stride]
            shortcut = functional.pad(shortcut, (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(out + shortcut)


class Theirs(nn.Module):
    """kuangliu/pytorch-cifar's plan: stem, layer1 … layerN, linear."""

    def __init__(
        self,
        units: tuple[int, ...] = (1, 1, 1),
        widths: tuple[int, ...] = (16, 32, 64),
        convs: int = 2,
        zero_padding: bool = False,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.num_stages = len(units)
        ins = widths[0]
        for stage, (count, width) in enumerate(zip(units, widths, strict=True), 1):
            layer = []
            for unit in range(count):
                stride = 2 if stage > 1 and unit == 0 else 1
                outs = width * (4 if convs == 3 else 1)
                layer.append(TheirUnit(ins, outs, stride, convs, zero_padding))
                ins = outs
            setattr(self, f"layer{stage}", nn.Sequential(*layer))
        self.linear = nn.Linear(ins, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        for stage in range(1, self.num_stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return self.linear(x.mean((2, 3)))


def their_state(**plan: Any) -> State:
    theirs = Theirs(**plan)
    fill(theirs)
    return dict(theirs.state_dict())


def images(size: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))


def assert_same_logits(theirs: nn.Module, path: Path, size: int) -> ModelConfig:
    network, config, _ = load_foreign(path)
    assert not network.training
    with torch.no_grad():
        expected = theirs.double().eval()(images(size).double())
        found = network.double()(images(size).double())
    assert expected.std() > 1e-3  # logits that say something
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    return config


# --- real files ----------------------------------------------------------------------------------


@pytest.mark.skipif(not AKAMASTER.is_file(), reason="akamaster's ResNet-20 is not on this machine")
def test_akamaster_resnet20_equals_a_straight_line_forward() -> None:
    network, config, classes = load_foreign(AKAMASTER)
    assert config == ModelConfig(depth=20, placement="original")
    assert classes == 10
    assert sum(p.numel() for p in network.parameters()) == 269_722
    assert network.stem[0].weight.is_contiguous(memory_format=torch.channels_last)

    raw = torch.load(AKAMASTER, map_location="cpu", weights_only=True)["state_dict"]
    w = {key.removeprefix("module."): value.double() for key, value in raw.items()}

    def bn(x: Tensor, name: str) -> Tensor:
        scale = w[f"{name}.weight"] / (w[f"{name}.running_var"] + 1e-5).sqrt()
        offset = w[f"{name}.bias"] - scale * w[f"{name}.running_mean"]
        return x * scale[:, None, None] + offset[:, None, None]

    x = images(32, 4).double()
    x = bn(functional.conv2d(x, w["conv1.weight"], padding=1), "bn1").relu()
    for stage in (1, 2, 3):
        for unit in (0, 1, 2):
            name = f"layer{stage}.{unit}"
            stride = 2 if stage > 1 and unit == 0 else 1
            y = functional.conv2d(x, w[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = bn(y, f"{name}.bn1").relu()
            y = bn(functional.conv2d(y, w[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if stride == 2:
                zeros = torch.zeros_like(y[:, : y.shape[1] // 4])
                x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
            x = (x + y).relu()
    expected = x.mean((2, 3)) @ w["linear.weight"].T + w["linear.bias"]
    with torch.no_grad():
        torch.testing.assert_close(network.double()(images(32, 4).double()), expected)


# --- networks that others write ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", ModelConfig(depth=18, placement="original", stem="imagenet")),
        (
            "resnet50",
            ModelConfig(depth=50, branch="bottleneck", placement="original", stem="imagenet"),
        ),
    ],
)
def test_torchvision_logits_are_equal(name: str, expected: ModelConfig, tmp_path: Path) -> None:
    theirs = getattr(torchvision.models, name)(num_classes=7)
    fill(theirs)
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    assert assert_same_logits(theirs, tmp_path / "weights.pt", 64) == expected


@pytest.mark.parametrize(
    ("name", "depth", "branch", "parameters"),
    [
        ("resnet34", 34, "basic", 21_797_672),
        ("resnet50", 50, "bottleneck", 25_557_032),
        ("resnet101", 101, "bottleneck", 44_549_160),
        ("resnet152", 152, "bottleneck", 60_192_808),
    ],
)
def test_torchvision_architectures_and_parameter_counts(
    name: str, depth: int, branch: Any, parameters: int
) -> None:
    with torch.device("meta"):
        state = getattr(torchvision.models, name)().state_dict()
        config, classes = infer_config(state, name)
        network = build(config, classes)
    assert config == ModelConfig(depth=depth, branch=branch, placement="original", stem="imagenet")
    assert classes == 1000
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ({}, {"depth": 8, "stage_change": "projection"}),
        ({"zero_padding": True}, {"depth": 8}),
        ({"convs": 1, "zero_padding": True, "units": (2, 2, 2)}, {"depth": 8}),
        ({"convs": 3}, {"depth": 11, "stride_in": "3x3"}),
        ({"convs": 3, "zero_padding": True}, {"depth": 11, "stride_in": "3x3"}),
        ({"units": (1, 2, 1)}, {"depth": 10, "units": (1, 2, 1), "stage_change": "projection"}),
        ({"widths": (8, 8, 12)}, {"depth": 8, "widths": (8, 8, 12), "stage_change": "projection"}),
        ({"units": (2,), "widths": (16,)}, {"depth": 6, "units": (2,)}),
        (  # kuangliu's ResNet-18, narrower
            {"units": (2, 2, 2, 2), "widths": (8, 16, 32, 64)},
            {
                "depth": 18,
                "units": (2, 2, 2, 2),
                "widths": (8, 16, 32, 64),
                "stage_change": "projection",
            },
        ),
        (  # kuangliu's ResNet-50, narrower and shorter
            {"units": (2, 1, 1, 1), "widths": (8, 16, 32, 64), "convs": 3, "classes": 100},
            {
                "depth": 17,
                "units": (2, 1, 1, 1),
                "widths": (8, 16, 32, 64),
                "stride_in": "3x3",
            },
        ),
    ],
)
def test_cifar_networks_of_others(
    plan: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    theirs = Theirs(**plan)
    fill(theirs)
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    config = assert_same_logits(theirs, tmp_path / "weights.pt", 16)
    branch = {1: "one_layer", 2: "basic", 3: "bottleneck"}[plan.get("convs", 2)]
    if plan.get("zero_padding") and branch == "bottleneck":  # not what `auto` means there
        expected = expected | {"stage_change": "zero_padding"}
    assert config == ModelConfig(placement="original", branch=branch, **expected)  # type: ignore[arg-type]


def test_full_size_kuangliu_resnet18() -> None:
    with torch.device("meta"):
        state = Theirs((2, 2, 2, 2), (64, 128, 256, 512)).state_dict()
        config, classes = infer_config(state, "resnet18")
        network = build(config, classes)
    assert sum(p.numel() for p in network.parameters()) == 11_173_962


def test_imagenet_stem_before_other_stages_than_imagenets() -> None:
    config, _ = infer_config(changed(their_state(), conv1__weight=(16, 3, 7, 7)), "their.pt")
    assert config == ModelConfig(
        depth=8, placement="original", stem="imagenet", units=(1, 1, 1), widths=(16, 32, 64)
    )


def test_num_batches_tracked_may_be_absent_and_is_kept_when_present(tmp_path: Path) -> None:
    state = their_state()
    torch.save(state, tmp_path / "new.pt")
    torch.save(
        {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
        tmp_path / "old.pt",
    )
    new, old = load_foreign(tmp_path / "new.pt")[0], load_foreign(tmp_path / "old.pt")[0]
    assert new.stem[1].num_batches_tracked == 7
    assert old.stem[1].num_batches_tracked == 0
    assert torch.equal(new(images(16)), old(images(16)))


# --- files, containers, prefixes -----------------------------------------------------------------


@pytest.mark.parametrize(
    "container", ["state_dict", "model", "model_state_dict", "net", "weights", None]
)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_containers_and_prefixes(container: str | None, prefix: str, tmp_path: Path) -> None:
    state = their_state()
    content: dict[str, Any] = {prefix + key: value for key, value in state.items()}
    if container is not None:
        content = {"epoch": 3, "best": 92.5, container: content}
    torch.save(content, tmp_path / "weights.pth")
    found = load_state_dict_file(tmp_path / "weights.pth")
    assert list(found) == list(state)
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_safetensors(tmp_path: Path) -> None:
    theirs = Theirs()
    fill(theirs)
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    assert_same_logits(theirs, tmp_path / "weights.safetensors", 16)


def test_old_serialization_format(tmp_path: Path) -> None:
    path = tmp_path / "weights.th"
    torch.save(their_state(), path, _use_new_zipfile_serialization=False)
    assert load_foreign(path)[2] == 10


def test_half_precision_is_widened(tmp_path: Path) -> None:
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in their_state().items()
    }
    torch.save(state, tmp_path / "weights.pt")
    network, _, _ = load_foreign(tmp_path / "weights.pt")
    assert network.head.fc.weight.dtype == torch.float32
    assert torch.equal(network.head.fc.weight, state["linear.weight"].float())


class Hostile:
    """Creates a file when it is unpickled by a reader that runs code."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("kind", ["torch", "old torch", "pickle", "pickle 0"])
def test_hostile_pickle_is_refused_and_does_nothing(kind: str, tmp_path: Path) -> None:
    victim, path = tmp_path / "created", tmp_path / "weights.pt"
    content = {"state_dict": their_state(), "extra": Hostile(victim)}
    if kind.startswith("pickle"):
        path.write_bytes(pickle.dumps(Hostile(victim), protocol=0 if kind.endswith("0") else 4))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(UserError, match=r"holds pickled code.* is refused; save model.state_dict"):
        load_foreign(path)
    assert not victim.exists()
    if kind == "pickle":  # the file is indeed dangerous
        pickle.loads(path.read_bytes())
        assert victim.exists()


def test_whole_pickled_module_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"pickled code \(torch.nn.modules.linear.Linear\)"):
        load_foreign(tmp_path / "model.pt")


def torch_bytes(content: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated_file_is_refused(zipped: bool, share: float, tmp_path: Path) -> None:
    whole = torch_bytes(their_state(), zipped)
    path = tmp_path / "weights.pt"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"weights.pt: .*(cut short|is refused).*save"):
        load_foreign(path)


def test_nothing_of_the_readers_insides_is_told(tmp_path: Path) -> None:
    path = tmp_path / "weights.th"
    path.write_bytes(b"\x80\x02e")  # a pickle that appends to a list that there is not
    with pytest.raises(UserError) as caught:
        load_foreign(path)
    assert str(caught.value) == (
        f"{path}: is no checkpoint, or cut short; download or save it again"
    )


def test_truncated_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(their_state(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"no readable safetensors file, perhaps cut short"):
        load_foreign(path)


def test_safetensors_with_an_absurd_header_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(UserError, match=r"no readable safetensors file.*header too large"):
        load_foreign(path)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_missing_empty_and_folder(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(UserError, match=r"weights\.\w+: no such checkpoint file"):
        load_foreign(path)
    path.touch()
    with pytest.raises(UserError, match="is empty; download or save it again"):
        load_foreign(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="is a folder; name the checkpoint file in it"):
        load_foreign(path)


@pytest.mark.parametrize(
    "text", ["<!DOCTYPE html>\n<html>\n", '{"a": 1}', "hello world\nagain\n", "PK, not a zip\n"]
)
def test_text_is_no_checkpoint(text: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_text(text)
    with pytest.raises(UserError, match=r"is no checkpoint|pickled code and is refused") as caught:
        load_foreign(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no readable safetensors file"):
        load_foreign(path.rename(tmp_path / "weights.safetensors"))


def test_torchscript_archive_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(UserError, match=r"is no checkpoint.*TorchScript"):
        load_foreign(tmp_path / "script.pt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.ones(2)], "holds a list, no state dict"),
        (torch.ones(2), "holds a Tensor, no state dict"),
        ({}, "holds an empty state dict"),
        ({"state_dict": {}}, "holds an empty state dict"),
        ({"epoch": 3, "conv1.weight": torch.ones(2)}, r"no tensors: 'epoch' \(int\); save"),
        ({3: torch.ones(2)}, r"no tensors: '3' \(Tensor\)"),
        ({f"k{i}": i for i in range(5)}, r"'k0' \(int\), 'k1' \(int\), 'k2' \(int\) and 2 more"),
        ({"a.w": torch.ones(2), "module.a.w": torch.ones(2)}, "module.a.w: names the same entry"),
        ({"w": torch.ones(1).expand(10**9)}, "w: is no dense tensor"),
        ({"w": torch.empty(3, device="meta")}, "w: is no dense tensor"),
        ({"w": torch.eye(3).to_sparse()}, "w: is no dense tensor"),
        ({"w": torch.ones(3, dtype=torch.int8)}, "w: is int8; weights must be floating-point"),
    ],
)
def test_content_that_is_no_state_dict(content: object, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=words):
        load_state_dict_file(tmp_path / "weights.pt")


# --- networks that are refused -------------------------------------------------------------------


def changed(state: State, *, drop: str = "", **added: tuple[int, ...]) -> State:
    """A copy without the keys that start with `drop`, and with zeros of the shapes `added`."""
    kept = {k: v for k, v in state.items() if not (drop and k.startswith(drop))}
    return kept | {k.replace("__", "."): torch.zeros(shape) for k, shape in added.items()}


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"drop": "layer2.0.bn2.running_var"}, r"layer2\.0\.bn2\.running_var: is missing"),
    ({}, {"drop": "layer2.0.shortcut.1"}, r"layer2\.0\.shortcut\.1\.weight: is missing"),
    ({}, {"drop": "layer2.0.shortcut"}, r"layer2\.0\.shortcut\.0\.weight: is missing"),
    ({}, {"drop": "layer2"}, r"layer2\.0\.conv1\.weight: is missing"),
    ({"units": (3, 1, 1)}, {"drop": "layer1.1"}, r"layer1\.1\.conv1\.weight: is missing"),
    ({}, {"drop": "layer"}, r"layer1\.0\.conv1\.weight: is missing"),
    ({}, {"drop": "conv1"}, r"conv1\.weight: is missing"),
    ({}, {"drop": "linear.weight"}, r"linear\.weight: is missing"),
    ({}, {"drop": "linear"}, r"fc\.weight: is missing"),
    ({}, {"drop": "linear.bias"}, r"linear\.bias: is missing"),
    (
        {},
        {"layer2__0__conv2__weight": (32, 32, 5, 5)},
        r"conv2\.weight: has shape \[32, 32, 5, 5\]; .*ResNet-8 .*has \[32, 32, 3, 3\] there",
    ),
    ({}, {"layer2__0__conv2__weight": (32,)}, r"has shape \[32\]; a 2-D convolution is expected"),
    ({}, {"layer2__0__conv2__weight": (0, 32, 3, 3)}, r"has shape \[0, 32, 3, 3\]; a 2-D"),
    ({}, {"bn1__bias": (8,)}, r"bn1\.bias: has shape \[8\]; .*has \[16\] there"),
    ({}, {"linear__bias": (7,)}, r"linear\.bias: has shape \[7\]; .*has \[10\] there"),
    ({}, {"conv1__weight": (16, 1, 3, 3)}, r"conv1\.weight: has shape \[16, 1, 3, 3\]; \[C, 3, 7"),
    ({}, {"conv1__weight": (8, 3, 3, 3)}, r"a stem of 8 channels before a first stage of width 16"),
    ({}, {"layer1__0__shortcut__0__weight": (16, 16, 1, 1)}, "a projection in a unit that keeps"),
    (
        {},
        {"layer1__0__bn3__weight": (16,)},
        r"layer1\.0\.bn3\.weight: is not part of a ResNet-8 of basic",
    ),
    ({}, {"fc__weight": (10, 64)}, r"fc\.weight: is not part of a ResNet-8"),
    ({}, {"layer1__0__se__fc1__weight": (4, 16)}, r"se\.fc1\.weight: a squeeze-and-excitation"),
    ({}, {"layer1__0__fc1__weight": (4, 16, 1, 1)}, "a squeeze-and-excitation or attention"),
    ({}, {"conv1__bias": (16,)}, r"conv1\.bias: a convolution with a bias"),
    ({}, {"layer2__0__shortcut__0__bias": (32,)}, "a convolution with a bias"),
    ({}, {"bn__weight": (64,)}, r"bn\.weight: a batch norm after the last unit, so a pre-act"),
    ({}, {"features__0__weight": (64,)}, "a network of another kind"),
    ({}, {"backbone__conv1__weight": (64,)}, r"backbone\.conv1\.weight: is not of the naming"),
    ({}, {"evil\x1b[31m\nkey": (64,)}, r"evil\\x1b\[31m\\nkey': is not of the naming"),
    ({}, {"drop": "bn1"}, r"bn1\.weight: is missing: no batch norm follows the first convolution"),
    (
        {},
        {"layer2__0__bn1__weight": (16,)},
        r"layer2\.0\.bn1\.weight: has the 16 channels of its convolution's input, so a pre-activ",
    ),
    (
        {"convs": 3},
        {"layer1__0__conv2__weight": (16, 4, 3, 3)},
        r"layer1\.0\.conv2\.weight: a grouped convolution \(16 channels, 4 a group\)",
    ),
    (
        {"convs": 3},
        {"layer3__0__conv3__weight": (256, 128, 1, 1)},
        r"conv3\.weight: a bottleneck of 128 channels inside and 256 outside",
    ),
    ({"convs": 3}, {"layer1__0__conv4__weight": (64, 64, 1, 1)}, "units of 4 convolutions; 1, 2"),
]


@pytest.mark.parametrize(("plan", "change", "words"), REFUSED)
def test_what_does_not_fit_is_refused_by_key(
    plan: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    state = changed(their_state(**plan), **change)
    with pytest.raises(UserError, match=words) as caught:
        infer_config(state, "their.pt")
    assert str(caught.value).startswith("their.pt: ")
    assert str(caught.value).isprintable()  # one line, no control characters


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wide_resnet50_2", "128 channels inside and 256 outside"),
        ("resnext50_32x4d", "a grouped convolution"),
        ("vgg11", r"features\.0\.weight: a network of another kind"),
        ("densenet121", "a network of another kind"),
        ("mobilenet_v2", "a network of another kind"),
    ],
)
def test_other_torchvision_networks_are_refused(name: str, words: str) -> None:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = getattr(torchvision.models, name)(num_classes=10).state_dict()
    with pytest.raises(UserError, match=words):
        infer_config(state, name)


def test_own_preactivation_network_in_their_naming_is_refused() -> None:
    """kuangliu's PreActResNet: bn1 of a unit has the unit's input width; no bn1 at the top."""
    state = their_state()
    for stage, width in ((2, 16), (3, 32)):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state[f"layer{stage}.0.bn1.{leaf}"] = torch.ones(width)
    with pytest.raises(UserError, match=r"layer2\.0\.bn1\.weight: .*so a pre-activation unit"):
        infer_config(state, "preact.pt")
    with pytest.raises(UserError, match=r"bn1\.weight: is missing: .*pre-activation network"):
        infer_config(changed(state, drop="bn1"), "preact.pt")
