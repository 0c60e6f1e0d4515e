"""The contract of every data set, and a new one in a program that knows nothing of it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from dataset_files import class_folders, parquet_set

from resnet_cli.cli import run_command
from resnet_cli.config.registry import DATASETS
from resnet_cli.config.schema import DataConfig
from resnet_cli.datasets import catalogue, cifar
from resnet_cli.datasets.catalogue import SPLITS, DataSet, load_split
from resnet_cli.datasets.normalisation import parse_normalization
from resnet_cli.results.layout import provenance_path
from resnet_cli.runtime.errors import UserError
from resnet_cli.runtime.seeding import stream


@pytest.fixture(params=[*DATASETS, "stripes"])
def entry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, small: None) -> DataSet:
    """Each data set in turn; CIFAR with few images."""
    monkeypatch.setitem(DATASETS, "stripes", "toy_data_set:STRIPES")
    return catalogue.dataset(request.param)


@pytest.fixture
def root(entry: DataSet, tmp_path: Path) -> Path:
    """A folder in which the data set is."""
    if isinstance(entry, cifar.Cifar):
        parquet_set(tmp_path, entry, label=entry.label_columns[0])
    elif not entry.is_fixed:
        for split, per_class in (("train", 3), ("val", 2)):
            class_folders(tmp_path / split, ["cat", "dog"], per_class, size=30)
    return tmp_path


def config_of(entry: DataSet, **settings: Any) -> DataConfig:
    """Folders of images are made small."""
    size = {} if entry.image_sizes else {"image_size": 24}
    return DataConfig(dataset=entry.name, **size | settings)


# --- the contract ----------------------------------------------------------------------------


def test_an_entry_is_complete(entry: DataSet) -> None:
    assert entry.name in DATASETS
    assert catalogue.dataset(entry.name) is entry
    assert entry in catalogue.datasets()
    assert catalogue.title_of(entry.name) == entry.title
    assert len(set(entry.classes)) == len(entry.classes)
    assert entry.is_fixed == (entry.counts.keys() == set(SPLITS)) == bool(entry.image_sizes)
    assert not entry.image_sizes or entry.image_size in entry.image_sizes
    allowed = get_args(DataConfig.model_fields["augment"].annotation)
    assert set(entry.augmentations) <= set(allowed) - {"auto"}
    assert (entry.paper_name is None) == (entry.paper_title is None)
    if entry.usual_normalize != "channel":
        parse_normalization(entry.usual_normalize, lambda: pytest.fail("no images are needed"))


def test_auto_is_what_the_entry_says(entry: DataSet) -> None:
    explicit = DataConfig(dataset=entry.name).explicit()
    assert explicit.image_size == entry.image_size
    assert explicit.normalize == entry.normalize
    assert explicit.augment == entry.augmentations[0]
    assert explicit.explicit() == explicit
    chosen = DataConfig(dataset=entry.name, augment="crop", normalize="pixel").explicit()
    assert (chosen.augment, chosen.normalize) == ("crop", "pixel")


def test_both_splits_are_read(entry: DataSet, root: Path) -> None:
    for split in SPLITS:
        config = config_of(entry).explicit()
        found = load_split(config, split, root)
        assert found.dataset == entry.name
        assert found.split == split
        assert found.source
        assert len(found) == entry.counts.get(split, len(found)) > 0
        assert found.classes == (entry.classes or ("cat", "dog"))
        assert found.labels.dtype == torch.int64
        assert set(found.labels.tolist()) == set(range(len(found.classes)))
        assert found.fingerprint == load_split(config, split, root).fingerprint
        few = load_split(config_of(entry, **{f"{split}_images": 3}), split, root)
        assert torch.equal(few.labels, found.labels[:3])
        too_many = config_of(entry, **{f"{split}_images": len(found) + 1})
        with pytest.raises(UserError, match=rf"data\.{split}_images: .* has {len(found):,}$"):
            load_split(too_many, split, root)


def test_batches_are_normalised_as_auto_says(entry: DataSet, root: Path) -> None:
    config = config_of(entry).explicit()
    train = load_split(config, "train", root)
    normalization = parse_normalization(config.normalize, lambda: train)
    batches = train.batches(normalization, config.pad, config.flip)
    images, labels = batches.training(torch.tensor([2, 0, 1]), stream(0, "augmentation", 0))
    assert images.shape == (3, 3, config.image_size, config.image_size) == (3, *batches.shape)
    assert images.dtype == torch.float32
    assert images.isfinite().all()
    assert labels.tolist() == train.labels[[2, 0, 1]].tolist()
    plain, _ = batches.unaugmented(torch.arange(len(train)))
    assert torch.equal(plain[:4], batches.evaluation(0, 4)[0])
    if config.normalize == "channel":
        assert plain.mean((0, 2, 3)).abs().max() < 1e-5


def test_a_missing_data_set_is_one_line_with_a_way_out(entry: DataSet, tmp_path: Path) -> None:
    if entry.embedded:
        assert len(load_split(config_of(entry), "test", tmp_path / "nowhere")) > 0
        return
    with pytest.raises(UserError, match=r"nowhere.*--data-dir") as error:
        load_split(config_of(entry), "train", tmp_path / "nowhere")
    assert "\n" not in str(error.value)


def test_locations_say_what_is_there(entry: DataSet, root: Path) -> None:
    if not entry.is_fixed:
        return  # nowhere to look
    found = [location for location in entry.locations(root) if location.state != "missing"]
    assert [location.state for location in found] == ["found"]
    assert {location.dataset for location in entry.locations(root)} == {entry.name}
    if entry.embedded:
        with pytest.raises(UserError, match=f"{entry.title} cannot be downloaded"):
            entry.download(root)


def test_settings_that_do_not_fit_are_refused(entry: DataSet, root: Path) -> None:
    if not entry.image_sizes:
        assert config_of(entry, augment="scale_aspect", test_size=48).test_size == 48
        return
    with pytest.raises(
        ValueError, match=rf"augment: scale is not available for {entry.name}; use crop"
    ):
        DataConfig(dataset=entry.name, augment="scale")
    with pytest.raises(ValueError, match=rf"test_size: {entry.name} has one size"):
        DataConfig(dataset=entry.name, test_size=320)
    with pytest.raises(
        UserError, match=rf"image_size: 28 is not available for {entry.title}; use \d+"
    ):
        load_split(config_of(entry, image_size=28), "train", root)


# --- names -----------------------------------------------------------------------------------


def test_an_unknown_data_set_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown data set 'cifar11'; did you mean 'cifar10'\?"):
        catalogue.dataset("cifar11")
    with pytest.raises(ValueError, match=r"unknown data set 'mnist' \(known: cifar10, cifar100"):
        DataConfig(dataset="mnist")
    assert catalogue.find_dataset("mnist") is None
    assert catalogue.title_of("mnist") == "mnist"
    assert catalogue.title_of("imagenet") == "ImageNet"


def test_the_catalogue_is_light() -> None:
    heavy = ("torch", "numpy", "pyarrow", "torchvision", "PIL", "pandas", "huggingface_hub")
    code = (
        "import sys; from resnet_cli.datasets import catalogue; catalogue.titles(); "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    package = Path(catalogue.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=package, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# --- a new data set --------------------------------------------------------------------------

EXPERIMENT = """
title: A data set that the program does not know
model: {depth: 8, widths: [8, 8, 8]}
data: {dataset: stripes, pad: 1}
train: {epochs: 8, batch_size: 16, lr: 0.05, warmup_iterations: 0}
study: {kind: delete, k: 1}
profiles:
  smoke: {}
"""


def test_a_module_and_a_line_in_the_registry_are_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training, a study, its figure and `eval` on it, by the command line."""
    monkeypatch.setitem(DATASETS, "stripes", "toy_data_set:STRIPES")
    (tmp_path / "stripes.yaml").write_text(EXPERIMENT)

    def answer(*arguments: str) -> dict[str, Any]:
        assert run_command([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]

    out = tmp_path / "out"
    answer("run", str(tmp_path / "stripes.yaml"), "--profile", "smoke", "--out", str(out))
    (table,) = out.rglob("lesion_delete.csv")
    assert "stripes/test" in provenance_path(table).read_text()
    assert list(out.rglob("*.png"))
    assert answer("eval")["test_error"] < 10  # the newest run, on its own data
    assert answer("data", "stripes")["found"] == ["stripes"]
