"""A step as one graph: recorded, compared, replayed. Recording is stood in for on the CPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from resnet_cli.config.schema import RunConfig
from resnet_cli.datasets.batches import Batches
from resnet_cli.datasets.normalisation import Normalization
from resnet_cli.datasets.split import Split
from resnet_cli.kernels.batch_norm import apply_groups
from resnet_cli.models import build
from resnet_cli.training.graph import GraphedStep
from resnet_cli.training.loop import Trainer

Body = Callable[[], None]


def replaying(body: Body) -> Body:
    """Records as a graph does, and replays by doing it again."""
    body()
    return body


def drifting(body: Body) -> Body:
    """Replays something else."""

    def replay() -> None:
        body()
        for parameter in trained:
            parameter.data += 0.1

    body()
    return replay


def refusing(body: Body) -> Body:
    raise RuntimeError("operation not permitted when stream is capturing\nand much more")


trained: list[torch.nn.Parameter] = []


def trainer(notes: list[str], capture: Any = None, **changes: Any) -> Trainer:
    """A trainer on the CPU in the configuration for CUDA: groups in one pass, steps as a graph."""
    run = RunConfig.model_validate(
        {
            "model": {"depth": 8, "widths": (8, 8, 8)} | changes,
            "data": {"dataset": "digits"},
            "train": {"epochs": 3, "batch_size": 16, "batch_norm_group": 8},
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
    if capture is not None:
        made._wants_graph, made.capture = True, capture
    return made


def weights(of: Trainer) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in of.network.state_dict().values()]


@pytest.mark.parametrize("changes", [{}, {"shortcut": "dropout"}, {"placement": "original"}])
def test_a_training_by_graph_is_the_ordinary_training(changes: dict[str, Any]) -> None:
    notes: list[str] = []
    plain, graphed = trainer(notes, **changes), trainer(notes, replaying, **changes)
    assert plain.fit()
    assert graphed.fit()
    assert notes == []
    assert isinstance(graphed._graph, GraphedStep)
    for a, b in zip(weights(plain), weights(graphed), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    losses = [[row["train_loss"] for row in t.position.rows] for t in (plain, graphed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    ("capture", "reason"), [(refusing, "not permitted when stream"), (drifting, "differs from")]
)
def test_without_a_graph_training_goes_on_as_if_none_had_been_tried(
    capture: Any, reason: str
) -> None:
    notes: list[str] = []
    plain, tried = trainer(notes), trainer(notes, capture)
    plain.fit()
    tried.fit()
    assert len(notes) == 1
    assert reason in notes[0]
    assert "\n" not in notes[0]
    for a, b in zip(weights(plain), weights(tried), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_recording_leaves_no_trace() -> None:
    notes: list[str] = []
    made = trainer(notes, replaying)
    before = weights(made)
    made.network.train()
    made._graphed(*made.batch(0))
    assert all(torch.equal(a, b) for a, b in zip(before, weights(made), strict=True))
    momenta = [made.optimizer.state[p]["momentum_buffer"] for p in made.network.parameters()]
    assert not any(bool(m.any()) for m in momenta)
