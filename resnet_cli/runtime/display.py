"""Output: tables and progress on a terminal, plain lines in a log, JSON for machines."""

import json
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from resnet_cli.runtime.text import visible

LOG_SECONDS = 30.0
"""Seconds between progress lines if there is no terminal."""
USUAL_WIDTH = 80
SHORT_NAME = 24
"""A table's first column is never wrapped if it has at most this many characters."""


class Update(Protocol):
    """Updates a progress display, with a remark to show next to it."""

    def __call__(self, done: int, total: int, remark: str = "") -> None: ...


def _silent(done: int, total: int, remark: str = "") -> None:
    pass


class Display:
    """Prints for people on stdout, or, with `as_json`, on stderr, so that stdout is one JSON line.

    Args:
        verbosity: -1 prints only results and errors, 0 also progress, 1 also details.
        silent: print nothing at all; used under torchrun by every process except the first.
    """

    def __init__(self, *, as_json: bool = False, verbosity: int = 0, silent: bool = False) -> None:
        self.as_json = as_json
        self.verbosity = verbosity
        self.silent = silent
        self.console = Console(
            stderr=as_json,
            highlight=False,
            emoji=False,
            soft_wrap=True,
            quiet=silent,
            width=_stated_width(),
        )

    def line(self, text: str, *, level: int = 0) -> None:
        """Print a line if the verbosity is at least `level`."""
        if self.verbosity >= level:
            self.console.print(visible(text, keep="\n"), markup=False)

    def paragraph(self, text: str, *, indent: int = 0, hang: int = 4, level: int = 0) -> None:
        """Print a long line. On a terminal, or if $COLUMNS sets a width, it is wrapped between
        words, with the first line indented by `indent` and the others by `hang`. In a log it stays
        one line."""
        if self.console.is_terminal or os.environ.get("COLUMNS"):
            text = self._filled(text, " " * indent, " " * hang)
        else:
            text = " " * indent + text
        self.line(text, level=level)

    def _filled(self, text: str, first: str = "", then: str = "") -> str:
        """Text wrapped between words at the width of the console."""
        return textwrap.fill(
            text,
            max(40, self.console.width),
            initial_indent=first,
            subsequent_indent=then,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table with right-aligned numbers, no wider than the terminal. Floats are shown
        to two decimals.

        If it would be too wide, the headings of numeric columns break between words and text
        columns are wrapped. Numbers are never wrapped.
        """
        cells = [[_text(value) for value in row] for row in rows]
        short = self.console.width >= USUAL_WIDTH and all(
            len(row[0]) <= SHORT_NAME for row in cells
        )
        numeric = [all(_is_number(row[index]) for row in cells) for index in range(len(columns))]

        def layout(separator: str) -> Table:
            table = Table()
            for index, (name, is_number) in enumerate(zip(columns, numeric, strict=True)):
                header = name.replace(" ", separator) if is_number else name
                justify: Literal["left", "right"] = "right" if is_number else "left"
                whole = is_number or (index == 0 and short)
                table.add_column(escape(header), justify=justify, overflow="fold", no_wrap=whole)
            for row in cells:
                table.add_row(*map(escape, row))
            return table

        table = layout(" ")
        unlimited = self.console.options.update_width(10_000)
        if self.console.measure(table, options=unlimited).maximum > self.console.width:
            table = layout("\n")
        # rich would wrap the table's own title to the width of the table.
        self.console.print(self._filled(visible(title)), markup=False, style="bold")
        self.console.print(table, soft_wrap=False)

    def summary(self, content: Mapping[str, Any]) -> None:
        """Print the one machine-readable line on stdout, with --json."""
        if self.as_json and not self.silent:
            print(json.dumps(content, sort_keys=True), file=sys.stdout, flush=True)

    @contextmanager
    def progress(self, label: str) -> Iterator[Update]:
        """Yield `update(done, total, remark)`: a bar on a terminal, else an occasional line."""
        if self.verbosity < 0 or self.silent:
            yield _silent
            return
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[remark]}"),
            )
            with Progress(*columns, console=self.console, transient=True) as bar:
                task = bar.add_task(escape(visible(label)), total=None, remark="")

                def update(done: int, total: int, remark: str = "") -> None:
                    bar.update(task, completed=done, total=total, remark=escape(visible(remark)))

                yield update
            return
        begun = last = time.monotonic()
        before: int | None = None  # already done at the start, when work is resumed

        def write(done: int, total: int, remark: str = "") -> None:
            nonlocal begun, before, last
            now = time.monotonic()
            if before is None:
                before, begun = (0, begun) if done <= 1 else (done, now)
            if now - last >= LOG_SECONDS and done < total:
                last = now
                left = ""
                if done > before:
                    seconds = (now - begun) / (done - before) * (total - done)
                    left = f", about {duration(seconds)} left"
                self.line(f"{label}: {done}/{total}{left} {remark}".rstrip())

        yield write


def _stated_width() -> int | None:
    """The width in $COLUMNS, limited to 40-1000 characters; None if it is not set."""
    columns = os.environ.get("COLUMNS")
    if not columns:
        return None
    if not (columns.isascii() and columns.isdecimal() and len(columns) < 9 and int(columns)):
        return USUAL_WIDTH
    return min(max(int(columns), 40), 1000)


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else visible(str(value))


def _is_number(text: str) -> bool:
    """Whether a text is a number (1,730,522; +4.04; 0.27 M; 81.5 %; 1e-05; 0.25 to 1.05) or `-`,
    which marks a missing number."""
    return text == "-" or re.fullmatch(_NUMBER, text) is not None


_NUMBER = r"(about )?[+-]?[0-9][0-9,.e+-]*( to [+-]?[0-9.]+)?( [M%])?|nan|-?inf"


def duration(seconds: float) -> str:
    """`45 s`, `1 min 24 s`, `2 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 120:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
