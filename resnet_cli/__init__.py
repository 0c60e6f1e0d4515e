"""resnet-cli: residual networks, lesions and paths, as measured in two papers.

The Python API is `resnet_cli.api`; its names are also available here and are imported on first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnet_cli.api import (
        Data,
        Dataset,
        Measurement,
        Net,
        UserError,
        dataset,
        delete,
        lesions,
        load,
        reorder,
        reorderings,
        signal,
        spectrum,
        tensors,
        wrap,
    )

__version__ = "0.1.0"
__all__ = [
    "Data",
    "Dataset",
    "Measurement",
    "Net",
    "UserError",
    "__version__",
    "dataset",
    "delete",
    "lesions",
    "load",
    "reorder",
    "reorderings",
    "signal",
    "spectrum",
    "tensors",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from resnet_cli import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
