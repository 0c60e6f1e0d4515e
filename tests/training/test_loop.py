"""The loop: one step by hand, exact resumption, groups of batch statistics, active units."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from resnet_cli.config.schema import DataConfig, ModelConfig, RunConfig, TrainConfig
from resnet_cli.datasets.batches import Batches, epoch_order
from resnet_cli.datasets.catalogue import load_split
from resnet_cli.datasets.normalisation import parse_normalization
from resnet_cli.kernels.winograd import TrainingConv2d
from resnet_cli.models.factory import build
from resnet_cli.models.network import Network
from resnet_cli.models.survival import draw_active, survival_probabilities
from resnet_cli.results.layout import CHECKPOINT_FILE
from resnet_cli.runtime.seeding import stream, stream_seed
from resnet_cli.training import loop
from resnet_cli.training.groups import ParallelGroups
from resnet_cli.training.loop import Trainer, TrainingProgress
from resnet_cli.training.schedule import learning_rate

DATA = DataConfig(train_images=256, test_images=50, pad=2)
BATCH = 64  # 4 iterations an epoch


@pytest.fixture(scope="module")
def batches() -> tuple[Batches, Batches]:
    train = load_split(DATA, "train")
    normalization = parse_normalization("channel", lambda: train)
    return (
        Batches(train, normalization, DATA.pad, DATA.flip),
        Batches(load_split(DATA, "test"), normalization),
    )


def make_run(model: dict[str, Any] | None = None, **train: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "batch_size": BATCH,
        "schedule": "one_cycle",
        "lr": 0.05,
        "batch_norm_group": 32,
    }
    settings |= {"epochs": 3} if "iterations" not in train else {}
    shape = {"depth": 8, "widths": (4, 8, 16)} | (model or {})
    return RunConfig(
        model=ModelConfig(**shape), data=DATA, train=TrainConfig(**(settings | train)), seed=3
    )


def make_trainer(
    run: RunConfig, batches: tuple[Batches, Batches], folder: Path | None = None, **options: Any
) -> Trainer:
    network = build(run.model, 10, run.seed)
    return Trainer(run, network, *batches, folder, **options)


def after(count: int) -> Callable[[], bool]:
    """Requests a stop at the count-th call, that is, after this number of iterations."""
    asked = iter(range(1, 1_000_000))
    return lambda: next(asked) >= count


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """Weights, statistics and momentum, copied."""
    return {name: tensor.clone() for name, tensor in trainer._tensors()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Bitwise equal."""
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert different == []


