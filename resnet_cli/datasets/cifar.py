"""CIFAR-10 and CIFAR-100: their possible locations and file layouts."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from resnet_cli.datasets.catalogue import (
    SPLITS,
    DataSet,
    DownloadProgress,
    Location,
    NotFoundError,
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
    """CIFAR-10 or CIFAR-100, in one of three file layouts."""

    torchvision_name: str
    """The class in `torchvision.datasets`."""
    torchvision_folder: str
    label_columns: tuple[str, ...]
    """Possible names of the label column in a parquet file."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Other names of classes, in lower case, and the names used here."""
    mirror: str
    """The repository of the parquet files on the Hugging Face Hub."""
    mirror_folder: str
    digests: dict[SplitName, str] = field(default_factory=dict)
    """`Split.content_digest` of the published images; it does not depend on order or encoding."""

    def read(
        self, config: "DataConfig", split: SplitName, root: Path, limit: int | None
    ) -> "Split":
        """The split from the first location that has it."""
        candidates = self.candidates(root)
        for candidate in candidates:
            if split in candidate.splits():
                return candidate.read(split, limit)
        fix = (
            f"download it with resnet-cli data {self.name} --download, or give its folder with "
            "--data-dir"
        )
        for candidate in candidates:
            if candidate.splits():
                raise NotFoundError(
                    f"{self.title}: {candidate.folder} has no {split} split "
                    f"({candidate.wanted(split)} is missing); {fix}"
                )
        tried: dict[str, list[str]] = {}
        for candidate in candidates:
            kind = f"{candidate.kind} ({candidate.wanted(split)})"
            tried.setdefault(kind, []).append(str(candidate.folder))
        looked = "; ".join(f"{kind} in {', '.join(folders)}" for kind, folders in tried.items())
        raise NotFoundError(f"{self.title} not found: looked for {looked}; {fix}")

    def label_of(self, name: str) -> int | None:
        """The label of a class given by its name in any case, an alias, or its number; otherwise
        None. A number may come before the name, as in `0_airplane`."""
        text = re.sub(r"[ -]", "_", name.strip().lower())
        text = self.aliases.get(text, text)
        if re.fullmatch(r"\d{1,3}", text):
            return int(text) if int(text) < len(self.classes) else None
        match = re.fullmatch(r"(\d{1,3})_(.+)", text)
        if match is not None:
            label = self.label_of(match[2])
            return label if label == int(match[1]) else None
        return self.classes.index(text) if text in self.classes else None

    def candidates(self, root: Path) -> "list[CifarFiles]":
        """All possible locations of the data set, in the order in which they are tried."""
        bases = (root, root / self.name)
        parquet_folders = [base / name for base in bases for name in ("", "data", "plain_text")]
        return [
            *(TorchvisionFiles(self, base) for base in bases),
            *(ParquetFiles(self, folder) for folder in parquet_folders),
            *(ClassFolders(self, base) for base in bases),
        ]

    def locations(self, root: Path) -> list[Location]:
        """See `DataSet.locations`. Takes a few seconds for a full data set: every image is decoded,
        and those of CIFAR-10 are compared with the published ones."""
        return [Location(self.name, str(p.folder), *p.state()) for p in self.candidates(root)]

    def download(self, root: Path, progress: DownloadProgress | None = None) -> Path:
        """Download parquet files from the mirror or, if that fails, the original archive."""
        from resnet_cli.datasets import download

        return download.download_cifar(self, root, progress)


class CifarFiles(ABC):
    """One possible location of a data set, in one file layout."""

    kind: str

    def __init__(self, dataset: Cifar, folder: Path) -> None:
        self.dataset, self.folder = dataset, folder

    @abstractmethod
    def splits(self) -> tuple[SplitName, ...]:
        """The splits that have files here, including damaged ones."""

    @abstractmethod
    def wanted(self, split: SplitName) -> str:
        """The files that this split needs here, for messages."""

    @abstractmethod
    def read(self, split: SplitName, limit: int | None) -> "Split":
        """The first `limit` images of a split in `splits()`; raises UserError if it is damaged."""

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


class TorchvisionFiles(CifarFiles):
    """The pickles distributed by torchvision and the authors of the data set."""

    kind = "torchvision files"

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


class ParquetFiles(CifarFiles):
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


class ClassFolders(CifarFiles):
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
    # From a complete, losslessly encoded copy in the mirror's layout, whose training means (0.4914,
    # 0.4822, 0.4465) and standard deviations (0.2470, 0.2435, 0.2616) are the published ones. There
    # is no digest for CIFAR-100: only the server's checksum and the labels are checked.
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
