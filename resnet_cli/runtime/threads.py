"""Independent tasks on a processor's cores, one thread each.

A chunk of images that fits in a core's cache passes through a whole study faster on one core than
with many threads sharing each operation: data do not move between cores, and threads do not wait
for one another after each operation.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def map_in_threads(
    function: Callable[[T], R], items: Iterable[T], *, parallel: bool
) -> Iterator[R]:
    """function(item) for each item, in order; if `parallel`, in as many threads as torch uses.

    Items are drawn in the calling thread as they are needed. Each thread uses one PyTorch thread,
    so results do not depend on the number of threads. Without `parallel`, as on a GPU, everything
    runs in the calling thread.
    """
    workers = torch.get_num_threads() if parallel else 1
    if workers == 1:
        for item in items:
            yield function(item)
        return
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(workers)  # the initialiser's setting is the default of new threads