def batch_by_hand(run: RunConfig, train: Batches, iteration: int) -> tuple[Tensor, Tensor]:
    epoch, step = divmod(iteration, len(train) // run.train.batch_size)
    order = epoch_order(len(train), run.seed, epoch)
    chosen = order[step * run.train.batch_size : (step + 1) * run.train.batch_size]
    return train.training(chosen, stream(run.seed, "augmentation", iteration))


# --- one step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("group", [None, 64, 32, 24], ids=lambda g: f"group {g}")
def test_steps_equal_sgd_written_by_hand(
    batches: tuple[Batches, Batches], group: int | None, nesterov: bool
) -> None:
    """g = mean loss's gradient + wd w; m = mu m + g; w = w - lr m (Nesterov: g + mu m)."""
    run = make_run(
        iterations=3,
        batch_norm_group=group,
        nesterov=nesterov,
        weight_decay=0.01,
        schedule="milestones",
        warmup_iterations=1,
        warmup_lr=0.02,
        milestones=(2,),
        lr=0.1,
    )
    trainer = make_trainer(run, batches)
    assert trainer.fit()

    network = build(run.model, 10, run.seed).train()
    momentum = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for iteration, lr in enumerate((0.02, 0.1, 0.01)):
        images, labels = batch_by_hand(run, batches[0], iteration)
        network.zero_grad()
        size = group or BATCH
        for start in range(0, BATCH, size):  # each group on its own, gradients weighed by size
            x, y = images[start : start + size], labels[start : start + size]
            (functional.cross_entropy(network(x), y) * len(y) / BATCH).backward()
        with torch.no_grad():
            for name, weight in network.named_parameters():
                assert weight.grad is not None
                gradient = weight.grad + 0.01 * weight
                momentum[name] = 0.9 * momentum[name] + gradient
                step = gradient + 0.9 * momentum[name] if nesterov else momentum[name]
                weight -= lr * step
    by_hand = network.state_dict()
    for name, tensor in trainer.network.state_dict().items():
        torch.testing.assert_close(tensor, by_hand[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("shortcut", ["identity", "shortcut_only_gating"])
def test_the_number_of_threads_changes_nothing(
    shortcut: str, batches: tuple[Batches, Batches]
) -> None:
    """Parallel groups give the same results as successive groups, to the last bit."""
    run = make_run(
        {"placement": "original", "shortcut": shortcut},
        iterations=4,
        batch_norm_group=24,
        stochastic_depth=0.5,
    )
    states = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            trainer = make_trainer(run, batches)
            assert trainer.fit()
        finally:
            torch.set_num_threads(1)
        states.append(state_of(trainer))
    assert_same(*states)


def test_the_plain_engine_trains_the_same(batches: tuple[Batches, Batches]) -> None:
    """Successive groups instead of parallel ones."""
    run = make_run(iterations=3)
    fast, plain = (make_trainer(run, batches, engine=engine) for engine in ("fast", "plain"))
    assert fast.fit()
    assert plain.fit()
    assert fast._parallel_groups is not None
    assert plain._parallel_groups is None
    expected = state_of(plain)
    for name, tensor in state_of(fast).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6)


def test_bfloat16_trains_about_the_same(batches: tuple[Batches, Batches]) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        trainer = make_trainer(make_run(precision=precision), batches)
        assert trainer.fit()
        assert all(p.dtype == torch.float32 for p in trainer.network.parameters())
        losses[precision] = [row["train_loss"] for row in trainer.position.rows]
    assert losses["bfloat16"] != losses["float32"], "it did compute otherwise"
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
    assert losses["bfloat16"][-1] < losses["bfloat16"][0]


def test_groups_take_turns_where_they_must() -> None:
    """Dropout draws from one generator, in order; recomputing is there to save memory."""
    plain = build(make_run().model, 10, 0)
    assert ParallelGroups(plain, 2).in_threads
    plain.checkpoint_units = True
    assert not ParallelGroups(plain, 2).in_threads
    dropout = make_run({"placement": "original", "shortcut": "dropout"}).model
    assert not ParallelGroups(build(dropout, 10, 0), 2).in_threads


def test_group_gradient_is_the_mean_over_groups_and_statistics_follow_in_sequence(
    batches: tuple[Batches, Batches],
) -> None:
    run = make_run(batch_norm_group=32)
    images, labels = batch_by_hand(run, batches[0], 0)
    halves = []
    for half in (slice(0, 32), slice(32, 64)):
        network = build(run.model, 10, run.seed).train()
        functional.cross_entropy(network(images[half]), labels[half]).backward()
        halves.append({n: p.grad for n, p in network.named_parameters()})

    trainer = make_trainer(run, batches)
    first_norm = next(m for m in trainer.network.modules() if isinstance(m, nn.BatchNorm2d))
    seen: list[Tensor] = []
    handle = first_norm.register_forward_hook(lambda m, args, out: seen.append(args[0].detach()))
    trainer.network.train()
    trainer._backward(images, labels, None, len(labels))
    handle.remove()

    for name, parameter in trainer.network.named_parameters():
        one, two = halves[0][name], halves[1][name]
        assert one is not None
        assert two is not None
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, (one + two) / 2, rtol=1e-4, atol=1e-6)
    assert [len(x) for x in seen] == [32, 32]
    mean, var = torch.zeros(seen[0].shape[1]), torch.ones(seen[0].shape[1])
    for x in seen:  # torch's rule: 0.9 old + 0.1 new, the variance unbiased
        mean = 0.9 * mean + 0.1 * x.mean((0, 2, 3))
        var = 0.9 * var + 0.1 * x.transpose(0, 1).flatten(1).var(1)
    torch.testing.assert_close(first_norm.running_mean, mean)
    torch.testing.assert_close(first_norm.running_var, var)
    assert first_norm.num_batches_tracked == 2


def test_a_smaller_data_set_than_a_batch_is_one_batch(batches: tuple[Batches, Batches]) -> None:
    trainer = make_trainer(make_run(batch_size=10_000, epochs=1), batches)
    assert (trainer.batch_size, trainer.iterations_per_epoch, trainer.total) == (256, 1, 1)


@pytest.mark.parametrize(
    ("last_batch", "size", "group", "sizes"),
    [
        ("train", 100, 50, [100, 100, 56]),
        ("train", 100, 40, [100, 100, 54]),  # three groups of 18
        ("train", 85, None, [85, 85, 85]),  # a last batch of one image has no statistics
        ("drop", 100, 50, [100, 100]),
    ],
)
def test_an_epoch_ends_with_a_smaller_batch_or_drops_it(
    last_batch: str,
    size: int,
    group: int | None,
    sizes: list[int],
    batches: tuple[Batches, Batches],
) -> None:
    run = make_run(batch_size=size, epochs=2, batch_norm_group=group, last_batch=last_batch)
    trainer = make_trainer(run, batches)
    assert trainer.iterations_per_epoch == len(sizes)
    assert [len(trainer.batch(i)[1]) for i in range(2 * len(sizes))] == 2 * sizes
    seen = torch.cat([trainer._indices(i) for i in range(len(sizes))]).tolist()
    assert len(set(seen)) == len(seen) == sum(sizes)


def test_the_last_batch_is_a_step_of_its_mean_loss_in_as_many_groups(
    batches: tuple[Batches, Batches],
) -> None:
    """Images 200 to 255 of the order, in two groups of 28."""
    run = make_run(batch_size=100, batch_norm_group=50, epochs=1, schedule="milestones", lr=0.1)
    run = run.model_copy(
        update={"train": run.train.model_copy(update={"warmup_iterations": 0, "weight_decay": 0.0})}
    )
    trainer = make_trainer(run, batches)
    trainer.step()
    trainer.step()
    start = {n: p.detach().clone() for n, p in trainer.network.named_parameters()}
    momentum = {
        n: trainer.optimizer.state[p]["momentum_buffer"].clone()
        for n, p in trainer.network.named_parameters()
    }
    by_hand = build(run.model, 10, run.seed).train()
    by_hand.load_state_dict(trainer.network.state_dict())
    trainer.step()
    order = epoch_order(256, run.seed, 0)[200:]
    images, labels = batches[0].training(order, stream(run.seed, "augmentation", 2))
    for half in (slice(0, 28), slice(28, 56)):
        loss = functional.cross_entropy(by_hand(images[half]), labels[half], reduction="sum")
        (loss / 56).backward()
    gradients = {n: p.grad for n, p in by_hand.named_parameters()}
    for name, parameter in trainer.network.named_parameters():
        gradient = gradients[name]
        assert gradient is not None
        expected = start[name] - 0.1 * (0.9 * momentum[name] + gradient)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-6)
    assert trainer.position.images == 256


