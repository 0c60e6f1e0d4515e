"""SIGINT, SIGTERM and time budgets: finish the step, save, and say how to resume."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from resnet_cli.runtime.errors import UserError


class Interrupted(Exception):  # noqa: N818 - not an error
    """The user, the system or the time budget ended the run; its state is saved. Exit code 130."""


def parse_duration(text: str) -> float:
    """`90s`, `150m` or `2h` in seconds.

    Raises:
        UserError: the text is not a valid duration.
    """
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smh])", text.strip())
    if match is None:
        raise UserError(f"--budget {text!r}: write 90s, 150m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def interruptible(
    report: Callable[[int, int], None], should_stop: Callable[[], bool], message: str
) -> Callable[[int, int], None]:
    """A progress report that also interrupts unfinished work once `should_stop` returns True.

    Args:
        message: the text of `Interrupted`.
    """

    def report_or_stop(done: int, total: int) -> None:
        report(done, total)
        if done < total and should_stop():
            raise Interrupted(message)

    return report_or_stop


class Stopper:
    """Whether to stop: True after a first signal, or once the time budget is used up."""

    def __init__(self, budget_seconds: float | None = None) -> None:
        self.signalled = False
        self._deadline = None if budget_seconds is None else time.monotonic() + budget_seconds

    @property
    def out_of_time(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def __call__(self) -> bool:
        return self.signalled or self.out_of_time

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM: the first sets a flag, a second ends the process at once.

        Ending at once is safe, because files are only ever replaced as a whole.
        """

        def handle(signum: int, frame: FrameType | None) -> None:
            if self.signalled:
                os._exit(130)
            self.signalled = True

        previous = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)
