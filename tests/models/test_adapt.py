"""Third-party networks, adapted by a function that gives their parts: torchvision's, and a toy."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from resnet_cli.cli import run_command
from resnet_cli.config.schema import ModelConfig
from resnet_cli.models.adapt import Adapted, Parts, adapt, load_adapted
from resnet_cli.models.factory import build
from resnet_cli.results.tables import read_provenance, read_table
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.paths.cut import CutNetwork, path_gradient
from resnet_cli.studies.paths.exact import exact_spectrum
from resnet_cli.studies.signal import measure_signal
from resnet_cli.weights.load import load_network

Captured = pytest.CaptureFixture[str]


class SqueezeBlock(nn.Module):
    """A pre-activation unit with a squeeze-and-excitation branch, in-place ReLUs: none of ours."""

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(ins)
        self.act = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(ins, outs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outs, outs, 3, 1, 1, groups=2)
        self.squeeze = Squeeze(outs)
        self.project: nn.Module | None = None
        if stride != 1 or ins != outs:
            self.project = nn.Conv2d(ins, outs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(x))
        shortcut = y if self.project is None else self.project(y)
        return shortcut + self.squeeze(self.conv2(self.act(self.conv1(y))))

    def parts(self) -> Parts:
        return Parts(
            pre=nn.Sequential(self.norm, self.act),
            h=self.project,
            F=nn.Sequential(self.conv1, self.act, self.conv2, self.squeeze),
        )


class Squeeze(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None]


class SqueezeNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            [SqueezeBlock(8, 8, 1), SqueezeBlock(8, 12, 2), SqueezeBlock(12, 12, 1)]
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10))

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x)
        return logits


def squeeze_network() -> SqueezeNetwork:
    torch.manual_seed(0)
    network = SqueezeNetwork()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return network


def adapted_squeeze(model: SqueezeNetwork | None = None) -> Adapted:
    model = model or squeeze_network()
    units = [block.parts() for block in model.blocks if isinstance(block, SqueezeBlock)]
    return adapt(
        model, stem=model.stem, units=units, head=model.head, example=torch.randn(2, 3, 8, 8)
    )


def test_the_parts_compute_what_the_model_does() -> None:
    model = squeeze_network()
    adapted = adapted_squeeze(model)
    images = torch.randn(5, 3, 8, 8)
    assert adapted.num_classes == 10
    assert not adapted.network.training
    torch.testing.assert_close(adapted.network(images), model.eval()(images))
    places = [
        (p.stage, p.number, p.in_channels, p.out_channels, p.stride) for p in adapted.network.places
    ]
    assert places == [(1, 1, 8, 8, 1), (2, 1, 8, 12, 2), (2, 2, 12, 12, 1)]
    assert model.blocks[0].act.inplace, "the model itself is as it was"  # type: ignore[union-attr, operator]
    assert not any(getattr(m, "inplace", False) for m in adapted.network.modules())


def test_a_deleted_unit_keeps_its_shortcut() -> None:
    model = squeeze_network().eval()
    network = adapted_squeeze(model).network
    images = torch.randn(4, 3, 8, 8)
    x = model.stem(images)
    for index, block in enumerate(model.blocks):
        assert isinstance(block, SqueezeBlock)
        y = functional.relu(block.norm(x))
        expected = y if block.project is None else block.project(y)
        torch.testing.assert_close(network.unit_list[index].skip(x), expected)
        x = block(x)


def test_exact_spectrum_and_single_paths_by_autograd() -> None:
    """Modules that the fast pullbacks do not know (groups, squeeze) go through autograd."""
    network = adapted_squeeze().network
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    spectrum = exact_spectrum(network, images, labels)
    assert spectrum.check < 1e-5
    cut = CutNetwork(network, images, labels)
    paths = [[u for u in range(3) if bits >> u & 1] for bits in range(8)]
    by_length = torch.zeros(4, *images.shape)
    for path in paths:
        by_length[len(path)] += path_gradient(cut, path)
    for norm, gradient in zip(spectrum.norms, by_length, strict=True):
        assert norm == pytest.approx(float(gradient.norm()), rel=1e-4)
    leaf = images.clone().requires_grad_()
    functional.cross_entropy(network(leaf), labels).backward()
    assert leaf.grad is not None
    torch.testing.assert_close(by_length.sum(0), leaf.grad, rtol=1e-4, atol=1e-7)


def test_signals() -> None:
    rows = measure_signal(adapted_squeeze().network, torch.randn(4, 3, 8, 8), torch.arange(4))
    assert len(rows) == 4
    assert [row["shortcut_factor"] for row in rows] == [1.0, 1.0, 1.0, None]


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "wide_resnet50_2"])
def test_torchvision_networks(name: str) -> None:
    """Also those whose state dict alone is refused (groups, widths)."""
    torch.manual_seed(1)
    model: nn.Module = getattr(torchvision.models, name)(num_classes=7)
    adapted = adapt_torchvision(model)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            adapted.network(images), model.eval()(images), rtol=1e-4, atol=1e-5
        )
    assert len(adapted.network.units) == (8 if name == "resnet18" else 16)
    assert adapted.num_classes == 7


def adapt_torchvision(model: nn.Module) -> Adapted:
    units = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        for block in stage:  # type: ignore[union-attr]
            layers = [block.conv1, block.bn1, block.relu, block.conv2, block.bn2]
            if hasattr(block, "conv3"):
                layers += [block.relu, block.conv3, block.bn3]
            units.append(Parts(h=block.downsample, F=nn.Sequential(*layers), f=block.relu))
    return adapt(
        model,
        stem=nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool),
        units=units,
        head=nn.Sequential(model.avgpool, nn.Flatten(), model.fc),
        example=torch.randn(2, 3, 64, 64),
    )


# --- what does not fit ---------------------------------------------------------------------------


def no_units(model: SqueezeNetwork, units: list[Parts]) -> list[Parts]:
    return []


def wrong_order(model: SqueezeNetwork, units: list[Parts]) -> list[Parts]:
    return units[::-1]


def forgotten_projection(model: SqueezeNetwork, units: list[Parts]) -> list[Parts]:
    return [units[0], Parts(F=units[1].F, pre=units[1].pre), units[2]]


def one_too_few(model: SqueezeNetwork, units: list[Parts]) -> list[Parts]:
    return units[:2]


def forgotten_activation(model: SqueezeNetwork, units: list[Parts]) -> list[Parts]:
    return [units[0], units[1], Parts(F=units[2].F)]


def flat_output(model: SqueezeNetwork, units: list[Parts]) -> list[Parts]:
    return [Parts(F=nn.Flatten(), h=nn.Flatten())]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_units, "units is empty"),
        (wrong_order, "the parts do not fit: "),
        (forgotten_projection, "unit 1: the output of h has .*; pass the projection as h"),
        (one_too_few, "logits of stem, units and head differ"),
        (forgotten_activation, "logits of stem, units and head differ"),
        (flat_output, "the parts do not fit: "),
    ],
)
def test_what_does_not_fit_is_said(
    change: Callable[[SqueezeNetwork, list[Parts]], list[Parts]], message: str
) -> None:
    model = squeeze_network()
    units = [block.parts() for block in model.blocks if isinstance(block, SqueezeBlock)]
    with pytest.raises(UserError, match=message):
        adapt(
            model,
            stem=model.stem,
            units=change(model, units),
            head=model.head,
            example=torch.randn(2, 3, 8, 8),
        )
    assert model.training


def test_a_head_that_ends_too_early() -> None:
    model = squeeze_network()
    units = [block.parts() for block in model.blocks if isinstance(block, SqueezeBlock)]
    with pytest.raises(UserError, match="the head must end with the logits"):
        adapt(
            model,
            stem=model.stem,
            units=units,
            head=model.head[:2],
            example=torch.randn(2, 3, 8, 8),
        )


# --- the file ------------------------------------------------------------------------------------

MINE = """
import torch
from torch import nn
from resnet_cli.config.schema import ModelConfig
from resnet_cli.models.factory import build
from resnet_cli.models.adapt import Parts, adapt

