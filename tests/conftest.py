"""What all tests share: one thread, so that they neither disturb one another nor vary; options."""

from multiprocessing import forkserver

import pytest
import torch
from hypothesis import HealthCheck, settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-cases",
        type=int,
        default=2000,
        metavar="N",
        help="inputs that tests/test_fuzz.py makes up in all (default: 2000)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The same inputs each time, so that a test that passed does not fail by chance."""
    settings.register_profile(
        "fuzz",
        max_examples=config.getoption("--fuzz-cases"),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="session")
def forks_of_torch() -> None:
    """Processes of multiprocessing's forkserver have imported what they need already."""
    packages = ["resnet_cli.run.experiment", "resnet_cli.bench.items", "torch._dynamo"]
    packages += ["sklearn.datasets", "sklearn.model_selection"]
    forkserver.set_forkserver_preload(packages)
    forkserver.ensure_running()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