def test_weights_destroyed_by_the_last_step_end_as_diverged(
    batches: tuple[Batches, Batches],
) -> None:
    """Every training loss is finite; the network that the last step leaves is not."""
    run = make_run(
        iterations=5,
        schedule="milestones",
        lr=1e38,
        warmup_iterations=4,
        warmup_lr=0.01,
        milestones=(9,),
        weight_decay=0.0,
    )
    trainer = make_trainer(run, batches)
    assert trainer.fit()
    assert trainer.position.diverged
    assert trainer.final is None
    row = trainer.position.rows[-1]
    assert row["train_loss"] is not None
    assert (row["test_loss"], row["test_error"]) == (None, None)


# --- rows ----------------------------------------------------------------------------------------


def test_rows_and_progress_of_a_run(batches: tuple[Batches, Batches]) -> None:
    told: list[TrainingProgress] = []
    trainer = make_trainer(make_run(evaluate_every=2), batches, report=told.append)
    assert trainer.fit()
    rows = trainer.position.rows
    assert [(row["epoch"], row["iteration"]) for row in rows] == [(1, 4), (2, 8), (3, 12)]
    assert [row["test_error"] is None for row in rows] == [True, False, False]  # last: always
    assert [p.iteration for p in told] == list(range(1, 13))
    assert [p.row for p in told if p.row is not None] == rows
    assert all(0 <= row["train_error"] <= 100 and row["train_loss"] > 0 for row in rows)
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


