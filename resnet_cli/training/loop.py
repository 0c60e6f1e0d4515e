"""The training loop: SGD on one network, which can be resumed exactly at any iteration."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from resnet_cli.config.schema import RunConfig
from resnet_cli.datasets.batches import Batches, Request, epoch_order
from resnet_cli.kernels import winograd
from resnet_cli.kernels.batch_norm import apply_groups
from resnet_cli.models.network import Network, measure
from resnet_cli.models.survival import draw_active, set_survival
from resnet_cli.runtime import processes
from resnet_cli.runtime.allocator import return_large_blocks
from resnet_cli.runtime.device import arithmetic, autocast
from resnet_cli.runtime.engine import Engine
from resnet_cli.runtime.seeding import stream, stream_seed
from resnet_cli.training.checkpoint import Position, load_checkpoint, save_checkpoint
from resnet_cli.training.distributed import check_shares, distributed_backward
from resnet_cli.training.evaluation import Evaluation, evaluate
from resnet_cli.training.graph import (
    CudaRecorder,
    GraphedStep,
    GraphError,
    Recorder,
    graph_units,
)
from resnet_cli.training.groups import ParallelGroups
from resnet_cli.training.schedule import learning_rate, total_iterations

CHECKPOINT_SECONDS = 60.0
CHECK_EVERY = {"cpu": 1, "cuda": 50}
"""Iterations between checks that all losses were finite. On CUDA a check has to wait for the
device."""


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a run, reported after every iteration."""

    iteration: int
    total: int
    row: dict[str, Any] | None
    """The row of training.csv, if an epoch has just ended."""


