"""Training steps as CUDA graphs: recorded once, then replayed with one launch.

A step of a ResNet-110 consists of a few thousand small kernels, and launching them takes several
times as long as running them. A graph is launched as a whole.

- If all steps compute the same function, a step is one graph (`GraphedStep`). It reads its batch
  and learning rate from fixed tensors, and contains the forward pass, the backward pass and the
  optimizer's step.
- If the active units vary from batch to batch, each unit has its own two graphs, for the forward
  and the backward pass (`graph_units`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from resnet_cli.models.network import Network
from resnet_cli.models.units import Unit
from resnet_cli.runtime.device import autocast

WARM_UP = 3
"""Steps before recording, in which libraries choose kernels and allocate memory."""
TOLERANCES = {"float32": 1e-2, "tf32": 2e-2, "bfloat16": 0.1}
"""Largest difference between a replayed and an ordinary step, as a fraction of the step's length.
The order of summation may differ between calls, and a hundred layers amplify the difference."""

Backward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(images, labels) -> (sum of losses, number wrong), with the gradients added to `grad`."""


class Recorder(Protocol):
    """How work on the device is recorded."""

    def step(self, body: Callable[[], None]) -> Callable[[], None]:
        """Return a function that repeats, on the same memory, what `body` does."""

    def modules(
        self, modules: tuple[nn.Module, ...], inputs: tuple[tuple[Tensor], ...]
    ) -> Sequence[Callable[[Tensor], Tensor]]:
        """Return, for each module, a function that repeats its forward and backward pass.

        The functions are called in the modules' order, but not necessarily all of them, with inputs
        of the shapes given here.
        """


class CudaRecorder:
    """Records CUDA graphs."""

    def step(self, body: Callable[[], None]) -> Callable[[], None]:
        """See `Recorder`."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            body()
        return graph.replay

    def modules(
        self, modules: tuple[nn.Module, ...], inputs: tuple[tuple[Tensor], ...]
    ) -> Sequence[Callable[[Tensor], Tensor]]:
        """See `Recorder`."""
        recorded: Any = torch.cuda.make_graphed_callables(modules, inputs)
        # torch warns that the parameters' gradients were first computed on the stream of the
        # recording, and later ones on another: here the streams wait for each other. torch 2.9 does
        # not have this warning.
        quiet = getattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", None)
        if quiet is not None:
            quiet(False)
        return recorded  # type: ignore[no-any-return]


class GraphError(Exception):
    """Work cannot be recorded, or its replay computes a different result."""

    @classmethod
    def of(cls, error: Exception) -> "GraphError":
        """The first line of any error that occurs while recording."""
        line = str(error).partition("\n")[0]
        if isinstance(error, torch.OutOfMemoryError | GraphError):
            return cls(line)
        return cls(f"{type(error).__name__}: {line}")


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
        recorder: how the step is recorded.

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
        recorder: Recorder,
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
            self._replay = recorder.step(self._body)
            self._compare(state, precision)
        except Exception as error:  # drivers, kernels and libraries raise errors of many types
            for group in optimizer.param_groups:
                group["lr"] = before
            raise GraphError.of(error) from error
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


class _TrainingUnit(nn.Module):
    """A unit during training, as a module of its own: recording replaces a module's forward pass,
    and the unit must keep its own for evaluation."""

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        y = self.unit(x)
        assert isinstance(y, Tensor)
        return y


def graph_units(
    network: Network,
    backward: Backward,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    precision: str,
    recorder: Recorder,
) -> None:
    """Make the network use recorded units during training, for batches of one size.

    Units of batches of other sizes run as before. The arguments are those of `GraphedStep`.

    Raises:
        GraphError: a unit cannot be recorded, or the gradients with recorded units differ from the
            ordinary ones. The network is unchanged.
    """
    units = network.unit_list
    state = _State.of(network, optimizer)

    def gradients() -> tuple[float, list[Tensor]]:
        optimizer.zero_grad()
        state.restore()
        torch.manual_seed(0)
        loss = float(backward(images, labels)[0])
        return loss, [p.grad.detach().clone() for p in network.parameters() if p.grad is not None]

    try:
        # Recording does not support autocast's cache: each graph casts its own weights.
        with autocast(images.device, precision, cache=False):
            inputs = _unit_inputs(network, images)
            recorded = recorder.modules(
                tuple(map(_TrainingUnit, units)), tuple((x,) for x in inputs)
            )
        loss, ordinary = gradients()
        network.replace_in_training(
            [
                _for_shape(x.shape, replay, unit)
                for x, replay, unit in zip(inputs, recorded, units, strict=True)
            ]
        )
        replayed_loss, replayed = gradients()
        length = float(torch.stack([g.double().square().sum() for g in ordinary]).sum().sqrt())
        difference = _distance(ordinary, replayed) / max(length, 1e-30)
        limit = TOLERANCES[precision]
        if not (difference <= limit and abs(replayed_loss - loss) <= limit * abs(loss)):
            raise GraphError(
                f"the gradient of recorded units differs from the ordinary one by {difference:.2g} "
                f"of its length (losses {replayed_loss:.6g} and {loss:.6g})"
            )
    except Exception as error:  # drivers, kernels and libraries raise errors of many types
        network.replace_in_training([])
        raise GraphError.of(error) from error
    finally:
        optimizer.zero_grad()
        state.restore()


@torch.no_grad()
def _unit_inputs(network: Network, images: Tensor) -> list[Tensor]:
    """The input of each unit, as a tensor of its own that requires a gradient."""
    inputs, x = [], network.stem(images)
    for unit in network.unit_list:
        inputs.append(x.clone().requires_grad_())
        x = unit(x)
    return inputs


def _for_shape(
    shape: torch.Size, replay: Callable[[Tensor], Tensor], unit: Unit
) -> Callable[[Tensor], Tensor]:
    return lambda x: replay(x) if x.shape == shape else unit(x)


def _distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """The Euclidean distance over all floating-point tensors."""
    total = torch.zeros((), dtype=torch.float64)
    for a, b in zip(first, second, strict=True):
        if a.is_floating_point():
            total += (a.double() - b.double()).square().sum().cpu()
    return float(total.sqrt())