def test_a_run_that_ends_within_an_epoch_has_a_row_for_the_part(
    batches: tuple[Batches, Batches],
) -> None:
    trainer = make_trainer(make_run(iterations=6), batches)
    assert trainer.fit()
    assert [(row["epoch"], row["iteration"]) for row in trainer.position.rows] == [(1, 4), (2, 6)]
    assert trainer.position.rows[-1]["test_error"] is not None


def test_train_loss_of_a_row_is_the_mean_over_its_images(batches: tuple[Batches, Batches]) -> None:
    trainer = make_trainer(make_run(epochs=1), batches)
    losses = []
    backward = trainer._backward

    def watched(*args: Any) -> tuple[Tensor, Tensor]:
        loss, wrong = backward(*args)
        losses.append((float(loss), int(wrong)))
        return loss, wrong

    trainer._backward = watched  # type: ignore[method-assign]
    trainer.fit()
    row = trainer.position.rows[0]
    assert row["train_loss"] == pytest.approx(sum(loss for loss, _ in losses) / 256)
    assert row["train_error"] == pytest.approx(100 * sum(wrong for _, wrong in losses) / 256)


# --- resuming ------------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "augmentation": {},
    "dropout shortcut": {"model": {"shortcut": "dropout", "placement": "original"}},
    "stochastic depth": {"stochastic_depth": 0.5},
    "active units": {"active_units": 2},
    "one active unit": {"active_units": 1},
    "no momentum": {"momentum": 0.0, "active_units": 2},
    "recomputed units": {"checkpoint_units": True, "model": {"shortcut": "dropout"}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_anywhere_and_resumed_equals_never_stopped(
    kind: str, batches: tuple[Batches, Batches], tmp_path: Path
) -> None:
    """Weights, statistics and momentum to the last bit; rows but for the time they took."""
    run = make_run(**KINDS[kind])
    whole = make_trainer(run, batches)
    assert whole.fit()

    folder = tmp_path / "run"
    stops = (1, 2, 1, 3, 1)  # iterations 1, 3, 4 (an epoch's end), 7, 8 (another); then the end
    reached = 0
    for stop in stops:
        torch.manual_seed(stop)  # nothing may hang on the global generator
        trainer = make_trainer(run, batches, folder, should_stop=after(stop))
        assert trainer.position.iteration == reached
        assert trainer.warnings == []
        assert not trainer.fit()
        reached += stop
    trainer = make_trainer(run, batches, folder)
    assert trainer.fit()

    assert_same(state_of(trainer), state_of(whole))
    measured = [
        [
            {k: v for k, v in row.items() if k not in ("images_per_second", "seconds")}
            for row in t.position.rows
        ]
        for t in (trainer, whole)
    ]
    assert measured[0] == measured[1]
    assert len(measured[0]) == 3


def test_each_kind_of_training_trains_differently(batches: tuple[Batches, Batches]) -> None:
    """The kinds above would all resume well if their settings did nothing."""
    results = []
    for kind in ("augmentation", "stochastic depth", "active units"):
        trainer = make_trainer(make_run(**(KINDS[kind] | {"iterations": 2})), batches)
        trainer.fit()
        results.append(trainer.network.state_dict()["head.fc.weight"])
    assert not torch.equal(results[0], results[1])
    assert not torch.equal(results[1], results[2])


def test_another_configuration_does_not_resume(
    batches: tuple[Batches, Batches], tmp_path: Path
) -> None:
    make_trainer(make_run(), batches, tmp_path, should_stop=after(2)).fit()
    trainer = make_trainer(make_run(lr=0.06), batches, tmp_path)
    assert trainer.position.iteration == 0
    assert trainer.position.rows == []


def test_a_stop_at_the_last_iteration_is_the_end(
    batches: tuple[Batches, Batches], tmp_path: Path
) -> None:
    trainer = make_trainer(make_run(iterations=2), batches, tmp_path, should_stop=after(2))
    assert trainer.fit()
    assert not (tmp_path / CHECKPOINT_FILE).exists()


def test_checkpoints_are_written_as_time_goes_by(
    batches: tuple[Batches, Batches], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    saved: list[int] = []

    def look(progress: TrainingProgress) -> None:
        if (tmp_path / CHECKPOINT_FILE).exists():
            saved.append(progress.iteration)

    assert make_trainer(make_run(iterations=4), batches, tmp_path, report=look).fit()
    assert saved == [2, 3, 4]
    resumed = make_trainer(make_run(iterations=4), batches, tmp_path)
    assert resumed.position.iteration == 3
    assert resumed.fit()


def test_training_leaves_the_input_images_alone(batches: tuple[Batches, Batches]) -> None:
    before = batches[0].images.clone()
    make_trainer(make_run(iterations=2), batches).fit()
    assert torch.equal(batches[0].images, before)


# --- divergence ----------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_ends_the_run_before_the_step(
    batches: tuple[Batches, Batches], tmp_path: Path
) -> None:
    def poison(progress: TrainingProgress) -> None:
        if progress.iteration == 2:
            with torch.no_grad():
                trainer.network.head.fc.weight.fill_(float("inf"))
            before.update({n: p.clone() for n, p in trainer.network.named_parameters()})

    before: dict[str, Tensor] = {}
    trainer = make_trainer(make_run(), batches, tmp_path, report=poison)
    assert trainer.fit()
    assert trainer.position.diverged
    assert trainer.position.iteration == 2
    (row,) = trainer.position.rows
    assert (row["epoch"], row["iteration"]) == (1, 2)
    assert row["test_error"] is None
    assert row["train_loss"] > 0  # of the two iterations that went well
    assert_same(dict(trainer.network.named_parameters()), before)


@pytest.mark.parametrize("schedule", ["milestones", "one_cycle"])
def test_an_absurd_learning_rate_diverges_without_a_crash(
    batches: tuple[Batches, Batches], schedule: str
) -> None:
    run = make_run(lr=1e30, schedule=schedule, warmup_iterations=0)
    trainer = make_trainer(run, batches)
    assert trainer.fit()
    assert trainer.position.diverged
    assert trainer.position.iteration == 1
    assert trainer.fit()  # asking again changes nothing
    assert len(trainer.position.rows) == 1


def test_a_loss_that_is_not_finite_at_once(batches: tuple[Batches, Batches]) -> None:
    trainer = make_trainer(make_run(), batches)
    with torch.no_grad():
        trainer.network.head.fc.bias[0] = float("nan")
    assert trainer.fit()
    assert trainer.position.diverged
    (row,) = trainer.position.rows
    assert (row["epoch"], row["iteration"]) == (1, 0)
    assert [row["train_loss"], row["train_error"], row["images_per_second"]] == [None] * 3


def test_divergence_right_after_an_epoch_belongs_to_the_next_epoch(
    batches: tuple[Batches, Batches],
) -> None:
    def poison(progress: TrainingProgress) -> None:
        if progress.iteration == 4:
            with torch.no_grad():
                trainer.network.head.fc.bias[0] = float("nan")

    trainer = make_trainer(make_run(), batches, report=poison)
    trainer.fit()
    places = [(row["epoch"], row["iteration"]) for row in trainer.position.rows]
    assert places == [(1, 4), (2, 4)]


@pytest.mark.parametrize("bad", [0, 1, 3, 4, 6, 7, 8])
def test_divergence_found_later_is_reported_at_its_iteration(
    bad: int, batches: tuple[Batches, Batches]
) -> None:
    """On CUDA losses are only checked now and then; reports are as if after each iteration."""

    def poison(progress: TrainingProgress) -> None:
        if progress.iteration == bad:
            with torch.no_grad():
                trainer.network.head.fc.bias[0] = float("nan")

    found = []
    for check_every in (1, 3):
        trainer = make_trainer(make_run(), batches, report=poison)
        trainer.check_every = check_every
        poison(TrainingProgress(0, 12, None))
        assert trainer.fit()
        assert trainer.position.diverged
        assert trainer.position.iteration == bad
        rows = [
            {k: v for k, v in row.items() if "second" not in k} for row in trainer.position.rows
        ]
        found.append(rows)
    assert found[0] == found[1]


def test_a_stop_sees_a_divergence(batches: tuple[Batches, Batches], tmp_path: Path) -> None:
    """No checkpoint is made of what came after a loss that was not finite."""

    def poison(progress: TrainingProgress) -> None:
        if progress.iteration == 1:
            with torch.no_grad():
                trainer.network.head.fc.bias[0] = float("nan")

    trainer = make_trainer(make_run(), batches, tmp_path, report=poison, should_stop=after(3))
    trainer.check_every = 50
    assert trainer.fit()
    assert trainer.position.diverged
    assert trainer.position.iteration == 1
    assert not (tmp_path / CHECKPOINT_FILE).exists()


# --- recomputed units ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"placement": "original"},
        {"placement": "bn_after_addition"},
        {"shortcut": "dropout", "placement": "original"},
        {"branch": "bottleneck", "depth": 11},
    ],
    ids=lambda m: "-".join(map(str, m.values())) or "plain",
)
def test_recomputing_units_changes_no_gradient_and_no_statistic(
    model: dict[str, Any], batches: tuple[Batches, Batches]
) -> None:
    results = []
    for recompute in (False, True):
        run = make_run(model, checkpoint_units=recompute)
        trainer = make_trainer(run, batches)
        assert trainer.network.checkpoint_units is recompute
        trainer.network.train()
        torch.manual_seed(5)  # dropout
        trainer._backward(*batch_by_hand(run, batches[0], 0), None, BATCH)
        gradients = {
            n: p.grad.clone() for n, p in trainer.network.named_parameters() if p.grad is not None
        }
        statistics = {
            n: b.clone() for n, b in trainer.network.named_buffers() if b.is_floating_point()
        }
        assert len(gradients) == len(list(trainer.network.parameters()))
        results.append(gradients | statistics)
    assert_same(*results)


