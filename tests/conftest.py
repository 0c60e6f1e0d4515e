"""What all tests share: one thread, so that they neither disturb one another nor vary; options."""

import os
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

SLOW = (
    *("bench", "cli", "kernels", "report", "run"),
    *("claims/test_compare.py", "datasets/test_cifar.py"),
    *("test_api.py", "test_fuzz.py", "test_safety.py", "test_wheel.py"),
    *("models/test_adapt.py", "models/test_catalog.py", "models/test_imagenet.py"),
    *("models/test_networks.py", "results/test_readme.py", "runtime/test_allocator.py"),
    *("studies/test_alternatives.py", "studies/test_contract.py", "studies/test_figures.py"),
    *("studies/test_lesion.py", "studies/test_signal.py", "studies/test_toy.py"),
    *("studies/test_walks.py", "training/test_crashes.py", "training/test_run_folder.py"),
    *("training/test_depth1001.py", "training/test_distributed.py", "training/test_epoch_log.py"),
    *("training/test_evaluation.py", "training/test_loop.py", "training/test_lock.py"),
    "training/test_runs.py",
)
"""Files and folders whose tests train networks, run whole commands, start processes or read all
results: marked `slow`, and left out of `make check`."""


def is_slow(path: Path) -> bool:
    """Whether a file or folder is one of `SLOW`, or in it."""
    return any(path.is_relative_to(Path(__file__).parent / name) for name in SLOW)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import the slow tests for `make check`: this saves seconds in each process."""
    left_out = config.getoption("markexpr") == "not slow" and is_slow(collection_path)
    return True if left_out else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_slow(item.path):
            item.add_marker("slow")


def pytest_configure(config: pytest.Config) -> None:
    """The same inputs each time and no time limit, so that what passed does not fail by chance."""
    settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
    settings.load_profile("repeatable")
    settings.register_profile(
        "fuzz",
        settings.get_profile("repeatable"),
        max_examples=int(os.environ.get("FUZZ_CASES", "200")),
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="session")
def forks_of_torch() -> None:
    """Processes of multiprocessing's forkserver have imported what they need already."""
    packages = ["resnet_cli.run.experiment", "resnet_cli.bench.items", "torch._dynamo"]
    forkserver.set_forkserver_preload(packages)
    forkserver.ensure_running()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
