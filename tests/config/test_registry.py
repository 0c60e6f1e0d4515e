"""The registry of data sets and studies."""

import math

import pytest

from resnet_cli.config.registry import registered
from resnet_cli.runtime.errors import UserError


def test_the_object_is_imported_when_it_is_needed() -> None:
    assert registered({"circle": "math:pi", "broken": "no_such_module:x"}, "number", "circle") == (
        math.pi
    )


def test_an_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(UserError, match=r"unknown data set 'circel'; .*'circle'"):
        registered({"circle": "math:pi"}, "data set", "circel")
