"""The processes that torchrun started for one command, and communication between them.

Every process runs the whole command on its share of the work, and all share the same folders. Only
the first (rank 0) reads state that another command may be changing, writes files and prints.
Without torchrun, or with one process, every function here is an ordinary call.

torch is imported inside the functions: the command line needs the rank before it needs torch.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from resnet_cli.runtime.errors import RunError, UserError, shortened

if TYPE_CHECKING:
    from torch import Tensor

R = TypeVar("R")

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""The variables that torchrun sets; other launchers use some of them differently."""
WAIT = timedelta(days=7)
"""How long a process waits for another that is alive: the first may be waiting for a run's
folder or downloading data. A lost process is noticed at once."""
LEAVE_SECONDS = 5.0
"""How long a finishing process waits for the others: torchrun kills them all once one fails."""


@dataclass
class _Group:
    """The processes of this command; only one before `start`."""

    rank: int = 0
    size: int = 1
    store: Any = None
    """PyTorch's key-value store, which survives the loss of a process."""
    is_broken: bool = False


_group = _Group()


def rank() -> int:
    """This process's rank, from 0; known before `start`."""
    return _group.rank if _group.store is not None else _launched()[0]


def size() -> int:
    """The number of processes that share the work."""
    return _group.size


def local_rank() -> int:
    """This process's rank on its machine, which is also the index of its CUDA device."""
    return int(os.environ["LOCAL_RANK"]) if size() > 1 else 0


def _launched() -> tuple[int, int]:
    """(rank, number of processes), as set by torchrun.

    Raises:
        UserError: a variable is not a valid number.
    """
    if not all(os.environ.get(name) for name in VARIABLES):
        return 0, 1
    numbers = {name: os.environ[name] for name in VARIABLES if name != "MASTER_ADDR"}
    for name, value in numbers.items():
        if re.fullmatch(r"[0-9]{1,6}", value) is None:
            raise UserError(
                f"{name}={shortened(repr(value))}: must be a whole number, as torchrun sets it; "
                f"start several processes with torchrun, or unset {name} for one process"
            )
    if int(numbers["MASTER_PORT"]) > 65535:
        raise UserError(
            f"MASTER_PORT={numbers['MASTER_PORT']}: ports range from 0 to 65535; choose another"
        )
    rank, size = int(numbers["RANK"]), int(numbers["WORLD_SIZE"])
    if rank >= max(size, 1):
        raise UserError(
            f"RANK={rank}, WORLD_SIZE={size}: ranks range from 0 to WORLD_SIZE - 1; unset both to "
            "use one process"
        )
    return rank, size


def start() -> None:
    """Connect to the other processes, if torchrun started several.

    CPU tensors use gloo, CUDA tensors NCCL. Each process uses one thread unless OMP_NUM_THREADS
    is set.
    """
    rank, size = _launched()
    if size == 1 or _group.store is not None:
        return
    import torch
    from torch import distributed as dist

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    on_cuda = torch.cuda.is_available() and dist.is_nccl_available()
    with _reporting_lost_process():
        store, _, _ = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
        # torchrun's store still holds the addresses of processes that were replaced.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"attempt {attempt} of {size}", store)  # type: ignore[attr-defined]
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
            store=dist.PrefixStore("group", store),  # type: ignore[attr-defined]
            rank=rank,
            world_size=size,
            timeout=WAIT,
        )
    _group.rank, _group.size, _group.store = rank, size, store


def finish(code: int) -> None:
    """End together. If one process failed first, torchrun would kill the others before they had
    printed and saved everything."""
    if _group.store is None or _group.is_broken:
        return
    from torch import distributed as dist

    with suppress(RuntimeError):
        _wait_for_all("ended")
        if code == 0:
            dist.destroy_process_group()
        _group.store.add("gone", 1)
        if _group.rank == 0:  # without torchrun the store ends with this process
            _wait_for_all("gone", 0)


def _wait_for_all(counter: str, own: int = 1) -> None:
    """Wait until every process has been counted, for at most LEAVE_SECONDS."""
    deadline = time.monotonic() + LEAVE_SECONDS
    count = _group.store.add(counter, own)
    while count < _group.size and time.monotonic() < deadline:
        time.sleep(0.02)
        count = _group.store.add(counter, 0)


def may_print_errors() -> bool:
    """Whether this process prints an error: only the first one that calls this does."""
    if _group.store is None:
        with suppress(UserError):  # invalid variables: not started by torchrun
            return rank() == 0
        return True
    try:
        return bool(_group.store.add("spoken", 1) == 1)
    except RuntimeError:
        return rank() == 0


# --- communication -------------------------------------------------------------------------------


def share(total: int) -> slice:
    """This process's share of `total` items: contiguous, in order of rank."""
    return share_of(total, rank(), size())


def share_of(total: int, rank: int, size: int) -> slice:
    """The share of `rank` when `size` processes divide `total` items; each item belongs to one."""
    return slice(total * rank // size, total * (rank + 1) // size)


def from_first(function: Callable[[], R]) -> R:
    """Call function() in the first process only and return its result in all processes.

    Raises:
        Exception: an exception of the first process is raised in all of them.
    """
    if size() == 1:
        return function()
    from torch import distributed as dist

    outcome: list[Any] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = function()
        except Exception as error:
            outcome[1] = error
    with _reporting_lost_process():
        dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]  # type: ignore[no-any-return]


def first_then_others(function: Callable[[], R]) -> R:
    """Call function() in the first process, then in the others, which find what the first wrote."""
    if rank() == 0:
        found = function()
        from_first(lambda: None)
        return found
    from_first(lambda: None)
    return function()


def gather_lists(own: list[R]) -> list[R]:
    """The lists of all processes, joined in order of rank; the same result in each process."""
    if size() == 1:
        return own
    from torch import distributed as dist

    lists: list[list[R]] = [[] for _ in range(size())]
    with _reporting_lost_process():
        dist.all_gather_object(lists, own)
    return [item for one in lists for item in one]


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process; the same result in each process."""
    if size() == 1:
        return flag
    import torch
    from torch import distributed as dist

    found = torch.tensor(int(flag))
    with _reporting_lost_process():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return bool(found)


def sum_over_processes(tensor: "Tensor") -> None:
    """Replace a tensor by its sum over all processes, bit for bit the same in each of them."""
    if size() > 1:
        from torch import distributed as dist

        with _reporting_lost_process():
            dist.all_reduce(tensor)


def gather(tensor: "Tensor") -> "Tensor":
    """The tensors of all processes, [processes, *shape], in order of rank."""
    if size() == 1:
        return tensor[None]
    import torch
    from torch import distributed as dist

    found = [torch.empty_like(tensor) for _ in range(size())]
    with _reporting_lost_process():
        dist.all_gather(found, tensor)
    return torch.stack(found)


@contextmanager
def _reporting_lost_process() -> Iterator[None]:
    """Report a lost process in one line; PyTorch raises many different errors for it."""
    try:
        yield
    except RuntimeError as error:
        _group.is_broken = True
        # gloo's message is `[file:line] what happened. Possible cause and advice`.
        reason = re.sub(r"^\[[^]]*\] ", "", str(error)).splitlines()[0].split(". ")[0]
        raise RunError(
            f"process {_group.rank} lost contact with another one ({reason}); the same command "
            "resumes from the last checkpoint"
        ) from error