def network():
    model = build(ModelConfig(depth=8, widths=(4, 6, 8), placement="original"), 10, seed=5)
    return adapt(
        model,
        stem=model.stem,
        units=[Parts(h=unit.h, F=unit.F, f=unit.f, pre=unit.pre) for unit in model.units],
        head=model.head,
        example=torch.randn(2, 3, 16, 16),
    )
"""


def test_a_file_is_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    common = ["--checkpoint", "mine.py", "--dataset", "digits"]
    assert run_command(["eval", *common]) == 0
    assert "network: mine (adapted, 3 units) from mine.py" in capsys.readouterr().out
    assert run_command(["lesion", "--blocks", "1", "--images", "20", *common]) == 0
    table = Path("results/local/lesion-mine-digits-blocks1-images20/lesion_delete.csv")
    assert read_table(table)["blocks"].tolist() == ["0", "1", "2"]
    loaded = load_network("mine.py")
    assert read_provenance(table)["checkpoint"]["sha256"] == loaded.sha256
    ours = build(ModelConfig(depth=8, widths=(4, 6, 8), placement="original"), 10, seed=5).eval()
    images = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(loaded.network(images), ours(images))
    assert run_command(["paths", "--exact", "--samples", "2", "--batch-size", "4", *common]) == 0
    assert "differs from the ordinary gradient" in " ".join(capsys.readouterr().out.split())
    assert run_command(["signal", "--batch-size", "4", *common]) == 0
    frame = read_table(Path("results/local/signal-mine-digits-batch4/signal.csv"))
    assert set(frame["state"]) == {"trained"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has no function network()"),
        ("network = 3", "has no function network()"),
        ("def network(:", "SyntaxError"),
        ("def network(): return 1 / 0", "ZeroDivisionError: division by zero"),
        ("def network(): return 5", "network() returned int; return the result of adapt(...)"),
        ("import nowhere_at_all", "ModuleNotFoundError"),
        (
            "from resnet_cli.runtime.errors import UserError\nraise UserError('of its own')",
            "of its own",
        ),
    ],
)
def test_a_file_that_fails(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(text)
    with pytest.raises(UserError):
        load_adapted(Path("mine.py"))
    assert run_command(["lesion", "--checkpoint", "mine.py"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("resnet-cli: mine.py: ")
    assert message in error
    assert error.count("\n") == 1
