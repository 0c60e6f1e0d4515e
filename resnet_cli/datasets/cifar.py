"""CIFAR-10 and CIFAR-100: where they may lie, and in which layout."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from resnet_cli.datasets.catalogue import (
    SPLITS,
    DataSet,
    Location,
    NotFoundError,
    Progress,
    SplitName,
)
from resnet_cli.runtime.errors import UserError

if TYPE_CHECKING:
    from resnet_cli.config.schema import DataConfig
    from resnet_cli.datasets.split import Split

MIRROR_FILES: dict[SplitName, str] = {
    "train": "train-00000-of-00001.parquet",
    "test": "test-00000-of-00001.parquet",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Cifar(DataSet):
    """One of the two sets, in any of three layouts."""

    torchvision_name: str
    """The class in `torchvision.datasets`."""
    torchvision_folder: str
    label_columns: tuple[str, ...]
    """Names that a parquet file may have for the labels."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Other names of classes, in lower case."""
    mirror: str
    """The repository of the parquet files on the Hugging Face Hub."""
    mirror_folder: str
    digests: dict[SplitName, str] = field(default_factory=dict)
    """`Split.content_digest` of the published images, however they are ordered or encoded."""

    def read(
        self, config: "DataConfig", split: SplitName, root: Path, limit: int | None
    ) -> "Split":
        """The split from the first place that has it."""
        places = self.places(root)
        for place in places:
            if split in place.splits():
                return place.read(split, limit)
        fix = (
            f"download it: resnet-cli data {self.name} --download; or name its folder with "
            "--data-dir"
        )
        for place in places:
            if place.splits():
                raise NotFoundError(
                    f"{self.title}: {place.folder} has no {split} split "
                    f"({place.wanted(split)} is missing); {fix}"
                )
        tried: dict[str, list[str]] = {}
        for place in places:
            kind = f"{place.kind} ({place.wanted(split)})"
            tried.setdefault(kind, []).append(str(place.folder))
        looked = "; ".join(f"{kind} in {', '.join(folders)}" for kind, folders in tried.items())
        raise NotFoundError(f"{self.title} not found: looked for {looked}; {fix}")

    def label_of(self, name: str) -> int | None:
        """The label of a class by its name in any case, an alias, or its number; None if it is
        none of these. `0_airplane` is the name after the number."""
        text = re.sub(r"[ -]", "_", name.strip().lower())
        text = self.aliases.get(text, text)
        if re.fullmatch(r"\d{1,3}", text):
            return int(text) if int(text) < len(self.classes) else None
        match = re.fullmatch(r"(\d{1,3})_(.+)", text)
        if match is not None:
            label = self.label_of(match[2])
            return label if label == int(match[1]) else None
        return self.classes.index(text) if text in self.classes else None

    def places(self, root: Path) -> "list[Place]":
        """Everywhere the data set is looked for, in order."""
        bases = (root, root / self.name)
        shelves = [base / name for base in bases for name in ("", "data", "plain_text")]
        return [
            *(TorchvisionFiles(self, base) for base in bases),
            *(ParquetFiles(self, shelf) for shelf in shelves),
            *(ClassFolders(self, base) for base in bases),
        ]

    def locations(self, root: Path) -> list[Location]:
        """Takes a few seconds for a full set: every image is decoded, and those of CIFAR-10 are
        compared with the published ones."""
        return [Location(self.name, str(p.folder), *p.state()) for p in self.places(root)]

    def download(self, root: Path, progress: Progress | None = None) -> Path:
        """Parquet files from the mirror, or else the original archive."""
        from resnet_cli.datasets import download

        return download.download_cifar(self, root, progress)


class Place(ABC):
    """One place where a set may lie, in one layout."""

    kind: str

    def __init__(self, dataset: Cifar, folder: Path) -> None:
        self.dataset, self.folder = dataset, folder

    @abstractmethod
    def splits(self) -> tuple[SplitName, ...]:
        """The splits that have files here, damaged ones included."""

    @abstractmethod
    def wanted(self, split: SplitName) -> str:
        """The files this split needs here, in words."""

    @abstractmethod
    def read(self, split: SplitName, limit: int | None) -> "Split":
        """The first `limit` images of a split that `splits` names; UserError if damaged."""

    def state(self) -> tuple[Literal["found", "missing", "damaged"], str]:
        """The state and the detail of a `Location`."""
        present = self.splits()
        if not present:
            return "missing", f"no {self.kind}"
        contents = []
        for split in SPLITS:
            if split not in present:
                return "damaged", f"{self.wanted(split)} is missing"
            try:
                images = self.read(split, None)
            except UserError as error:
                return "damaged", str(error)
            published = self.dataset.digests.get(split)
            verdict = ""
            if published is not None and len(images) == self.dataset.counts[split]:
                same = images.content_digest == published
                verdict = f" (pixels {'verified' if same else 'differ from the published set'})"
            contents.append(f"{len(images):,} {split} images{verdict}")
        return "found", f"{self.kind}: {', '.join(contents)}"


