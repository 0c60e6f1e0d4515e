"""Every test of figures leaves matplotlib as it was."""

import sys
from collections.abc import Iterator

import matplotlib
import pytest


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = dict(matplotlib.rcParams)
    yield
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []
    assert dict(matplotlib.rcParams) == before
