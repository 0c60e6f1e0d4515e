"""The data sets and studies by name.

An experiment file names a data set or a study, and the configuration must know the valid names
without importing the code that reads images or measures networks. This registry therefore gives
each object's location as `module:attribute`, and the module is imported when the object is needed.
The modules of data sets are cheap to import: they import torch and other large packages inside
functions.
"""

import pkgutil
from collections.abc import Mapping
from typing import Any

from resnet_cli.runtime.errors import unknown

DATASETS: dict[str, str] = {
    "digits": "resnet_cli.datasets.digits:DIGITS",
    "cifar10": "resnet_cli.datasets.cifar:CIFAR10",
    "cifar100": "resnet_cli.datasets.cifar:CIFAR100",
    "imagefolder": "resnet_cli.datasets.imagefolder:IMAGEFOLDER",
}
"""The data sets, in the order in which they are listed."""
STUDIES: dict[str, str] = {
    "delete": "resnet_cli.studies.delete:DeleteUnits",
    "reorder": "resnet_cli.studies.reorder:ReorderUnits",
    "greedy": "resnet_cli.studies.greedy:GreedyDeletion",
    "additivity": "resnet_cli.studies.additivity:Additivity",
    "recalibration": "resnet_cli.studies.recalibration:Recalibration",
    "influence": "resnet_cli.studies.influence:BlockInfluence",
    "paths": "resnet_cli.studies.paths.study:Paths",
    "signal": "resnet_cli.studies.signal:Signal",
    "iterative": "resnet_cli.studies.iterative:IterativeInference",
    "effects": "resnet_cli.studies.effects:Effects",
    "path_survival": "resnet_cli.studies.path_survival:PathSurvival",
}
"""The studies, in the order in which they are listed."""


def registered(registry: Mapping[str, str], what: str, name: str) -> Any:
    """The object registered under a name.

    Args:
        registry: `DATASETS` or `STUDIES`.
        what: the kind of object for the error message, such as `data set`.

    Raises:
        UserError: there is no such name; the message lists the valid names.
    """
    if name not in registry:
        raise unknown(what, name, registry)
    return pkgutil.resolve_name(registry[name])
