"""Where the data sets and studies are: a name, and the object that it stands for.

A YAML names a data set or a study, and the configuration must know which names there are without
importing what reads images or measures networks. So only the place of each object is written here,
as `module:attribute`, and the module is imported when the object is needed. The modules of data
sets stay light: they import torch and the like inside functions.
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
    """The object that a name stands for.

    Args:
        registry: `DATASETS` or `STUDIES`.
        what: the kind of object, for the error: `data set`.

    Raises:
        UserError: no such name; lists the valid ones.
    """
    if name not in registry:
        raise unknown(what, name, registry)
    return pkgutil.resolve_name(registry[name])
