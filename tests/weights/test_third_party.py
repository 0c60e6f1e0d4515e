"""Third-party networks, built as in their repositories, load with equal logits.

One row for each naming and variant; docs/checkpoints.md lists them.
"""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import layouts
import pytest
import torch
import torchvision
from layouts import Theirs, fill
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from resnet_cli.config.schema import ModelConfig
from resnet_cli.models.factory import build
from resnet_cli.runtime.errors import UserError
from resnet_cli.weights.assumptions import Assumptions
from resnet_cli.weights.load import Loaded
from resnet_cli.weights.third_party import infer, load_third_party

AKAMASTER = Path(__file__).parents[3] / "shared" / "checkpoints" / "akamaster-resnet20-12fca82f.th"


def images(size: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))


def assert_same_logits(theirs: nn.Module, loaded: Loaded, size: int, *, grey: bool = False) -> None:
    assert not loaded.network.training
    x = images(size).double()
    if grey:
        x = x[:, :1].expand(-1, 3, -1, -1)
    with torch.no_grad():
        expected = theirs.double().eval()(x[:, :1] if grey else x)
        found = loaded.network.double()(x)
    assert expected.std() > 1e-3  # logits that say something
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def saved_and_compared(
    theirs: nn.Module, folder: Path, size: int, overrides: dict[str, str] | None = None
) -> Loaded:
    """Their network, saved as a state dict, loaded, and compared."""
    torch.save(fill(theirs).state_dict(), folder / "weights.pt")
    loaded = load_third_party(folder / "weights.pt", overrides)
    assert_same_logits(theirs, loaded, size)
    return loaded


# --- real files ----------------------------------------------------------------------------------


@pytest.mark.skipif(not AKAMASTER.is_file(), reason="akamaster's ResNet-20 is not on this machine")
def test_akamaster_resnet20_equals_a_straight_line_forward() -> None:
    loaded = load_third_party(AKAMASTER)
    network = loaded.network
    assert loaded.model == ModelConfig(depth=20, placement="original")
    assert loaded.num_classes == 10
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


# --- every naming --------------------------------------------------------------------------------

ROWS: dict[str, tuple[Any, str, int]] = {
    # name: (their network, label, units)
    "kuangliu, PreActResNet": (lambda: layouts.KuangliuPreAct(), "preact14", 6),
    "kuangliu, PreActResNet of bottlenecks": (
        lambda: layouts.KuangliuPreAct(bottleneck=True),
        "preact14-4x",
        4,
    ),
    "weiaicunzai, ResNet": (lambda: layouts.Wei(), "resnet14", 6),
    "weiaicunzai, ResNet of bottlenecks": (lambda: layouts.Wei(bottleneck=True), "resnet14", 4),
    "weiaicunzai, PreActResNet": (lambda: layouts.WeiPreAct(), "preact10", 4),
    "weiaicunzai, PreActResNet of bottlenecks": (
        lambda: layouts.WeiPreAct(bottleneck=True),
        "preact14-4x",
        4,
    ),
    "weiaicunzai, WideResNet": (lambda: layouts.WeiWide(), "preact8", 3),
    "bearpaw, PreResNet": (lambda: layouts.BearpawPre(), "preact14", 6),
    "hysts, resnet": (lambda: layouts.Hysts("resnet"), "resnet10", 4),
    "hysts, resnet_preact": (lambda: layouts.Hysts("preact"), "preact10", 4),
    "hysts, wrn": (lambda: layouts.Hysts("wrn"), "preact10", 4),
    "open_lth, cifar_resnet": (lambda: layouts.Lth(), "resnet14", 6),
    "xternalz, WideResNet": (lambda: layouts.Xternalz(), "preact14", 6),
    "meliketoy, Wide_ResNet": (lambda: layouts.Meliketoy(), "preact10", 4),
    "Hugging Face, ResNetForImageClassification": (lambda: layouts.HfResNet(), "resnet14", 4),
    "fb.resnet.torch, preresnet": (lambda: layouts.FbPre(), "preact14-4x", 4),
    "timm, resnet26d": (lambda: layouts.TimmD(), "resnet12", 4),
    "torchvision, wide_resnet50_2": (
        lambda: torchvision.models.ResNet(
            torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], 7, width_per_group=128
        ),
        "resnet14",
        4,
    ),
    "torchvision, resnext50_32x4d": (
        lambda: torchvision.models.ResNet(
            torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], 7, groups=32, width_per_group=4
        ),
        "resnext14",
        4,
    ),
    "chenyaofo, bearpaw, timm: downsample and fc": (
        lambda: Theirs(word="downsample", head="fc"),
        "resnet8",
        3,
    ),
    "torchvision with a CIFAR stem": (
        lambda: Theirs((2, 2, 2, 2), (16, 16, 32, 64), word="downsample", head="fc", classes=7),
        "resnet18",
        8,
    ),
    "kuangliu, VGG": (lambda: layouts.Vgg(), "vgg5", 4),
    "chenyaofo, VGG with hidden layers": (lambda: layouts.Vgg(hidden=True), "vgg7", 6),
    "VGG without batch norm": (lambda: layouts.Vgg(norm=False), "vgg5", 4),
}


