"""Tables and their columns: the CSV contracts.

A study declares its own tables; the other tables are declared here. results/README.md is kept equal
to these declarations by a test.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from resnet_cli.config.registry import STUDIES, registered
from resnet_cli.runtime.errors import unknown

Kind = Literal["text", "whole", "number"]


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    kind: Kind
    """`text`; `whole`: an integer of any size; `number`: a float."""
    meaning: str
    """For results/README.md."""
    may_be_empty: bool = False
    """Of a number: empty where it was not measured."""
    may_be_infinite: bool = False
    """Of a number: infinite or NaN is a measurement, as the loss of a network that diverged."""


def text(name: str, meaning: str) -> Column:
    """A column of text."""
    return Column(name, "text", meaning)


def whole(name: str, meaning: str) -> Column:
    """A column of integers."""
    return Column(name, "whole", meaning)


def number(name: str, meaning: str, *, empty: bool = False, infinite: bool = False) -> Column:
    """A column of floats; whether a value may be missing, or infinite or NaN."""
    return Column(name, "number", meaning, empty, infinite)


@dataclass(frozen=True)
class Table:
    """A table: the stem of its file name, what one row is, and its columns in order.

    Columns are never reordered; new ones are added at the end.
    """

    name: str
    row: str
    """What there is one row for."""
    columns: tuple[Column, ...]
    note: str = ""
    """More for results/README.md."""

    @property
    def header(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)


_EXPERIMENT = text("experiment", "name under `experiments/`, such as `he2016/table1`")
_CASE = text("case", "the row of the paper's table, as the experiment names it")
_SEED = whole("seed", "seed of the training")

OWN = (
    Table(
        "training",
        "evaluation of a training",
        (
            _EXPERIMENT,
            _CASE,
            _SEED,
            whole("epoch", "passes over the training split done, from 1"),
            whole("iteration", "optimizer steps done"),
            number("lr", "learning rate of the last step", empty=True),
            number(
                "train_loss",
                "mean over the epoch's batches, training mode, nats",
                empty=True,
                infinite=True,
            ),
            number("train_error", "percent, over the same batches", empty=True),
            number(
                "test_loss",
                "on the test split, nats; empty in epochs without evaluation",
                empty=True,
                infinite=True,
            ),
            number("test_error", "percent; empty in epochs without evaluation", empty=True),
            number("images_per_second", "training throughput", empty=True),
            number("seconds", "time since the training began, without interruptions", empty=True),
        ),
    ),
    Table(
        "table",
        "training of an experiment without a study",
        (
            _EXPERIMENT,
            _CASE,
            text("dataset", "`digits`, `cifar10`, `cifar100`, `imagefolder`"),
            _SEED,
            whole("params", "trainable parameters"),
            text(
                "status",
                "`ok`; `fail`: test error above 20 %, as in the paper (`fail_above:` of the YAML); "
                "`diverged`: a loss was not finite",
            ),
            number("test_error", "percent, after the last epoch; empty when diverged", empty=True),
            number("best_error", "percent, the lowest of all evaluations", empty=True),
            number(
                "paper_error",
                'percent, the published number for the case; empty where it is "fail" or there is '
                "none",
                empty=True,
            ),
        ),
    ),
    Table(
        "table_top5",
        "training with 100 classes or more",
        (
            _EXPERIMENT,
            _CASE,
            _SEED,
            number("top5_error", "percent, after the last epoch; empty when diverged", empty=True),
            number(
                "paper_top5_error",
                "percent, the published number; empty where there is none",
                empty=True,
            ),
        ),
    ),
    Table(
        "bench",
        "benchmark, side and repeat (`resnet-cli bench`)",
        (
            text("item", "the benchmark"),
            text(
                "side",
                "`plain`: the baseline, in `resnet_cli/bench/plain.py` unless the summary's remark "
                "says otherwise; `ours`",
            ),
            whole("repeat", "from 0; sides take turns"),
            number("seconds", "of this repeat"),
            number("amount", "work done in it"),
            text("work_unit", "unit of the amount"),
        ),
    ),
    Table(
        "bench_summary",
        "benchmark",
        (
            text("item", "the benchmark"),
            number("value", "median over the repeats of what `measured_in` names"),
            number("lowest", "over the repeats"),
            number("highest", "over the repeats"),
            text(
                "measured_in",
                "`x`: how many times as fast as the baseline; `passes`: training backward passes; "
                "`%`, `s`, `GB`",
            ),
            number("target", "the value to reach"),
            text("better", "whether `higher` or `lower` is better"),
            text("reached", "`yes` or `no`"),
            number(
                "gflops",
                "arithmetic of ours, in 1e9 multiplications and additions a second",
                empty=True,
            ),
            number(
                "share_of_peak",
                "of what a float32 matrix product of 2048 x 2048 reached on the same threads just "
                "before",
                empty=True,
            ),
            text("remark", "sizes, and how far results differ"),
        ),
    ),
    Table(
        "bench_gpu",
        "check and measurement (`resnet-cli bench --device cuda`)",
        (
            text("item", "the check or measurement"),
            text("precision", "`float32`, `tf32` or `bfloat16`"),
            text("side", "`fast`, or `plain`: eager, batch-norm groups one after another"),
            number(
                "value",
                "median over the repeats, in `measured_in`; empty when it failed",
                empty=True,
            ),
            number("lowest", "over the repeats", empty=True),
            number("highest", "over the repeats", empty=True),
            text("measured_in", "`images/s`; of checks what the difference is a share of"),
            text(
                "remark",
                "the limit of a check and whether it agrees; peak memory; why an item failed",
            ),
        ),
    ),
    Table(
        "bench_scaling",
        "study and size",
        (
            text(
                "study",
                "`lesion_single`: each unit deleted in turn; `exact_sweep`: the exact spectrum",
            ),
            whole(
                "depth", "of the pre-activation network with two-layer units; CIFAR's image size"
            ),
            whole("images", "in the study"),
            number("seconds", "of the study"),
            number("peak_memory_mb", "of its process, above what that took before it began"),
        ),
    ),
    Table(
        "reliability",
        "kind of fault (`make torture`)",
        (
            text(
                "fault",
                "`kill`: SIGKILL at a random step or operation on a file, a write cut in half; "
                "`terminate`: SIGTERM there; `disk full`: the system refuses a write; `damaged "
                "checkpoint`: killed, and bytes of the checkpoint changed; `file size limit`",
            ),
            whole("injected", "faults"),
            whole("resumed", "commands that were given again after a fault, and ended well"),
            whole("rows_lost", "rows of the undisturbed tables that were missing in the end"),
            whole(
                "files_differing",
                "tables that differed from the undisturbed ones, columns of times left out",
            ),
        ),
    ),
)


def all_tables() -> Iterator[Table]:
    """Every table, the studies' in the order of the registry; one that two studies write once."""
    yield from OWN
    seen: set[str] = set()
    for kind in STUDIES:
        for table in registered(STUDIES, "study", kind).tables:
            if table.name not in seen:
                seen.add(table.name)
                yield table


def table_of(stem: str) -> Table:
    """The table that a file of this stem holds.

    Raises:
        UserError: there is no such table.
    """
    found = {table.name: table for table in all_tables()}
    if stem not in found:
        raise unknown("table", stem, found)
    return found[stem]


def described(table: Table) -> str:
    """The section of results/README.md on a table."""
    lines = [f"### {table.name}.csv: one row for each {table.row}", ""]
    lines += [table.note, ""] if table.note else []
    lines += ["| column | meaning |", "|---|---|"]
    lines += [f"| {column.name} | {column.meaning} |" for column in table.columns]
    return "\n".join(lines) + "\n"
