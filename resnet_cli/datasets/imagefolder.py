"""Class folders: any tree of images with a folder for each class, such as ImageNet."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resnet_cli.datasets.catalogue import DataSet, SplitName

if TYPE_CHECKING:
    from resnet_cli.config.schema import DataConfig
    from resnet_cli.datasets.folder import Folder
    from resnet_cli.datasets.split import Split


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFolder(DataSet):
    """A folder given by the user; its images are resized and cropped."""

    def read(
        self, config: "DataConfig", split: SplitName, root: Path, limit: int | None
    ) -> "Split | Folder":
        """See `folder.read`."""
        from resnet_cli.datasets import folder

        return folder.read(self.name, root, split, config, limit)


IMAGEFOLDER = ImageFolder(
    name="imagefolder",
    title="class folders",
    image_size=224,
    normalize="imagenet",
    usual_normalize="imagenet",
    augmentations=("scale", "crop", "scale_aspect", "scale_colour", "scale_aspect_colour"),
    assumed_for=1000,
    paper_name="imagenet",
    paper_title="ImageNet",
)
