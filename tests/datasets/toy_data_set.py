"""A data set of its own: what a new one takes, besides a line in the registry."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resnet_cli.datasets.catalogue import DataSet, Location, SplitName

if TYPE_CHECKING:
    from resnet_cli.config.schema import DataConfig
    from resnet_cli.datasets.split import Split


@dataclass(frozen=True, kw_only=True, eq=False)
class Stripes(DataSet):
    """Noisy stripes that lie or stand."""

    def read(
        self, config: "DataConfig", split: SplitName, root: Path, limit: int | None
    ) -> "Split":
        import numpy as np

        from resnet_cli.datasets.split import Split

        count = self.counts[split]
        labels = np.arange(count) % 2
        pixels = np.random.default_rng(count).integers(0, 100, (count, 8, 8, 3), dtype=np.uint8)
        pixels[labels == 0, ::2] += 100
        pixels[labels == 1, :, ::2] += 100
        return Split.of_pixels(self.name, split, pixels, labels, self.classes, "made up").take(
            limit
        )

    def locations(self, root: Path) -> list[Location]:
        return [Location(self.name, "made up", "found", "always available")]


STRIPES = Stripes(
    name="stripes",
    title="Stripes",
    classes=("lying", "standing"),
    counts={"train": 64, "test": 40},
    image_size=8,
    image_sizes=(8,),
    embedded=True,
)
