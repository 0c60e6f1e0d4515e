"""Vision Transformers and ConvNeXt as lists of units: equal logits, and every study on them."""

import re
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from layouts import fill, wrong_shapes
from torch import Tensor, nn
from torch.nn import functional

import resnet_cli as rc
from resnet_cli.models.adapt import Parts, adapt
from resnet_cli.models.network import Network, same_shape_groups
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.effects import effects
from resnet_cli.studies.influence import influence
from resnet_cli.studies.iterative import refinement
from resnet_cli.studies.paths.exact import exact_spectrum
from resnet_cli.studies.signal import measure_signal
from resnet_cli.studies.walks import along, delete, intact, reorder
from resnet_cli.weights.assumptions import Assumptions
from resnet_cli.weights.state_dict import find_state
from resnet_cli.weights.third_party import infer, load_third_party, recognise

IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([1, 4, 7])


def small_vit() -> nn.Module:
    vit = torchvision.models.VisionTransformer(
        image_size=16,
        patch_size=8,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=24,
        num_classes=10,
    )
    return fill(vit)


def small_convnext() -> nn.Module:
    settings = torchvision.models.convnext.CNBlockConfig
    blocks = [settings(8, 16, 2), settings(16, None, 2)]
    return fill(torchvision.models.ConvNeXt(blocks, num_classes=10))


class TimmAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        parts = self.qkv(x).reshape(n, t, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(*parts)
        return self.proj(y.transpose(1, 2).reshape(n, t, d))


class TimmMlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Gamma(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class TimmBlock(nn.Module):
    def __init__(self, width: int, heads: int, scaled: bool) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), TimmAttention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-6), TimmMlp(width)
        self.ls1 = Gamma(width) if scaled else nn.Identity()
        self.ls2 = Gamma(width) if scaled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class TimmVit(nn.Module):
    """vit_tiny of timm, smaller; heads of 64 channels as it has them.

    Args:
        places_token: the class token has a position, which DeiT III's has not.
    """

    def __init__(self, scaled: bool = False, places_token: bool = True) -> None:
        super().__init__()
        self.places_token = places_token
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, 128, 8, 8)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 128))
        self.pos_embed = nn.Parameter(torch.zeros(1, 4 + places_token, 128))
        self.blocks = nn.Sequential(*(TimmBlock(128, 2, scaled) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(128, eps=1e-6), nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        token = self.cls_token.expand(len(x), -1, -1)
        if self.places_token:
            x = torch.cat([token, x], 1) + self.pos_embed
        else:
            x = torch.cat([token, x + self.pos_embed], 1)
        return self.head(self.norm(self.blocks(x))[:, 0])


MODELS: dict[str, Any] = {
    "torchvision, vit": small_vit,
    "torchvision, convnext": small_convnext,
    "timm, vit_tiny": TimmVit,
    "timm, vit with LayerScale": lambda: TimmVit(scaled=True),
    "timm, deit3": lambda: TimmVit(scaled=True, places_token=False),
}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_equal_logits(name: str, tmp_path: Path) -> None:
    theirs = fill(MODELS[name]())
    torch.save({"model": theirs.state_dict()}, tmp_path / "w.pt")
    overrides = {"attention_heads": "2"} if "torchvision, vit" in name else {}
    loaded = load_third_party(tmp_path / "w.pt", overrides)
    with torch.no_grad():
        expected = theirs(IMAGES)
        assert expected.std() > 1e-3
        torch.testing.assert_close(loaded.network(IMAGES), expected, rtol=1e-4, atol=1e-5)
    assert len(loaded.network.units) == 4
    assert loaded.label == ("convnext4" if "convnext" in name else "vit4")


def enumerated(network: Network, included: tuple[int, ...]) -> Tensor:
    """The gradient at the images along one path: every unit outside it is its shortcut alone,
    backwards only."""
    x = IMAGES.clone().requires_grad_()
    y = network.stem(x)
    for index, unit in enumerate(network.unit_list):
        shortcut, residual = unit.branches(y)
        if index in included:
            y = unit.after(shortcut.detach() + residual)
        else:
            y = unit.after(shortcut + residual.detach())
    functional.cross_entropy(network.head(y), LABELS).backward()
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize("make", [small_vit, small_convnext])
def test_the_exact_spectrum_equals_the_sum_over_all_paths(make: Any) -> None:
    network = recognise(make(), IMAGES).network
    spectrum = exact_spectrum(network, IMAGES, LABELS)
    count = len(network.units)
    by_length = torch.zeros(count + 1, *IMAGES.shape)
    for bits in range(2**count):
        path = tuple(unit for unit in range(count) if bits >> unit & 1)
        by_length[len(path)] += enumerated(network, path)
    for norm, gradient in zip(spectrum.norms, by_length, strict=True):
        assert norm == pytest.approx(float(gradient.norm()), rel=1e-4)
    assert spectrum.check < 1e-5


def test_deleting_and_reordering_tokens() -> None:
    theirs = small_vit()
    network = recognise(theirs, IMAGES).network
    (group,) = same_shape_groups(network.places)
    assert group == [0, 1, 2, 3]
    layers = list(theirs.encoder.layers)

    def half(x: Tensor, unit: int) -> Tensor:
        layer = layers[unit // 2]
        if unit % 2:
            return x + layer.mlp(layer.ln_2(x))
        y = layer.ln_1(x)
        return x + layer.self_attention(y, y, y, need_weights=False)[0]

    def through(order: tuple[int, ...]) -> Tensor:
        x = network.stem(IMAGES)
        for unit in order:
            x = half(x, unit)
        return network.head(x)

    with torch.no_grad():
        for unit in range(4):
            rest = tuple(other for other in range(4) if other != unit)
            found = along(network, delete(intact(4), [unit]))(IMAGES)
            torch.testing.assert_close(found, through(rest), rtol=1e-4, atol=1e-5)
        for order in permutations(range(4)):
            found = along(network, reorder(intact(4), order, network.places))(IMAGES)
            torch.testing.assert_close(found, through(order), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [small_vit, small_convnext])
def test_signals_equal_autograd(make: Any) -> None:
    network = recognise(make(), IMAGES).network
    rows = measure_signal(network, IMAGES, LABELS)
    x = network.stem(IMAGES)
    inputs = [x]
    for unit in network.unit_list:
        x = unit(x)
        inputs.append(x)
    for activation in inputs:
        activation.retain_grad()
    functional.cross_entropy(network.head(x), LABELS).backward()
    for row, activation in zip(rows, inputs, strict=True):
        assert activation.grad is not None
        scale = len(LABELS) ** 0.5
        gradient = float(activation.grad.norm()) * scale  # of a mean loss, so N times too small
        assert row["activation_norm"] == pytest.approx(
            float(activation.detach().norm()) / scale, rel=1e-4
        )
        assert row["gradient_norm"] == pytest.approx(gradient, rel=1e-4)


def test_any_activation_shape_is_adapted() -> None:
    """Vectors [N, D] and tokens [N, T, D], computed by hand."""
    torch.manual_seed(0)

    class Perceptron(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Flatten(), nn.Linear(48, 8))
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(3))
            self.wide = nn.Linear(8, 12)
            self.wide_shortcut = nn.Linear(8, 12)
            self.last = nn.Linear(12, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            for block in self.blocks:
                x = x + block(x)
            return self.last(self.wide_shortcut(x) + self.wide(x))

    model = Perceptron()
    example = torch.randn(4, 3, 4, 4)
    units = [Parts(block) for block in model.blocks] + [Parts(model.wide, h=model.wide_shortcut)]
    adapted = adapt(model, stem=model.first, units=units, head=model.last, example=example)
    assert [(p.stage, p.number, p.changes_shape) for p in adapted.network.places] == [
        (1, 1, False),
        (1, 2, False),
        (1, 3, False),
        (2, 1, True),
    ]
    spectrum = exact_spectrum(adapted.network, example, torch.tensor([0, 1, 2, 3]))
    assert spectrum.check < 1e-5


def test_wrap_without_parts() -> None:
    net = rc.wrap(small_vit(), example=IMAGES)
    assert net.assumptions["attention_heads"] == "2"
    assert len(net.units) == 4
    shorter = rc.delete(net, [1])
    with torch.no_grad():
        assert not torch.equal(shorter.module(IMAGES), net.module(IMAGES))
    with pytest.raises(UserError, match="give all three or none"):
        rc.wrap(small_vit(), stem=nn.Identity(), example=IMAGES)
    with pytest.raises(UserError, match="Linear"):
        rc.wrap(nn.Linear(3, 3), example=torch.randn(2, 3))


def test_wrap_finds_what_names_do_not_tell() -> None:
    """A network with SiLU instead of ReLU, recognised by its logits."""
    from layouts import Theirs

    theirs = fill(Theirs(act=functional.silu, zero_padding=True, zeros="end"))
    net = rc.wrap(theirs, example=IMAGES)
    assert net.assumptions["activation"] == "silu"
    assert net.assumptions["zero_padding"] == "end"
    strange = fill(Theirs(act=torch.sin))
    with pytest.raises(UserError, match="pass stem, units and head"):
        rc.wrap(strange, example=IMAGES)


@pytest.mark.parametrize(
    ("drop", "add", "words"),
    [
        ("blocks.0.attn.proj.weight", {}, r"blocks\.0\.attn\.proj\.weight: is missing"),
        ("pos_embed", {}, "pos_embed: is missing"),
        ("", {"reg_token": torch.zeros(1, 4, 128)}, "reg_token: not part"),
    ],
)
def test_what_does_not_fit_is_named(
    drop: str, add: dict[str, Tensor], words: str, tmp_path: Path
) -> None:
    state = {k: v for k, v in fill(TimmVit()).state_dict().items() if k != drop}
    torch.save({"model": state | add}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=words):
        load_third_party(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["torchvision, vit", "torchvision, convnext", "timm, deit3"])
def test_a_tensor_of_another_shape_is_named(name: str) -> None:
    state = find_state({"model": dict(fill(MODELS[name]()).state_dict())}, Path("w.pt")).tensors
    for key, tensor in state.items():
        for shape in wrong_shapes(tensor.shape):
            if key.startswith("pos_embed") and shape[:1] == (1,) and shape[2:] == tensor.shape[2:]:
                continue  # of images of another size
            with pytest.raises(UserError, match=r"w\.pt: [\w.]+: ") as caught:
                infer(state | {key: torch.zeros(shape)}, "w.pt", Assumptions())
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "shape", "words"),
    [
        ("head.weight", (10, 32), r"head\.weight: has shape \[10, 32\]; expected \[any, 128\]"),
        ("blocks.1.mlp.fc2.weight", (128, 100), r"fc2\.weight: .* expected \[128, 256\]"),
        ("pos_embed", (1, 7, 128), "pos_embed: .* expected the positions of a square of patches"),
        ("norm.weight", (), r"norm\.weight: has shape \[\]; expected \[128\]"),
    ],
)
def test_the_expected_shape_is_said(
    key: str, shape: tuple[int, ...], words: str, tmp_path: Path
) -> None:
    torch.save(fill(TimmVit()).state_dict() | {key: torch.zeros(shape)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=words):
        load_third_party(tmp_path / "w.pt")


@pytest.mark.parametrize("make", [TimmVit, small_convnext])
@pytest.mark.parametrize("epsilon", ["abc", "0", "nan", "-1", "1000"])
def test_epsilon_must_be_a_number(make: Any, epsilon: str, tmp_path: Path) -> None:
    torch.save(fill(make()).state_dict(), tmp_path / "w.pt")
    with pytest.raises(UserError, match=f"epsilon={epsilon}: must be a number above 0 and below"):
        load_third_party(tmp_path / "w.pt", {"epsilon": epsilon})


@pytest.mark.parametrize("heads", ["\u00b2", "0", "1.5", "9" * 5000])
def test_attention_heads_must_be_a_whole_number(heads: str, tmp_path: Path) -> None:
    torch.save(fill(TimmVit()).state_dict(), tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"attention_heads=.*: must be a whole number above 0"):
        load_third_party(tmp_path / "w.pt", {"attention_heads": heads})


def test_another_size_of_images_is_refused(tmp_path: Path) -> None:
    torch.save(fill(TimmVit()).state_dict(), tmp_path / "w.pt")
    loaded = load_third_party(tmp_path / "w.pt")
    with pytest.raises(UserError, match="needs images of 16x16 pixels, not 32x32"):
        loaded.network(torch.zeros(1, 3, 32, 32))


TIMM_CONVNEXT = (
    *(
        (rf"features\.(\d+)\.(\d+)\.{ours}\b", theirs)
        for ours, theirs in (
            (r"block\.0", "conv_dw"),
            (r"block\.2", "norm"),
            (r"block\.3", "mlp.fc1"),
            (r"block\.5", "mlp.fc2"),
            ("layer_scale", "gamma"),
        )
    ),
)


def test_convnext_in_timms_names(tmp_path: Path) -> None:
    """torchvision's network with the keys of timm's code."""
    theirs = small_convnext()
    state = {}
    for key, tensor in theirs.state_dict().items():
        renamed = key
        for pattern, layer in TIMM_CONVNEXT:
            match = re.match(pattern, key)
            if match:
                stage = (int(match[1]) - 1) // 2
                renamed = f"stages.{stage}.blocks.{match[2]}.{layer}{key[match.end() :]}"
        renamed = re.sub(r"^features\.0\.", "stem.", renamed)
        renamed = re.sub(r"^features\.2\.", "stages.1.downsample.", renamed)
        renamed = re.sub(r"^classifier\.0\.", "head.norm.", renamed)
        renamed = re.sub(r"^classifier\.2\.", "head.fc.", renamed)
        state[renamed] = tensor.flatten() if "gamma" in renamed else tensor
    assert not any(key.startswith(("features", "classifier")) for key in state)
    torch.save(state, tmp_path / "w.pt")
    loaded = load_third_party(tmp_path / "w.pt")
    with torch.no_grad():
        torch.testing.assert_close(loaded.network(IMAGES), theirs(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["vit_tiny_patch16_224", "deit3_small_patch16_224", "convnext_atto", "resnet26d", "resnet18"],
)
def test_timm_itself(name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    options: dict[str, Any] = {"img_size": 32, "depth": 2} if "patch16" in name else {}
    theirs = fill(timm.create_model(name, num_classes=10, **options))
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    loaded = load_third_party(tmp_path / "w.pt")
    x = torch.randn(2, 3, 32, 32) if "patch16" in name else torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded.network(x), theirs(x), rtol=1e-3, atol=1e-4)


def test_transformers_itself(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[32, 64], depths=[2, 2], num_labels=10
    )
    theirs = fill(transformers.ResNetForImageClassification(config))
    theirs.save_pretrained(tmp_path)
    loaded = load_third_party(tmp_path / "model.safetensors")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded.network(x), theirs(x).logits, rtol=1e-4, atol=1e-5)


def test_scores_and_effects_of_tokens() -> None:
    """Attention and perceptron by torchvision's own modules."""
    theirs = small_vit()
    network = recognise(theirs, IMAGES).network
    batches = rc.tensors(IMAGES, LABELS, device="cpu").batches
    assert batches is not None
    with torch.no_grad():
        tokens = [network.stem(IMAGES)]
        for layer in theirs.encoder.layers:
            y = layer.ln_1(tokens[-1])
            tokens.append(tokens[-1] + layer.self_attention(y, y, y, need_weights=False)[0])
            tokens.append(tokens[-1] + layer.mlp(layer.ln_2(tokens[-1])))
        scores = influence(network, batches, (1,))
        for unit, (before, after) in enumerate(pairwise(tokens)):
            cosines = functional.cosine_similarity(before, after, dim=2)
            assert scores[1, unit][0] == pytest.approx(1 - float(cosines.mean()), rel=1e-3)
        ratios = [(b - a).flatten(1).norm(dim=1) for a, b in pairwise(tokens)]
        last = theirs.encoder.layers[1]
        without = last.mlp(last.ln_2(tokens[2]))
        change = (without - (tokens[4] - tokens[3])).flatten(1).norm(dim=1) / ratios[3]
    for unit, (cosine, ratio) in enumerate(refinement(network, batches)):
        expected = (ratios[unit] / tokens[unit].flatten(1).norm(dim=1)).mean()
        assert ratio == pytest.approx(float(expected), rel=1e-3)
        assert -1 <= cosine <= 1
    found = effects(network, batches)
    assert found[2, 3] == pytest.approx(float(change.mean()), rel=1e-3)