class TorchvisionFiles(Place):
    """The pickles that torchvision and the data set's author distribute."""

    kind = "torchvision's files"

    def __init__(self, dataset: Cifar, base: Path) -> None:
        name = dataset.torchvision_folder
        super().__init__(dataset, base if base.name == name else base / name)

    def splits(self) -> tuple[SplitName, ...]:
        return SPLITS if self.folder.is_dir() else ()

    def wanted(self, split: SplitName) -> str:
        from resnet_cli.datasets.cifar_files import published

        return ", ".join(name for name, _ in published(self.dataset)[split])

    def read(self, split: SplitName, limit: int | None) -> "Split":
        from resnet_cli.datasets.cifar_files import read_pickles

        return read_pickles(self.dataset, split, self.folder, limit)


class ParquetFiles(Place):
    """Hugging Face's parquet files of encoded images."""

    kind = "parquet files"

    def _files(self, split: SplitName) -> list[Path]:
        names = ("train",) if split == "train" else ("test", "validation")
        patterns = [p for n in names for p in (f"{n}-*.parquet", f"{n}.parquet", f"{n}/*.parquet")]
        found = (sorted(self.folder.glob(pattern)) for pattern in patterns)
        return next((files for files in found if files), [])

    def splits(self) -> tuple[SplitName, ...]:
        return tuple(split for split in SPLITS if self._files(split))

    def wanted(self, split: SplitName) -> str:
        return f"{split}-*.parquet, {split}.parquet or {split}/*.parquet"

    def read(self, split: SplitName, limit: int | None) -> "Split":
        from resnet_cli.datasets.cifar_files import read_parquet

        return read_parquet(self.dataset, split, self._files(split), limit)


class ClassFolders(Place):
    """A folder of image files for each class: `train/<class>/*.png` and `test/` or `val/`."""

    kind = "class folders"

    def _top(self, split: SplitName) -> Path | None:
        from resnet_cli.datasets.images import class_names

        names = ("train",) if split == "train" else ("test", "val")
        tops = (self.folder / name for name in names)
        return next((top for top in tops if class_names(top)), None)

    def splits(self) -> tuple[SplitName, ...]:
        return tuple(split for split in SPLITS if self._top(split) is not None)

    def wanted(self, split: SplitName) -> str:
        return "train/<class>/" if split == "train" else "test/<class>/ or val/<class>/"

    def read(self, split: SplitName, limit: int | None) -> "Split":
        from resnet_cli.datasets.cifar_files import read_class_folders

        top, other = self._top(split), self._top("test" if split == "train" else "train")
        assert top is not None
        return read_class_folders(self.dataset, split, self.folder, top, other, limit)


_CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum
rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

CIFAR10 = Cifar(
    name="cifar10",
    title="CIFAR-10",
    classes=tuple(_CIFAR10_CLASSES.split()),
    counts={"train": 50_000, "test": 10_000},
    image_size=32,
    image_sizes=(32,),
    usual_normalize="cifar",
    assumed_for=10,
    paper_name="cifar10",
    paper_title="CIFAR-10",
    torchvision_name="CIFAR10",
    torchvision_folder="cifar-10-batches-py",
    label_columns=("label", "labels"),
    aliases={
        "plane": "airplane",
        "aeroplane": "airplane",
        "car": "automobile",
        "auto": "automobile",
    },
    mirror="uoft-cs/cifar10",
    mirror_folder="plain_text",
    # Of a complete, losslessly encoded copy in the mirror's layout, whose training means (0.4914,
    # 0.4822, 0.4465) and deviations (0.2470, 0.2435, 0.2616) are the published ones. There is none
    # for CIFAR-100: its files are checked against the server's checksum and by their labels.
    digests={
        "train": "55c8a3bce23874fd5871719a30be30ce1b1f86e2f74afbc9cc19d1252b74adde",
        "test": "7d79e752791e1a3f8555c99847bcbd1210edb70997e4519cd59bb1741e4f6ee7",
    },
)

CIFAR100 = Cifar(
    name="cifar100",
    title="CIFAR-100",
    classes=tuple(_CIFAR100_CLASSES.split()),
    counts={"train": 50_000, "test": 10_000},
    image_size=32,
    image_sizes=(32,),
    assumed_for=100,
    paper_name="cifar100",
    paper_title="CIFAR-100",
    torchvision_name="CIFAR100",
    torchvision_folder="cifar-100-python",
    label_columns=("fine_label", "fine_labels", "label", "labels"),
    mirror="uoft-cs/cifar100",
    mirror_folder="cifar100",
)