TABLE = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text().partition("| code |")[2]
CODES = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]*\|$", TABLE.partition("\n\n")[0], re.MULTILINE)


@pytest.mark.parametrize("code", CODES)
def test_a_documented_row_has_a_network(code: str) -> None:
    """Named after its repository or owner; other kinds of networks are in another module."""
    tests = [name for name in globals() if name.startswith("test_")]
    names = " ".join([*ROWS, *tests]).lower()
    parts = re.split(r"/| transformers|,", code.lower())
    assert any(part and part in names for part in parts) or code == "torchvision and timm"


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_naming_gives_equal_logits(name: str, tmp_path: Path) -> None:
    make, label, units = ROWS[name]
    size = 64 if name.startswith("torchvision, w") or "resnext" in name else 32
    theirs = make()
    if isinstance(theirs, layouts.Vgg):
        size = 8
    loaded = saved_and_compared(theirs, tmp_path, size)
    assert loaded.name == label
    assert len(loaded.network.units) == units
    assert loaded.assumptions


def test_a_network_of_one_channel(tmp_path: Path) -> None:
    theirs = fill(Theirs(channels=1))
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    loaded = load_third_party(tmp_path / "weights.pt")
    assert_same_logits(theirs, loaded, 16, grey=True)
    assert any("grey" in note for note in loaded.notes)


@pytest.mark.parametrize("first", [False, True])
def test_config_json_of_transformers_states_the_stride(first: bool, tmp_path: Path) -> None:
    theirs = fill(layouts.HfResNet(stride_in_first=first))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    config = {"model_type": "resnet", "hidden_act": "relu", "downsample_in_bottleneck": first}
    (tmp_path / "config.json").write_text(json.dumps(config))
    images_of = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images_of))
    loaded = load_third_party(tmp_path / "model.safetensors")
    assert_same_logits(theirs, loaded, 32)
    (stride,) = [a for a in loaded.assumptions if a.key == "stride_in"]
    assert (stride.value, stride.source) == ("1x1" if first else "3x3", "config.json")
    assert loaded.normalization is not None
    assert loaded.normalization.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


# --- what shapes cannot tell ---------------------------------------------------------------------

UNTOLD: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    # what was trained, and what --model says of it
    "stride in the first 1x1": ({"convs": 3, "stride_in": "1x1"}, {"stride_in": "1x1"}),
    "zeros at the end": ({"zero_padding": True, "zeros": "end"}, {"zero_padding": "end"}),
    "7x7 without pooling": ({"stem": 7}, {"stem_pool": "none"}),
    "SiLU": ({"act": functional.silu}, {"activation": "silu"}),
}