# --- active units --------------------------------------------------------------------------------


class Watched(nn.Module):
    """A residual branch that counts its calls."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.branch(x)  # type: ignore[no-any-return]


def watch(network: Network) -> list[Watched]:
    watched = []
    for unit in network.unit_list:
        unit.F = Watched(unit.F)
        watched.append(unit.F)
    return watched


@pytest.mark.parametrize("k", [1, 3, 6])
def test_exactly_k_units_are_active_and_the_others_cost_nothing(
    k: int, batches: tuple[Batches, Batches]
) -> None:
    run = make_run({"depth": 14}, active_units=k, batch_norm_group=None)
    trainer = make_trainer(run, batches)
    watched = watch(trainer.network)
    chosen = set()
    for iteration in range(6):
        active = draw_active(run.train, 6, run.seed, iteration)
        assert active is not None
        assert sum(active) == k
        for branch in watched:
            branch.calls = 0
        trainer.network.train()
        trainer.network.zero_grad()
        trainer._backward(*batch_by_hand(run, batches[0], iteration), active, BATCH)
        assert [branch.calls for branch in watched] == [int(a) for a in active]
        for branch, is_active in zip(watched, active, strict=True):
            with_gradient = [p.grad is not None for p in branch.parameters()]
            assert with_gradient == [is_active] * len(with_gradient)
        chosen.add(tuple(active))
    assert len(chosen) > 1 or k == 6


@pytest.mark.parametrize("inactive", ["decay", "freeze"])
@pytest.mark.parametrize("rule", [{"active_units": 1}, {"stochastic_depth": 0.2}])
def test_inactive_units_step_as_in_torchs_plain_sgd(
    rule: dict[str, Any], inactive: str, batches: tuple[Batches, Batches]
) -> None:
    """decay: with gradients of zero, as in Huang et al.'s code; freeze: without gradients."""
    rule = rule | {"inactive_units": inactive, "weight_decay": 0.05}
    run = make_run({"depth": 14}, iterations=8, batch_norm_group=None, **rule)
    trainer = make_trainer(run, batches)
    assert trainer.fit()

    network = build(run.model, 10, run.seed).train()
    sgd = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.05, foreach=False, fused=False
    )
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for iteration in range(8):
        images, labels = batch_by_hand(run, batches[0], iteration)
        sgd.zero_grad(set_to_none=inactive == "freeze")
        active = draw_active(run.train, 6, run.seed, iteration)
        functional.cross_entropy(network(images, active), labels).backward()
        sgd.param_groups[0]["lr"] = learning_rate(run.train, iteration, 8)
        sgd.step()
    plain = network.state_dict()
    for name, tensor in trainer.network.state_dict().items():
        torch.testing.assert_close(tensor, plain[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_skipped_unit_keeps_its_weights_and_statistics(batches: tuple[Batches, Batches]) -> None:
    run = make_run({"depth": 14}, active_units=2, iterations=1, inactive_units="freeze")
    trainer = make_trainer(run, batches)
    before = {n: t.clone() for n, t in trainer.network.state_dict().items()}
    trainer.fit()
    active = draw_active(run.train, 6, run.seed, 0)
    assert active is not None
    now = trainer.network.state_dict()
    for index, is_active in enumerate(active):
        names = [n for n in now if n.startswith(f"units.{index}.F.")]
        assert names
        same = [torch.equal(now[n], before[n]) for n in names]
        assert not all(same) if is_active else all(same)


def test_evaluation_weighs_each_branch_by_its_survival_and_training_does_not(
    batches: tuple[Batches, Batches],
) -> None:
    run = make_run({"depth": 14, "placement": "original"}, active_units=2)
    network = make_trainer(run, batches).network
    assert [unit.survival for unit in network.unit_list] == [pytest.approx(1 / 3)] * 6
    images, _ = batches[1].evaluation(0, 8)
    unit = network.unit_list[1]
    x = torch.rand(4, 4, 8, 8)
    with torch.no_grad():
        network.eval()
        torch.testing.assert_close(unit(x), torch.relu(x + unit.F(x) / 3))
        assert network(images).isfinite().all()
        network.train()
        torch.testing.assert_close(unit(x), torch.relu(x + unit.F(x)))


def test_stochastic_depth_decays_linearly_and_draws_by_it() -> None:
    config = TrainConfig(epochs=1, stochastic_depth=0.5)
    probabilities = survival_probabilities(config, 4)
    assert probabilities == pytest.approx([0.875, 0.75, 0.625, 0.5])
    draws = torch.tensor([list(draw_active(config, 4, 0, i) or ()) for i in range(4000)])
    assert draws.float().mean(0).tolist() == pytest.approx(probabilities, abs=0.03)


def test_without_a_rule_all_units_are_active(batches: tuple[Batches, Batches]) -> None:
    config = TrainConfig(epochs=1)
    assert draw_active(config, 4, 0, 0) is None
    assert survival_probabilities(config, 4) == [1.0] * 4


def test_dropout_of_an_iteration_is_a_function_of_seed_and_iteration(
    batches: tuple[Batches, Batches],
) -> None:
    """What the loop seeds before each forward pass."""
    run = make_run({"shortcut": "dropout", "placement": "original"}, iterations=1)
    trainer = make_trainer(run, batches)
    trainer.fit()
    network = build(run.model, 10, run.seed).train()
    torch.manual_seed(stream_seed(run.seed, "layers", 0))
    images, labels = batch_by_hand(run, batches[0], 0)
    logits = torch.cat([network(x) for x in images.split(32)])
    loss = functional.cross_entropy(logits, labels)
    assert trainer.position.rows[0]["train_loss"] == pytest.approx(float(loss.detach()), rel=1e-5)


# --- Winograd's convolutions ---------------------------------------------------------------------


def uses_winograd(trainer: Trainer) -> bool:
    return any(isinstance(m, TrainingConv2d) for m in trainer.network.modules())


def test_long_trainings_go_by_winograd_and_learn_the_same(
    batches: tuple[Batches, Batches], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    run = make_run({"widths": (16, 16, 16)}, iterations=4, batch_norm_group=None)
    direct = make_trainer(run, batches)
    assert not uses_winograd(direct), "this training is short"
    monkeypatch.setattr("resnet_cli.kernels.winograd.PAYS_FROM", 0)
    trainer = make_trainer(run, batches)
    assert uses_winograd(trainer)
    assert direct.fit()
    assert trainer.fit()
    (row,), (expected,) = trainer.position.rows, direct.position.rows
    assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-5)
    assert row["test_loss"] == pytest.approx(expected["test_loss"], rel=1e-4)
    first, other = state_of(trainer), state_of(direct)
    assert any(not torch.equal(first[name], other[name]) for name in first), "computed otherwise"


def test_winograd_in_groups_takes_the_same_steps(
    batches: tuple[Batches, Batches], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradients of groups are put together by hand, in the memory order of the parameters."""
    run = make_run({"widths": (16, 16, 16)}, iterations=1, batch_norm_group=8)
    direct = make_trainer(run, batches)
    monkeypatch.setattr("resnet_cli.kernels.winograd.PAYS_FROM", 0)
    trainer = make_trainer(run, batches)
    assert uses_winograd(trainer)
    direct.step()
    trainer.step()
    before = dict(make_trainer(run, batches).network.named_parameters())
    expected = dict(direct.network.named_parameters())
    for name, parameter in trainer.network.named_parameters():
        step = (parameter - before[name]).detach()
        wanted = (expected[name] - before[name]).detach()
        assert float((step - wanted).norm()) <= 1e-2 * float(wanted.norm()) + 1e-6, name


def test_winograd_wants_a_core_for_each_convolution(
    batches: tuple[Batches, Batches], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr("resnet_cli.kernels.winograd.PAYS_FROM", 0)
    wide = {"widths": (16, 16, 16)}
    one_group, groups = make_run(wide, batch_norm_group=None), make_run(wide)
    assert not uses_winograd(make_trainer(groups, batches, engine="plain"))
    assert not uses_winograd(make_trainer(make_run(wide, precision="bfloat16"), batches))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert not uses_winograd(make_trainer(one_group, batches))
    assert uses_winograd(make_trainer(groups, batches)), "each group has a thread of its own"
    with_dropout = make_run(wide | {"shortcut": "dropout"})
    assert not uses_winograd(make_trainer(with_dropout, batches))
