"""The written-down sizes of the papers' networks are those of the networks themselves."""

import subprocess
import sys
from typing import Any

import pytest

from resnet_cli.config.schema import ModelConfig
from resnet_cli.models.catalog import NETWORKS, catalog, input_of
from resnet_cli.models.factory import build
from resnet_cli.models.network import measure


@pytest.mark.parametrize(("keys", "size"), [(keys, size) for keys, _, size in NETWORKS])
def test_sizes_are_measured(keys: dict[str, Any], size: tuple[int, ...]) -> None:
    config = ModelConfig.model_validate(keys)
    pixels, classes = input_of(config)
    found = measure(build(config, classes), pixels)
    assert (found.units, found.layers, found.parameters, found.multiply_adds) == size


def test_no_network_is_listed_twice() -> None:
    rows = catalog()
    assert len({(row["network"], row["input"]) for row in rows}) == len(rows)


def test_the_catalog_needs_no_torch() -> None:
    code = (
        "import sys, resnet_cli.models.catalog as c; c.catalog(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