@pytest.mark.parametrize("name", sorted(UNTOLD))
def test_an_assumption_is_stated_and_overridden(name: str, tmp_path: Path) -> None:
    plan, overrides = UNTOLD[name]
    theirs = fill(Theirs(**plan))
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    assumed = load_third_party(tmp_path / "weights.pt")
    (key,) = overrides
    (stated,) = [a for a in assumed.assumptions if a.key == key]
    assert stated.value != overrides[key]
    assert overrides[key] in stated.others
    with pytest.raises(AssertionError):  # what is assumed is wrong here
        assert_same_logits(theirs, assumed, 32)
    theirs.float()
    right = load_third_party(tmp_path / "weights.pt", overrides)
    assert_same_logits(theirs, right, 32)
    (given,) = [a for a in right.assumptions if a.key == key]
    assert (given.source, given.others) == ("--model", ())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"stride_in": "5x5"}, "--model stride_in"),
        ({"zero_padding": "end"}, "key of --model for this network"),
        ({"epsilon": "many"}, "--model epsilon=many"),
        ({"stem_stride": "0.5"}, "--model stem_stride=0.5: must be a whole number above 0"),
        ({"strides": "1,2"}, "--model strides=1,2"),
        ({"weights": "ema"}, "unknown weights"),
    ],
)
def test_a_wrong_override_is_refused(overrides: dict[str, str], words: str, tmp_path: Path) -> None:
    torch.save(fill(Theirs(convs=3)).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(UserError, match=words):
        load_third_party(tmp_path / "weights.pt", overrides)


# --- networks that have a configuration here ---------------------------------------------------


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
    assert saved_and_compared(theirs, tmp_path, 64).model == expected


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
        network, plan = infer(state, name, Assumptions())
    assert plan is not None
    assert (plan.depth, len(plan.units[0].convs)) == (depth, {"basic": 2, "bottleneck": 3}[branch])
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
def test_third_party_cifar_networks(
    plan: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    config = saved_and_compared(Theirs(**plan), tmp_path, 16).model
    branch = {1: "one_layer", 2: "basic", 3: "bottleneck"}[plan.get("convs", 2)]
    if plan.get("zero_padding") and branch == "bottleneck":  # not what `auto` means there
        expected = expected | {"stage_change": "zero_padding"}
    assert config == ModelConfig(placement="original", branch=branch, **expected)  # type: ignore[arg-type]


def test_full_size_kuangliu_resnet18() -> None:
    with torch.device("meta"):
        state = Theirs((2, 2, 2, 2), (64, 128, 256, 512)).state_dict()
        network, _ = infer(state, "resnet18", Assumptions())
    assert sum(p.numel() for p in network.parameters()) == 11_173_962


def test_the_configuration_of_a_third_party_network_builds_the_same(tmp_path: Path) -> None:
    """The network that `signal` initialises has the shapes of the loaded one."""
    for plan in ({}, {"convs": 3}, {"zero_padding": True}):
        torch.save(fill(Theirs(**plan)).state_dict(), tmp_path / "weights.pt")
        loaded = load_third_party(tmp_path / "weights.pt")
        assert loaded.model is not None
        ours = build(loaded.model, loaded.num_classes)
        assert ours.places == loaded.network.places
        shapes = [p.shape for p in loaded.network.parameters()]
        assert [p.shape for p in ours.parameters()] == shapes


def test_num_batches_tracked_may_be_absent_and_is_kept_when_present(tmp_path: Path) -> None:
    state = their_state()
    torch.save(state, tmp_path / "new.pt")
    torch.save(
        {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
        tmp_path / "old.pt",
    )
    new, old = (load_third_party(tmp_path / f"{age}.pt").network for age in ("new", "old"))
    assert new.stem[1].num_batches_tracked == 7
    assert old.stem[1].num_batches_tracked == 0
    assert torch.equal(new(images(16)), old(images(16)))


# --- networks that are refused -------------------------------------------------------------------

State = dict[str, Tensor]


def their_state(**plan: Any) -> State:
    return dict(fill(Theirs(**plan)).state_dict())


def changed(state: State, *, drop: str = "", **added: tuple[int, ...]) -> State:
    """A copy without the keys that start with `drop`, and with zeros of the shapes `added`."""
    kept = {k: v for k, v in state.items() if not (drop and k.startswith(drop))}
    return kept | {k.replace("__", "."): torch.zeros(shape) for k, shape in added.items()}


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"drop": "layer2.0.bn2.running_var"}, r"layer2\.0\.bn2\.running_var: is missing"),
    ({}, {"drop": "layer2.0.bn2.bias"}, r"layer2\.0\.bn2\.bias: is missing"),
    (
        {},
        {"drop": "layer2.0.shortcut.1"},
        r"layer2\.0\.shortcut\.0: a projection without batch norm",
    ),
    ({}, {"drop": "layer2.0.shortcut"}, r"layer2\.0: .*projection is missing"),
    ({}, {"drop": "layer2"}, "unit 0 of stage 2 is missing"),
    ({"units": (3, 1, 1)}, {"drop": "layer1.1"}, "unit 1 of stage 1 is missing"),
    ({}, {"drop": "layer"}, "no residual units"),
    ({}, {"drop": "conv1"}, "no first convolution|not part of a stem"),
    ({}, {"drop": "linear.weight"}, r"linear\.weight: is missing"),
    ({}, {"drop": "linear"}, "has no classifier.*backbone.*adapter file"),
    (
        {},
        {"layer2__0__conv2__weight": (32, 32, 4, 4)},
        r"conv2\.weight: has shape \[32, 32, 4, 4\]",
    ),
    ({}, {"layer2__0__conv2__weight": (32,)}, r"layer2\.0\.conv2\.bias|layer2\.0\.conv2"),
    ({}, {"layer2__0__conv2__weight": (0, 32, 3, 3)}, r"has shape \[0, 32, 3, 3\]"),
    ({}, {"layer2__0__conv2__weight": (32, 24, 3, 3)}, r"conv2\.weight: .* input has 32 channels"),
    ({}, {"bn1__bias": (8,)}, r"bn1\.bias: has shape \[8\]; expected \[16\]"),
    ({}, {"bn1__bias": (1,)}, r"bn1\.bias: has shape \[1\]; expected \[16\]"),
    ({}, {"conv1__weight": ()}, r"conv1\.weight: has shape \[\]; expected weights"),
    ({}, {"linear__bias": (7,)}, r"linear\.bias: has shape \[7\]; expected \[10\]"),
    ({}, {"linear__weight": (10, 32)}, r"linear\.weight: .* last unit has 64 channels"),
    ({}, {"conv1__weight": (16, 4, 3, 3)}, "images with 4 channels; only networks for 1 or 3"),
    ({}, {"conv1__weight": (8, 3, 3, 3)}, "conv1: no batch norm follows"),
    ({}, {"layer1__0__bn3__weight": (16,)}, r"layer1\.0\.bn3\.bias: is missing"),
    ({}, {"fc__weight": (10, 64)}, r"has 2 classifiers \(linear, fc\)"),
    ({}, {"layer1__0__se__fc1__weight": (4, 16)}, r"se\.fc1\.weight: a squeeze-and-excitation"),
    ({}, {"layer1__0__conv1__weight_g": (16,)}, "weight normalisation"),
    ({}, {"features__0__weight": (64,)}, "a network of another kind"),
    ({}, {"evil\x1b[31m\nkey__weight": (64,)}, r"evil\\x1b\[31m\\nkey.*adapter file"),
    ({}, {"drop": "bn1"}, r"conv1: no batch norm follows the first convolution"),
]


