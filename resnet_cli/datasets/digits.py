"""Digits: 1,797 handwritten digits of 8x8 pixels, included in the package."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resnet_cli.datasets.catalogue import DataSet, Location, SplitName

if TYPE_CHECKING:
    from resnet_cli.config.schema import DataConfig
    from resnet_cli.datasets.split import Split

FILE = Path(__file__).with_name("digits.npz")
"""Images [N, 8, 8] uint8 with values from 0 to 16, and labels [N], for `train` and `test`.

These are the images of the test set of E. Alpaydin and C. Kaynak, "Optical Recognition of
Handwritten Digits" (UCI Machine Learning Repository, 1998, doi:10.24432/C50P49, CC BY 4.0), as
scikit-learn distributes them. The splits are scikit-learn's `train_test_split(range(1797),
test_size=360, random_state=0, stratify=labels)`, stored because they could change with its version.
"""
SOURCE = "UCI optical recognition of handwritten digits"


@dataclass(frozen=True, kw_only=True, eq=False)
class Digits(DataSet):
    """Images of 8x8 pixels with values from 0 to 16, enlarged."""

    def read(
        self, config: "DataConfig", split: SplitName, root: Path, limit: int | None
    ) -> "Split":
        """The digits, enlarged bilinearly (align_corners=False), then scaled to 0..255 and rounded;
        all three channels are equal.
        """
        import numpy as np
        import torch

        from resnet_cli.datasets.split import Split

        size = config.image_size
        assert size is not None
        with np.load(FILE) as stored:
            small = torch.from_numpy(stored[f"{split}_images"]).double().unsqueeze(1)
            labels = torch.from_numpy(stored[f"{split}_labels"]).long()
        large = torch.nn.functional.interpolate(
            small, size=(size, size), mode="bilinear", align_corners=False
        )
        images = (large * (255 / 16)).round().to(torch.uint8).expand(-1, 3, -1, -1)
        whole = Split(self.name, split, images, labels, self.classes, f"{SOURCE} (embedded)")
        return whole.take(limit)

    def locations(self, root: Path) -> list[Location]:
        """The only location, which is always available."""
        detail = f"{self.counts['train']:,} training and {self.counts['test']:,} test images"
        return [Location(self.name, SOURCE, "found", f"{detail}, always available")]


DIGITS = Digits(
    name="digits",
    title="digits",
    classes=tuple("0123456789"),
    counts={"train": 1437, "test": 360},
    image_size=16,
    image_sizes=(16, 32),
    embedded=True,
)
"""The digits, enlarged."""
