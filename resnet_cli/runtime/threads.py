"""Independent tasks on a processor's cores, one thread each.

A chunk of images that fits a core's cache passes through a whole study faster on one core than when
many threads share each operation: no data move between cores, and no thread waits for another at
each operation.
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

    Items are drawn as they are needed, in the calling thread. Each thread computes with one PyTorch
    thread, so results do not depend on their number. Without `parallel`, as on a GPU, everything
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
