"""A step as one graph: recorded, compared, replayed. Recording is stood in for on the CPU."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from resnet_cli.config.schema import RunConfig
from resnet_cli.datasets.batches import Batches
from resnet_cli.datasets.normalisation import Normalization
from resnet_cli.datasets.split import Split
from resnet_cli.kernels.batch_norm import apply_groups
from resnet_cli.models.factory import build
from resnet_cli.models.survival import draw_active
from resnet_cli.training.graph import GraphedStep
from resnet_cli.training.loop import Trainer

Body = Callable[[], None]


class Replaying:
    """Records as CUDA does, and replays by doing the work again."""

    def __init__(self) -> None:
        self.replayed = 0
        """Calls of recorded modules."""

    def step(self, body: Body) -> Body:
        body()
        return body

    def modules(self, modules: tuple[nn.Module, ...], inputs: Any) -> Sequence[Any]:
        for module, (x,) in zip(modules, inputs, strict=True):
            module(x).sum().backward()  # leaves gradients and updates running statistics
        return [self._counted(module) for module in modules]

    def _counted(self, module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        def replay(x: torch.Tensor) -> torch.Tensor:
            self.replayed += 1
            return module(x)  # type: ignore[no-any-return]

        return replay


class Drifting(Replaying):
    """Replays something else."""

    def step(self, body: Body) -> Body:
        def replay() -> None:
            body()
            for parameter in trained:
                parameter.data += 0.1

        body()
        return replay

    def modules(self, modules: tuple[nn.Module, ...], inputs: Any) -> Sequence[Any]:
        return [lambda x, m=module: m(x).roll(1, 0) for module in modules]


class Refusing(Replaying):
    def step(self, body: Body) -> Body:
        raise RuntimeError("operation not permitted when stream is capturing\nand much more")

    def modules(self, modules: tuple[nn.Module, ...], inputs: Any) -> Sequence[Any]:
        return [self.step(lambda: None) for _ in modules]


trained: list[torch.nn.Parameter] = []


def trainer(
    notes: list[str], recorder: Any = None, train: dict[str, Any] | None = None, **changes: Any
) -> Trainer:
    """A trainer on the CPU in the configuration for CUDA: groups in one pass, steps as a graph."""
    run = RunConfig.model_validate(
        {
            "model": {"depth": 8, "widths": (8, 8, 8)} | changes,
            "data": {"dataset": "digits"},
            "train": {"epochs": 3, "batch_size": 16, "batch_norm_group": 8} | (train or {}),
            "seed": 0,
        }
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 3, 8, 8), generator=generator, dtype=torch.uint8)
    split = Split(
        "digits", "train", images, torch.arange(40) % 10, tuple(map(str, range(10))), "here"
    )
    normalization = Normalization(torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.2))
    batches = Batches(split, normalization, pad=1, flip=True)
    network = build(run.model, 10, seed=0)
    trained[:] = network.parameters()
    made = Trainer(run, network, batches, batches, note=notes.append, engine="plain")
    apply_groups(network, 2)
    made._in_one_pass = True
    if recorder is not None:
        made._wants_graphs, made.recorder = True, recorder
    return made


def weights(of: Trainer) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in of.network.state_dict().values()]


@pytest.mark.parametrize("changes", [{}, {"shortcut": "dropout"}, {"placement": "original"}])
def test_a_training_by_graph_is_the_ordinary_training(changes: dict[str, Any]) -> None:
    notes: list[str] = []
    plain, graphed = trainer(notes, **changes), trainer(notes, Replaying(), **changes)
    assert plain.fit()
    assert graphed.fit()
    assert notes == []
    assert isinstance(graphed._graph, GraphedStep)
    for a, b in zip(weights(plain), weights(graphed), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    losses = [[row["train_loss"] for row in t.position.rows] for t in (plain, graphed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


RANDOM_UNITS = [{"stochastic_depth": 0.5}, {"active_units": 2, "inactive_units": "freeze"}]


@pytest.mark.parametrize("train", RANDOM_UNITS)
@pytest.mark.parametrize("changes", [{}, {"placement": "original"}])
def test_a_training_by_recorded_units_is_the_ordinary_training(
    train: dict[str, Any], changes: dict[str, Any]
) -> None:
    """Whichever units are active; the smaller last batch of an epoch is not replayed."""
    notes: list[str] = []
    recorder = Replaying()
    plain, recorded = (
        trainer(notes, None, train, **changes),
        trainer(notes, recorder, train, **changes),
    )
    assert plain.fit()
    assert recorded.fit()
    assert notes == []
    for a, b in zip(weights(plain), weights(recorded), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    full = [recorded._size(i) == 16 for i in range(recorded.total)]
    active = [sum(draw_active(recorded.run.train, 3, 0, i) or ()) for i in range(recorded.total)]
    in_steps = sum(n for n, is_full in zip(active, full, strict=True) if is_full)
    assert not all(full)
    assert recorder.replayed == in_steps + 3  # and once to compare with the ordinary units
    assert not any(bool(zeros.any()) for zeros in recorded._zeros)
    assert plain.network.state_dict().keys() == recorded.network.state_dict().keys()
    outcomes = [t.network.eval()(torch.ones(4, 3, 8, 8)) for t in (plain, recorded)]
    torch.testing.assert_close(*outcomes, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("recorder", "reason"),
    [(Refusing(), "not permitted when stream"), (Drifting(), "differs from")],
)
@pytest.mark.parametrize("train", [{}, *RANDOM_UNITS])
def test_without_a_graph_training_goes_on_as_if_none_had_been_tried(
    recorder: Any, reason: str, train: dict[str, Any]
) -> None:
    notes: list[str] = []
    plain, tried = trainer(notes, None, train), trainer(notes, recorder, train)
    plain.fit()
    tried.fit()
    assert len(notes) == 1
    assert reason in notes[0]
    assert "\n" not in notes[0]
    for a, b in zip(weights(plain), weights(tried), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("train", [{}, *RANDOM_UNITS])
def test_recording_leaves_no_trace(train: dict[str, Any]) -> None:
    notes: list[str] = []
    made = trainer(notes, Replaying(), train)
    before = weights(made)
    made.network.train()
    made._graphed(*made.batch(0))
    assert all(torch.equal(a, b) for a, b in zip(before, weights(made), strict=True))
    momenta = [made.optimizer.state[p]["momentum_buffer"] for p in made.network.parameters()]
    assert not any(bool(m.any()) for m in momenta)
    assert all(p.grad is None for p in made.network.parameters())
