"""Batch norm over groups in one pass: the numbers of one group after another."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from resnet_cli.config.schema import ModelConfig
from resnet_cli.kernels.batch_norm import apply_groups, has_triton
from resnet_cli.models.factory import build

ROOT = Path(__file__).parents[2]


def gradients_and_statistics(network: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None} | {
        name: buffer.double() for name, buffer in network.named_buffers()
    }


@pytest.mark.parametrize("placement", ["original", "bn_after_addition", "full_preactivation"])
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_as_one_group_after_another(placement: str, groups: int) -> None:
    config = ModelConfig.model_validate({"depth": 8, "widths": (8, 8, 16), "placement": placement})
    apart = build(config, 10, seed=0).double()
    together = copy.deepcopy(apart)
    apply_groups(together, groups)
    assert list(together.state_dict()) == list(apart.state_dict())
    torch.manual_seed(0)
    for _ in range(2):  # the second batch finds running statistics that have moved
        images, labels = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.randint(10, (6,))
        apart.zero_grad()
        together.zero_grad()
        for x, y in zip(images.chunk(groups), labels.chunk(groups), strict=True):
            functional.cross_entropy(apart(x), y, reduction="sum").backward()
        functional.cross_entropy(together(images), labels, reduction="sum").backward()
    expected, found = gradients_and_statistics(apart), gradients_and_statistics(together)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)
    torch.testing.assert_close(together.eval()(images), apart.eval()(images))


KERNELS = """
import sys, torch
from torch import nn
from resnet_cli.kernels import batch_norm_triton as kernels
torch.manual_seed(0)
for n, c, side, groups, relu, dtype, tolerance in [
    (4, 16, 5, 2, True, torch.float32, 1e-5),
    (4, 24, 7, 2, False, torch.float32, 1e-5),
    (6, 100, 3, 3, True, torch.float32, 1e-5),
    (2, 8, 40, 1, True, torch.float32, 1e-5),  # several parts and blocks
    (4, 16, 8, 2, True, torch.bfloat16, 1e-2),
]:
    x = (2 * torch.randn(n, c, side, side) + 50).to(dtype)
    weight, bias, mean, var = torch.randn(c), torch.randn(c), torch.randn(c), torch.rand(c) + 1
    count = torch.tensor(3)
    norm = nn.BatchNorm2d(c).double()
    with torch.no_grad():
        for to, value in zip((norm.weight, norm.bias, *norm.buffers()), (weight, bias, mean, var)):
            to.copy_(value)
    double = x.double().requires_grad_()
    y = torch.cat([norm(part) for part in double.chunk(groups)])
    y = y.relu() if relu else y
    dy = torch.randn_like(x)
    y.backward(dy.double())
    flat, dflat = (t.permute(0, 2, 3, 1).reshape(-1, c).contiguous() for t in (x, dy))
    found, means, rstds = kernels.forward(
        flat, weight, bias, mean, var, count, groups, 0.1, 1e-5, relu
    )
    dx, dweight, dbias = kernels.backward(dflat, flat, weight, bias, means, rstds, groups, relu)
    def image(rows):
        return rows.view(n, side, side, c).permute(0, 3, 1, 2).double()
    for a, b in [
        (image(found), y), (image(dx), double.grad), (dweight, norm.weight.grad),
        (dbias, norm.bias.grad), (mean, norm.running_mean), (var, norm.running_var),
    ]:
        error = float((a - b).detach().norm() / b.detach().norm())
        assert error < tolerance, (n, c, side, groups, relu, dtype, error)
    assert int(count) == 3 + groups
print("agreed")
"""


@pytest.mark.skipif(not has_triton(), reason="Triton is not installed")
def test_the_triton_kernels_in_their_interpreter() -> None:
    """Compared with torch's batch norm in float64. In its own process: Triton checks only once."""
    done = subprocess.run(
        [sys.executable, "-c", KERNELS],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "agreed", done.stderr[-2000:]
