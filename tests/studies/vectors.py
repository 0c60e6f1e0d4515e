"""Networks on vectors [N, D] whose residual branches are given matrices."""

import torch
from torch import Tensor, nn

import resnet_cli as rc
from resnet_cli.datasets.batches import Batches
from resnet_cli.models.adapt import Parts
from resnet_cli.models.network import Network


class Stack(nn.Module):
    """x + A_l x for each matrix in turn."""

    def __init__(self, matrices: list[Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(len(m), len(m), bias=False) for m in matrices)
        with torch.no_grad():
            for layer, matrix in zip(self.layers, matrices, strict=True):
                layer.weight.copy_(matrix)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def network_of(*matrices: Tensor) -> Network:
    """The logits are the last activation."""
    model = Stack(list(matrices))
    example = torch.randn(3, len(matrices[0]), generator=torch.Generator().manual_seed(0))
    units = [Parts(F=layer) for layer in model.layers]
    identity = nn.Identity()
    return rc.wrap(
        model, stem=identity, units=units, head=nn.Identity(), example=example
    ).loaded.network


def batches_of(vectors: Tensor, labels: Tensor) -> Batches:
    found = rc.tensors(vectors, labels, device="cpu").batches
    assert found is not None
    return found