@pytest.mark.parametrize(("plan", "change", "words"), REFUSED)
def test_what_does_not_fit_is_refused_by_key(
    plan: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    state = changed(their_state(**plan), **change)
    with pytest.raises(UserError, match=words) as caught:
        infer(state, "their.pt", Assumptions())
    assert str(caught.value).startswith("their.pt: ")
    assert str(caught.value).isprintable()  # one line, no control characters


@pytest.mark.parametrize("make", [lambda: layouts.Vgg(hidden=True), Theirs])
def test_a_tensor_of_another_shape_is_named(make: Any) -> None:
    state = dict(fill(make()).state_dict())
    for key, tensor in state.items():
        for shape in layouts.wrong_shapes(tensor.shape):
            if make is Theirs and len(shape) == 4 and shape[1] == 1:
                continue  # of a grey or grouped convolution
            with pytest.raises(UserError, match=r"w\.pt: [\w.]+: ") as caught:
                infer(state | {key: torch.zeros(shape)}, "w.pt", Assumptions())
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v2", "efficientnet_b0"])
def test_networks_of_other_kinds_are_refused_with_the_adapter(name: str) -> None:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = getattr(torchvision.models, name)(num_classes=10).state_dict()
    with pytest.raises(UserError, match="adapter file"):
        infer(state, name, Assumptions())
