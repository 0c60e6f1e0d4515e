"""The benchmarks by name, with their targets; `resnet_cli.bench.items` measures them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Item:
    """One benchmark, which is one row of the summary."""

    name: str
    title: str
    target: float
    better: Literal["higher", "lower"]
    measured_in: str
    """Unit of the number that is compared with the target: `x`, `%`, `s`, `GB`."""
    unit: str = ""
    """Unit of the work done, for speeds, such as `images`."""

    def is_reached(self, value: float) -> bool:
        return value >= self.target if self.better == "higher" else value <= self.target


ITEMS: tuple[Item, ...] = (
    Item(
        "lesion_single",
        "Figure 3's sweep: each of 27 units deleted, ResNet-56",
        6.0,
        "higher",
        "x",
        "images",
    ),
    Item(
        "lesion_count",
        "Figure 5a's sweep: k = 1..20, 20 samples each, ResNet-56",
        3.0,
        "higher",
        "x",
        "images",
    ),
    Item(
        "exact_sweep",
        "exact spectrum of ResNet-110, in training backward passes of the batch",
        25.0,
        "lower",
        "passes",
        "sweeps",
    ),
    Item(
        "path_samples",
        "sampled paths per second, ResNet-110, one path per image",
        40.0,
        "higher",
        "x",
        "paths",
    ),
    Item("training_110", "training ResNet-110", 1.25, "higher", "x", "images"),
    Item("training_20", "training ResNet-20", 1.25, "higher", "x", "images"),
    Item(
        "torchrun",
        "training ResNet-110 with two processes of one thread, against one process of two",
        1.1,
        "higher",
        "x",
        "images",
    ),
    Item(
        "active_units",
        "training with 23 of 54 units active, against all",
        2.0,
        "higher",
        "x",
        "images",
    ),
    Item(
        "batch_preparation",
        "preparing a batch, as a share of a training step of ResNet-20",
        2.0,
        "lower",
        "%",
        "images",
    ),
    Item("help", "resnet-cli --help", 0.4, "lower", "s"),
    Item(
        "memory_1001",
        "peak memory of a training step of ResNet-1001, batch 64",
        8.0,
        "lower",
        "GB",
        "images",
    ),
)
SCALING = "scaling"
"""The name of one more benchmark: how the cost of studies grows."""
NAMES = (*(item.name for item in ITEMS), SCALING)
GPU_NAMES = ("gpu_checks", "gpu")
"""The benchmarks of `resnet_cli.bench.gpu`: all of `bench --device cuda`."""
