"""Paths left after deletion, by enumerating them."""

import itertools

import pytest

from resnet_cli.results.tables import column_names
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.path_survival import path_survival


@pytest.mark.parametrize("deleted", [set(), {2}, {0, 3, 4}, set(range(6))])
def test_counts_are_those_of_all_paths(deleted: set[int]) -> None:
    rows = path_survival(6, [len(deleted)])
    for k, row in enumerate(rows):
        paths = list(itertools.combinations(range(6), k))
        left = [path for path in paths if not set(path) & deleted]
        assert row == {
            "deleted": len(deleted),
            "k": k,
            "paths": len(paths),
            "remaining": len(left),
            "fraction": len(left) / len(paths),
        }
        assert set(row) == set(column_names("path_survival"))


def test_the_papers_network() -> None:
    rows = path_survival(54, (1, 10, 20))
    assert len(rows) == 3 * 55
    found = {(row["deleted"], row["k"]): row["fraction"] for row in rows}
    assert found[1, 54] == 0
    assert found[1, 27] == pytest.approx(0.5)
    assert found[10, 1] == pytest.approx(44 / 54)
    assert found[20, 2] == pytest.approx(34 * 33 / (54 * 53))


def test_more_units_than_there_are() -> None:
    with pytest.raises(UserError, match="7 units cannot be deleted; this network has 6 units"):
        path_survival(6, (1, 7))
