"""Digits: scikit-learn's 1,797 handwritten digits, which come with the program."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resnet_cli.datasets.catalogue import DataSet, Location, SplitName

if TYPE_CHECKING:
    from resnet_cli.config.schema import DataConfig
    from resnet_cli.datasets.split import Split

SOURCE = "scikit-learn's load_digits"


@dataclass(frozen=True, kw_only=True, eq=False)
class Digits(DataSet):
    """Images of 8x8 pixels with values from 0 to 16, enlarged."""

    def read(
        self, config: "DataConfig", split: SplitName, root: Path, limit: int | None
    ) -> "Split":
        """The digits, enlarged bilinearly (align_corners=False), then scaled to 0..255 and rounded;
        all three channels are equal. The split is fixed and stratified by class.
        """
        import numpy as np
        import torch
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        from resnet_cli.datasets.split import Split

        size = config.image_size
        assert size is not None
        bunch = load_digits()
        halves = train_test_split(
            np.arange(len(bunch.target)),
            test_size=self.counts["test"],
            random_state=0,
            stratify=bunch.target,
        )
        chosen = halves[0 if split == "train" else 1]
        small = torch.from_numpy(bunch.images[chosen]).unsqueeze(1)  # [N, 1, 8, 8] float64, 0..16
        large = torch.nn.functional.interpolate(
            small, size=(size, size), mode="bilinear", align_corners=False
        )
        images = (large * (255 / 16)).round().to(torch.uint8).expand(-1, 3, -1, -1)
        labels = torch.from_numpy(bunch.target[chosen]).to(torch.int64)
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
