"""Work in threads: order, errors, laziness, and the settings of torch."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from resnet_cli.runtime.threads import map_in_threads


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(threads: int) -> None:
    torch.set_num_threads(threads)

    def slow(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item * item

    assert list(map_in_threads(slow, range(20), parallel=True)) == [n * n for n in range(20)]
    assert torch.get_num_threads() == threads


def test_each_thread_computes_with_one() -> None:
    torch.set_num_threads(3)
    seen = list(
        map_in_threads(
            lambda _: (torch.get_num_threads(), threading.get_ident()), range(6), parallel=True
        )
    )
    assert {threads for threads, _ in seen} == {1}
    assert threading.get_ident() not in {ident for _, ident in seen}


def test_otherwise_all_runs_in_the_calling_thread() -> None:
    torch.set_num_threads(3)
    idents = set(map_in_threads(lambda _: threading.get_ident(), range(4), parallel=False))
    assert idents == {threading.get_ident()}


@pytest.mark.parametrize("threads", [1, 2])
def test_items_are_taken_as_they_are_needed(threads: int) -> None:
    torch.set_num_threads(threads)
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = map_in_threads(lambda item: item, items(), parallel=True)
    next(results)
    assert len(taken) <= threads + 1
    results.close()  # type: ignore[attr-defined]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_ends_it(threads: int) -> None:
    torch.set_num_threads(threads)

    def fails(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    with pytest.raises(ValueError, match="three"):
        list(map_in_threads(fails, range(50), parallel=True))
    assert torch.get_num_threads() == threads
