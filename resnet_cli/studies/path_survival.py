"""What deleting units does to the number of paths (paper 2, Figure 7): arithmetic, no network.

A path of length k passes k of the n units by their residual branch. When d units are deleted, the
paths that are left are those whose k units are all among the n - d others: C(n - d, k) of C(n, k),
whichever units were deleted.
"""

import math
from collections.abc import Iterable
from typing import Any

from resnet_cli.runtime.errors import UserError

Row = dict[str, Any]


def path_survival(num_units: int, deleted: Iterable[int]) -> list[Row]:
    """Rows of path_survival.csv: for each number of deleted units the share of paths left.

    Raises:
        UserError: more units are to be deleted than there are.
    """
    rows = []
    for count in deleted:
        if count > num_units:
            raise UserError(
                f"{count} units cannot be deleted; this network has {num_units} units, "
                f"so 0 to {num_units}"
            )
        for k in range(num_units + 1):
            paths, remaining = math.comb(num_units, k), math.comb(num_units - count, k)
            rows.append(
                {
                    "deleted": count,
                    "k": k,
                    "paths": paths,
                    "remaining": remaining,
                    "fraction": remaining / paths,
                }
            )
    return rows
