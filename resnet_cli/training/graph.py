"""A training step as one CUDA graph: recorded once, then replayed with one launch.

A step of a ResNet-110 consists of a few thousand small kernels, and launching them takes several
times as long as running them. A graph is launched as a whole. It reads its batch and learning rate
from fixed tensors, and contains the forward pass, the backward pass and the optimizer's step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from resnet_cli.models.network import Network

WARM_UP = 3
"""Steps before recording, in which libraries choose kernels and allocate memory."""
TOLERANCES = {"float32": 1e-2, "tf32": 2e-2, "bfloat16": 0.1}
"""Largest difference between a replayed and an ordinary step, as a fraction of the step's length.
The order of summation may differ between calls, and a hundred layers amplify the difference."""

Backward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(images, labels) -> (sum of losses, number wrong), with the gradients added to `grad`."""


class Capture(Protocol):
    """How a function on the device is recorded."""

    def __call__(self, body: Callable[[], None]) -> Callable[[], None]:
        """Return a function that repeats, on the same memory, what `body` does."""


def cuda_graph(body: Callable[[], None]) -> Callable[[], None]:
    """Record a function as a CUDA graph; return the function that replays it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return graph.replay


class GraphError(Exception):
    """A step cannot be recorded, or its replay computes a different result."""


@dataclass
class _State:
    """Everything that a step changes, saved so that trial steps can be undone."""

    tensors: Sequence[Tensor]
    kept: Sequence[Tensor]

    @classmethod
    def of(cls, network: Network, optimizer: torch.optim.Optimizer) -> "_State":
        momenta = [optimizer.state[p]["momentum_buffer"] for p in network.parameters()]
        tensors = [*network.parameters(), *network.buffers(), *momenta]
        return cls(tensors, [tensor.detach().clone() for tensor in tensors])

    @torch.no_grad()
    def restore(self) -> None:
        for tensor, kept in zip(self.tensors, self.kept, strict=True):
            tensor.copy_(kept)


class GraphedStep:
    """The training step of a network with batches of one size.

    Args:
        backward: computes the gradients of a batch.
        optimizer: its learning rate becomes a tensor on the device.
        images, labels: a batch; all later batches must have the same shapes.
        precision: the precision of `backward`, which sets the tolerance of the comparison.
        capture: how the step is recorded.

    Raises:
        GraphError: the step cannot be recorded, or its replay differs from an ordinary step.
    """

    def __init__(
        self,
        network: Network,
        backward: Backward,
        optimizer: torch.optim.Optimizer,
        images: Tensor,
        labels: Tensor,
        precision: str,
        capture: Capture = cuda_graph,
    ) -> None:
        self._backward, self._optimizer = backward, optimizer
        self._images, self._labels = images.clone(), labels.clone()
        self._lr = torch.full((), 0.1, device=images.device)
        before = optimizer.param_groups[0]["lr"]
        state = _State.of(network, optimizer)
        try:
            for group in optimizer.param_groups:
                group["lr"] = self._lr
            self._warm_up()
            self._replay = capture(self._body)
            self._compare(state, precision)
        except Exception as error:  # drivers, kernels and libraries raise errors of many types
            for group in optimizer.param_groups:
                group["lr"] = before
            if isinstance(error, torch.OutOfMemoryError | GraphError):
                raise GraphError(str(error).partition("\n")[0]) from error
            raise GraphError(
                f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            ) from error
        finally:
            optimizer.zero_grad()
            state.restore()

    def __call__(self, images: Tensor, labels: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        """One step. Returns (sum of losses, number wrong), valid until the next step."""
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._lr.fill_(lr)
        self._replay()
        return self._outcome

    def _body(self) -> None:
        self._optimizer.zero_grad()  # the recorded backward pass then allocates its own gradients
        self._outcome = self._backward(self._images, self._labels)
        self._optimizer.step()

    def _warm_up(self) -> None:
        on_cuda = self._images.is_cuda
        stream = torch.cuda.Stream() if on_cuda else None
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._body()
        if stream is not None:
            torch.cuda.current_stream().wait_stream(stream)

    def _compare(self, state: _State, precision: str) -> None:
        """Take an ordinary and a replayed step from the same state; raise if they differ."""
        recorded = self._outcome
        losses, ends = [], []
        for step in (self._body, self._replay):
            state.restore()
            torch.manual_seed(0)
            step()
            losses.append(float((self._outcome if step == self._body else recorded)[0]))
            ends.append([tensor.detach().clone() for tensor in state.tensors])
        self._outcome = recorded
        moved = _distance(ends[0], state.kept)
        difference = _distance(*ends) / max(moved, 1e-30)
        limit = TOLERANCES[precision]
        if not (difference <= limit and abs(losses[0] - losses[1]) <= limit * abs(losses[0])):
            raise GraphError(
                f"a replayed step differs from an ordinary one by {difference:.2g} of its length "
                f"(losses {losses[0]:.6g} and {losses[1]:.6g})"
            )


def _distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """The Euclidean distance over all floating-point tensors."""
    total = torch.zeros((), dtype=torch.float64)
    for a, b in zip(first, second, strict=True):
        if a.is_floating_point():
            total += (a.double() - b.double()).square().sum().cpu()
    return float(total.sqrt())
