"""Networks from configurations: `build` makes any network of both papers.

Both names are imported on first use, because torch takes seconds to import and the catalog does not
need it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnet_cli.models.factory import build
    from resnet_cli.models.network import Network

__all__ = ["Network", "build"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from resnet_cli.models import factory

    return getattr(factory, name)
