"""What all tests share: one thread, so that they neither disturb one another nor vary."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
