"""Tables and their columns: the CSV contracts.

Each study declares its own tables; all others are declared here. A test checks that
results/README.md agrees with these declarations.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from resnet_cli.config.registry import STUDIES, registered
from resnet_cli.runtime.errors import unknown

Kind = Literal["text", "units", "whole", "number"]


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    kind: Kind
    """`text`; `units`: indices joined by spaces; `whole`: an integer of any size; `number`: a
    float."""
    meaning: str
    """For results/README.md."""
    may_be_empty: bool = False
    """Of a number: empty where it was not measured."""
    may_be_infinite: bool = False
    """Of a number: infinite or NaN is a measurement, as the loss of a network that diverged."""


def text(name: str, meaning: str) -> Column:
    """A column of text."""
    return Column(name, "text", meaning)


def units(name: str, meaning: str) -> Column:
    """A column of lists of units: their indices, joined by spaces; it may be empty."""
    return Column(name, "units", meaning)


def whole(name: str, meaning: str) -> Column:
    """A column of integers."""
    return Column(name, "whole", meaning)


def number(name: str, meaning: str, *, empty: bool = False, infinite: bool = False) -> Column:
    """A column of floats; whether a value may be missing, or infinite or NaN."""
    return Column(name, "number", meaning, empty, infinite)


@dataclass(frozen=True)
class Table:
    """A table: the stem of its file name, what each row is, and its columns in order.

    Columns are never reordered; new ones are added at the end.
    """

    name: str
    row: str
    """Completes "one row for each ..."."""
    columns: tuple[Column, ...]
    note: str = ""
    """Further text for results/README.md."""

    @property
    def column_names(self) -> tuple[str, ...]:
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
            whole("epoch", "passes over the training split completed, from 1"),
            whole("iteration", "optimizer steps completed"),
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
            number("seconds", "training time so far, without interruptions", empty=True),
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
                'percent, the published number for the case; empty if it is "fail" or missing',
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
                "percent, the published number; empty if there is none",
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
                "`plain`: the baseline, from `resnet_cli/bench/plain.py` unless the summary's "
                "remark says otherwise; `ours`: this program",
            ),
            whole("repeat", "from 0; the two sides alternate"),
            number("seconds", "duration of this repeat"),
            number("amount", "work done in this repeat, in `work_unit`"),
            text("work_unit", "unit of `amount`"),
        ),
    ),
    Table(
        "bench_summary",
        "benchmark",
        (
            text("item", "the benchmark"),
            number("value", "median over the repeats, in `measured_in`"),
            number("lowest", "lowest value over the repeats"),
            number("highest", "highest value over the repeats"),
            text(
                "measured_in",
                "`x`: how many times as fast as the baseline; `passes`: training backward passes; "
                "`%`, `s`, `GB`",
            ),
            number("target", "the value to reach"),
            text("better", "whether `higher` or `lower` is better"),
            text("reached", "whether the target is reached: `yes` or `no`"),
            number(
                "gflops",
                "speed of this program, in 1e9 multiplications and additions per second",
                empty=True,
            ),
            number(
                "share_of_peak",
                "`gflops` as a fraction of the speed of a 2048 x 2048 float32 matrix product, "
                "measured just before on the same threads",
                empty=True,
            ),
            text("remark", "sizes, and how much the results of the two sides differ"),
        ),
    ),
    *(
        Table(
            name,
            key,
            (
                text("item", "what is checked or measured"),
                text("precision", "`float32`, `tf32` or `bfloat16`"),
                text("side", "`fast`, or `plain`: eager, batch-norm groups one after another"),
                number(
                    "value",
                    "median over the repeats, in `measured_in`; empty if the item failed",
                    empty=True,
                ),
                number("lowest", "lowest value over the repeats", empty=True),
                number("highest", "highest value over the repeats", empty=True),
                text("measured_in", "`images/s`; for a check, what its difference is relative to"),
                text("remark", "limit and result of a check; peak memory; why an item failed"),
            ),
        )
        for name, key in (
            ("bench_gpu_checks", "check (`resnet-cli bench gpu_checks --device cuda`)"),
            ("bench_gpu", "measurement (`resnet-cli bench gpu --device cuda`)"),
        )
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
                "depth", "of the pre-activation network with two-layer units, on CIFAR-sized images"
            ),
            whole("images", "images in the study"),
            number("seconds", "duration of the study"),
            number("peak_memory_mb", "peak memory of its process, minus that before the study"),
        ),
    ),
    Table(
        "reliability",
        "kind of fault (`make torture`)",
        (
            text(
                "fault",
                "`kill`: SIGKILL at a random step or file operation, with a half-finished write; "
                "`terminate`: SIGTERM at such a point; `disk full`: a write fails; `damaged "
                "checkpoint`: SIGKILL, then bytes of the checkpoint are changed; `file size limit`",
            ),
            whole("injected", "number of faults"),
            whole("resumed", "commands that finished when run again after a fault"),
            whole("rows_lost", "rows missing in the end, compared with an undisturbed run"),
            whole(
                "files_differing",
                "tables that differ from those of an undisturbed run, ignoring columns of times",
            ),
        ),
    ),
)


def all_tables() -> Iterator[Table]:
    """Every table once, those of the studies in the order of the registry."""
    yield from OWN
    seen: set[str] = set()
    for kind in STUDIES:
        for table in registered(STUDIES, "study", kind).tables:
            if table.name not in seen:
                seen.add(table.name)
                yield table


def table_of(stem: str) -> Table:
    """The table in a file with this stem.

    Raises:
        UserError: there is no such table.
    """
    found = {table.name: table for table in all_tables()}
    if stem not in found:
        raise unknown("table", stem, found)
    return found[stem]


def described(table: Table) -> str:
    """The section of results/README.md about a table."""
    lines = [f"### {table.name}.csv: one row for each {table.row}", ""]
    lines += [table.note, ""] if table.note else []
    lines += ["| column | meaning |", "|---|---|"]
    lines += [f"| {column.name} | {column.meaning} |" for column in table.columns]
    return "\n".join(lines) + "\n"