class Trainer:
    """Trains one network according to a RunConfig; under torchrun, together with other processes.

    Args:
        train, test: the batches of the two splits, on the network's device.
        folder: where checkpoints are written; None writes none.
        report: called after every iteration.
        should_stop: called after every iteration; if it returns True in any process, the state is
            saved and `fit` returns.
        engine: `plain` trains batch-norm groups one after another, each on all cores. `fast` trains
            them in parallel on a CPU (`ParallelGroups`). On CUDA it trains them in one pass
            (`resnet_cli.kernels.batch_norm`) and replays the step as one graph or, if the active
            units vary from batch to batch, each unit as a graph (`resnet_cli.training.graph`).
        note: receives messages.
        recorder: how steps are recorded.
        fingerprint: the fingerprint of the training split; a checkpoint for different images is
            rejected.

    Raises:
        UserError: the batch cannot be divided evenly among the processes.
    """

    def __init__(
        self,
        run: RunConfig,
        network: Network,
        train: Batches,
        test: Batches,
        folder: Path | None = None,
        report: Callable[[TrainingProgress], None] = lambda progress: None,
        should_stop: Callable[[], bool] = lambda: False,
        engine: Engine = "fast",
        note: Callable[[str], None] = lambda line: None,
        recorder: Recorder | None = None,
        fingerprint: str = "",
    ) -> None:
        self.run, self.network, self.train, self.test = run, network, train, test
        self.folder, self.report, self.should_stop = folder, report, should_stop
        self.note, self.fingerprint = note, fingerprint
        self.recorder = recorder or CudaRecorder()
        self.batch_size = min(run.train.batch_size, len(train))
        check_shares(self.batch_size, run.train.batch_norm_group, processes.size())
        self.groups = -(-self.batch_size // (run.train.batch_norm_group or self.batch_size))
        whole, rest = divmod(len(train), self.batch_size)
        keeps_last = run.train.last_batch == "train" and rest >= 2 * self.groups
        self.last_size = rest - rest % self.groups if keeps_last else self.batch_size
        self.iterations_per_epoch = whole + keeps_last
        self.total = total_iterations(run.train, self.iterations_per_epoch)
        self.device = network.device
        self.engine = engine
        self.optimizer = torch.optim.SGD(
            network.parameters(),
            lr=run.train.lr,
            momentum=run.train.momentum,
            nesterov=run.train.nesterov,
            weight_decay=run.train.weight_decay,
            fused=True,
        )
        for parameter in network.parameters():
            # The fused step needs momentum buffers for all parameters or for none, and units that
            # have been inactive so far would have none. Zeros give the same first step.
            self.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        self.position = Position()
        self._batches: Iterator[tuple[Tensor, Tensor]] = iter(())
        self._next_batch = -1  # the iteration of the next item of `_batches`
        self._order, self._order_epoch = torch.empty(0, dtype=torch.int64), -1
        self.warnings: list[str] = []
        self.final: Evaluation | None = None
        """The evaluation on the test split after the last iteration."""
        self._parallel_groups: ParallelGroups | None = None
        self._in_one_pass = self._wants_graphs = False
        self._graph: GraphedStep | None = None
        config = run.train
        self._units_vary = config.stochastic_depth is not None or config.active_units is not None
        self._zeros: list[Tensor] = []
        """The gradients of inactive units, if momentum and weight decay apply to them."""
        if self._units_vary and config.inactive_units == "decay":
            self._zeros = [torch.zeros_like(parameter) for parameter in network.parameters()]
        network.checkpoint_units = run.train.checkpoint_units
        if run.train.checkpoint_units and self.device.type == "cpu":
            return_large_blocks()
        if engine == "fast" and self.device.type == "cuda":
            self._use_graphs()
        if engine == "fast" and self._winograd_pays():
            winograd.apply_in_training(network)
        set_survival(network, run.train)
        if folder is not None:
            self._resume(folder)
        # Kept on the device between checks: (sum of losses, number wrong), and the first iteration
        # whose loss was not finite, or -1.
        self._sums = torch.tensor(
            (self.position.loss_sum, self.position.wrong), dtype=torch.float64, device=self.device
        )
        self._first_bad = torch.tensor(-1, device=self.device)
        self.check_every = CHECK_EVERY[self.device.type]

    def _use_graphs(self) -> None:
        """Train equal batch-norm groups in one pass, and steps as graphs from the first one on."""
        config = self.run.train
        equal = self.batch_size % min(config.batch_norm_group or 1, self.batch_size) == 0
        if equal and not config.checkpoint_units:
            apply_groups(self.network, self.groups // processes.size())
            self._in_one_pass = self._wants_graphs = True

    def _winograd_pays(self) -> bool:
        """Whether each convolution runs on one core, and there is enough work to pay for compiling
        Winograd's transforms."""
        config = self.run.train
        in_groups = self.groups > processes.size()
        a_core_each = (
            ParallelGroups.fits(self.network) if in_groups else torch.get_num_threads() == 1
        )
        passes = 3.0 * self.batch_size * self.total
        multiply_adds = passes * measure(self.network, self.train.shape[1]).multiply_adds
        return (
            config.precision != "bfloat16"
            and a_core_each
            and winograd.pays(multiply_adds, self.device)
        )

    def fit(self) -> bool:
        """Train to the end, or until `should_stop` returns True. Returns whether it ended."""
        position = self.position
        last_saved = time.monotonic()
        while position.iteration < self.total and not position.diverged:
            started = time.perf_counter()
            self.step()
            self._count(time.perf_counter() - started, epoch=True)
            stop = processes.any_of(self.should_stop())
            if stop:
                self._has_diverged()
            row = self._end_epoch() if self._epoch_is_over() else None
            self.report(TrainingProgress(position.iteration, self.total, row))
            over = position.diverged or position.iteration == self.total
            if stop and not over:
                processes.from_first(self.save)
                return False
            looked = position.iteration % self.check_every == 0
            if looked and not over and time.monotonic() - last_saved > CHECKPOINT_SECONDS:
                self.save()
                last_saved = time.monotonic()
        return True

    def save(self) -> None:
        """Write a checkpoint, if the run has a folder and this is the first process."""
        if self.folder is not None and processes.rank() == 0:
            self._read_sums()
            save_checkpoint(
                self.folder, self.run.hash, self.position, dict(self._tensors()), self.fingerprint
            )

    # --- one iteration ------------------------------------------------------------------------

    def step(self) -> None:
        """One optimizer step. A loss that is not finite ends the run before the step or, on CUDA,
        at the next check; in either case the run's position is the iteration of that loss."""
        position, config = self.position, self.run.train
        iteration = position.iteration
        images, labels = self.batch(iteration)
        size = self._size(iteration)
        self.network.train()
        graph = self._graphed(images, labels) if size == self.batch_size else None
        of_process = (processes.rank(),) if processes.rank() else ()
        torch.manual_seed(stream_seed(self.run.seed, "layers", iteration, *of_process))  # dropout
        active = draw_active(config, len(self.network.units), self.run.seed, iteration)
        lr = learning_rate(config, iteration, self.total)
        with arithmetic(config.precision):
            if graph is not None:
                loss_sum, wrong = graph(images, labels, lr)
            else:
                self.optimizer.zero_grad()  # here, because a replayed graph leaves its gradients
                loss_sum, wrong = distributed_backward(
                    self.network, lambda: self._backward(images, labels, active, size)
                )
        is_bad = ~(loss_sum + self._sums[0]).isfinite() & (self._first_bad < 0)
        self._first_bad = torch.where(is_bad, iteration, self._first_bad)
        if iteration % self.check_every == 0 and self._has_diverged():
            return
        if graph is None:
            self._update(lr)
        position.iteration += 1
        position.images += size
        gained = torch.stack((loss_sum, wrong.double()))
        self._sums += torch.where(self._first_bad < 0, gained, 0.0)
        if self._epoch_is_over():
            self._has_diverged()

    def _update(self, lr: float) -> None:
        """The optimizer's step."""
        if self._zeros:
            for parameter, zeros in zip(self.network.parameters(), self._zeros, strict=True):
                if parameter.grad is None:
                    parameter.grad = zeros
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):  # the step was recorded as a graph
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        self.optimizer.step()

    def _graphed(self, images: Tensor, labels: Tensor) -> GraphedStep | None:
        """The step as one graph. At the first batch, records the step or its units, if possible."""
        if self._wants_graphs:
            self._wants_graphs = False
            # Gradients are summed over several processes between the backward pass and the update.
            one_graph = not self._units_vary and processes.size() == 1
            try:
                with arithmetic(self.run.train.precision):
                    self._graph = (GraphedStep if one_graph else graph_units)(
                        self.network,
                        lambda x, y: self._backward(x, y, None, self.batch_size),
                        self.optimizer,
                        images,
                        labels,
                        self.run.train.precision,
                        self.recorder,
                    )
            except GraphError as error:
                self.note(f"training continues without CUDA graphs: {error}")
        return self._graph

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """This process's augmented images and labels of an iteration."""
        if iteration != self._next_batch:
            self._batches = self.train.stream(self._requests(iteration))
        self._next_batch = iteration + 1
        return next(self._batches)

    def _requests(self, first: int) -> Iterator[Request]:
        """The request for the batch of each iteration from `first` on; batches may be prepared in
        advance."""
        for iteration in range(first, self.total):
            generator = stream(self.run.seed, "augmentation", iteration)
            yield self._indices(iteration), generator, processes.share(self._size(iteration))

    def _size(self, iteration: int) -> int:
        """The number of images in an iteration's batch, over all processes."""
        is_last = (iteration + 1) % self.iterations_per_epoch == 0
        return self.last_size if is_last else self.batch_size

    def _indices(self, iteration: int) -> Tensor:
        """The indices of an iteration's images."""
        epoch, step = divmod(iteration, self.iterations_per_epoch)
        if self._order_epoch != epoch:
            self._order = epoch_order(len(self.train), self.run.seed, epoch)
            self._order_epoch = epoch
        first = step * self.batch_size
        return self._order[first : first + self._size(iteration)]

    def _backward(
        self, images: Tensor, labels: Tensor, active: Sequence[bool] | None, batch_size: int
    ) -> tuple[Tensor, Tensor]:
        """Accumulate the gradient of the whole batch's mean loss. Returns (sum of losses, number
        wrong) for these images.

        Each group of `batch_norm_group` images has its own batch statistics, as on the two GPUs of
        paper 1, and the gradients of all groups are summed. With the fast engine, groups run in
        parallel on a CPU and in one pass on CUDA.
        """
        config = self.run.train
        size = config.batch_norm_group or batch_size
        if batch_size < self.batch_size:
            size = batch_size // self.groups
        if self._in_one_pass:
            size = len(labels)
        groups = list(zip(images.split(size), labels.split(size), strict=True))

        def forward(network: Network, x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            with autocast(self.device, config.precision):
                logits = network(x, active)
            loss = functional.cross_entropy(logits.float(), y, reduction="sum")
            wrong = (logits.detach().argmax(1) != y).sum()
            return loss / batch_size, (loss.detach().double(), wrong)

        if len(groups) > 1 and self.device.type == "cpu" and self.engine == "fast":
            if self._parallel_groups is None:
                self._parallel_groups = ParallelGroups(self.network, len(groups))
            outcomes = self._parallel_groups.backward(groups, forward)
        else:
            outcomes = []
            for x, y in groups:
                loss, outcome = forward(self.network, x, y)
                loss.backward()
                outcomes.append(outcome)
        losses, wrong = zip(*outcomes, strict=True)
        return torch.stack(losses).sum(), torch.stack(wrong).sum()

    def _has_diverged(self) -> bool:
        """Check whether any loss was not finite; if so, the run ends at that iteration."""
        position, first_bad = self.position, int(self._first_bad)
        if first_bad < 0:
            return False
        position.diverged = True
        position.images -= sum(map(self._size, range(first_bad, position.iteration)))
        position.iteration = first_bad
        return True

    # --- epochs -------------------------------------------------------------------------------

    @property
    def _epoch(self) -> int:
        """The epoch of the last iteration, including one that diverged, counted from 1."""
        iterations = self.position.iteration + int(self.position.diverged)
        return math.ceil(iterations / self.iterations_per_epoch)

    def _epoch_is_over(self) -> bool:
        iteration = self.position.iteration
        return (
            self.position.diverged
            or iteration == self.total
            or iteration % self.iterations_per_epoch == 0
        )

    def _end_epoch(self) -> dict[str, Any]:
        """Evaluate if it is due, and add the epoch's row."""
        position, config = self.position, self.run.train
        self._read_sums()
        epoch = self._epoch
        row: dict[str, Any] = {
            "seed": self.run.seed,
            "epoch": epoch,
            "iteration": position.iteration,
            "lr": learning_rate(config, max(position.iteration - 1, 0), self.total),
            "train_loss": None,
            "train_error": None,
            "test_loss": None,
            "test_error": None,
            "images_per_second": None,
        }
        if position.images:
            row["train_loss"] = position.loss_sum / position.images
            row["train_error"] = 100.0 * position.wrong / position.images
            row["images_per_second"] = position.images / position.epoch_seconds
        last = position.iteration == self.total
        if not position.diverged and (last or epoch % config.evaluate_every == 0):
            started = time.perf_counter()
            result = evaluate(self.network, self.test, config.precision)
            self._count(time.perf_counter() - started, epoch=False)
            if math.isfinite(result.loss) and self._weights_are_finite():
                row["test_loss"], row["test_error"] = result.loss, result.error
                self.final = result if last else None
            else:
                position.diverged = True
        row["seconds"] = position.seconds
        position.rows.append(row)
        position.loss_sum, position.wrong, position.images = 0.0, 0, 0
        position.epoch_seconds = 0.0
        self._sums.zero_()
        return row

    def _weights_are_finite(self) -> bool:
        tensors = self.network.state_dict().values()
        return all(bool(t.isfinite().all()) for t in tensors if t.is_floating_point())

    def _count(self, seconds: float, *, epoch: bool) -> None:
        self.position.seconds += seconds
        if epoch:
            self.position.epoch_seconds += seconds

    # --- state --------------------------------------------------------------------------------

    def _read_sums(self) -> None:
        """Copy the sums kept on the device to the position."""
        loss_sum, wrong = self._sums.tolist()
        self.position.loss_sum, self.position.wrong = loss_sum, int(wrong)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.network.state_dict().items():
            yield f"model.{name}", tensor
        for name, parameter in self.network.named_parameters():
            yield f"momentum.{name}", self.optimizer.state[parameter]["momentum_buffer"]

    def _resume(self, folder: Path) -> None:
        """Continue from the folder's checkpoint, if there is one."""
        found = processes.from_first(
            lambda: load_checkpoint(folder, self.run.hash, self.fingerprint)
        )
        if found is None:
            return
        self.position, tensors, self.warnings = found
        if not tensors:
            return
        model = {k.removeprefix("model."): t for k, t in tensors.items() if k.startswith("model.")}
        self.network.load_state_dict(model)
        for name, parameter in self.network.named_parameters():
            self.optimizer.state[parameter]["momentum_buffer"].copy_(tensors[f"momentum.{name}"])
