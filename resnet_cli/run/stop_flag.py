"""A flag that tells the tasks of a Ray cluster to stop.

Light to import: the flag is an actor, which is a process of its own.
"""

import asyncio
from typing import Any

from resnet_cli.runtime.interrupt import Stopper


class StopFlag:
    """The flag, as a Ray actor that answers several calls at once."""

    def __init__(self) -> None:
        self._begun: set[int] = set()
        self._is_up = asyncio.Event()

    async def begin(self, number: int) -> None:
        """Note that a task begins. The answer comes once it should stop."""
        self._begun.add(number)
        await self._is_up.wait()

    async def go_up(self) -> set[int]:
        """Tell all to stop; returns the numbers of the tasks that began."""
        self._is_up.set()
        return self._begun


class FlagStopper(Stopper):
    """Says to stop once the flag is up.

    The answer arrives beside the work: no step waits for it, and Ray does not take a task that asks
    for one that waits, whose cores another may have.

    Args:
        flag: the actor.
        number: of the task that asks.
    """

    def __init__(self, flag: Any, number: int) -> None:
        super().__init__()
        self._told = flag.begin.remote(number).future()

    def __call__(self) -> bool:
        return self._told.done() and self._told.exception() is None
