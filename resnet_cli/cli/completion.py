"""What a shell offers on the tab key for arguments and options, each given what is typed so far.

An answer must come while one types, so nothing here imports torch or pandas; names that live in
heavy modules stand here once more, and a test holds them equal. Where nothing fits, the shell
offers files.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

Complete = Callable[[str], list[str]]

PAPERS = ("he2016", "veit2016")
DATASETS = ("digits", "cifar10", "cifar100", "imagefolder")
SHOWN_DATASETS = ("digits", "cifar10", "cifar100")
"""Those that `resnet-cli data` looks for."""
DEVICES = ("auto", "cpu", "cuda")
NORMALIZATIONS = ("imagenet", "cifar", "channel", "pixel", "none")
ESTIMATORS = ("batch", "image")
BENCHMARKS = (
    "lesion_single",
    "lesion_count",
    "exact_sweep",
    "path_samples",
    "training_110",
    "training_20",
    "torchrun",
    "active_units",
    "batch_preparation",
    "help",
    "memory_1001",
    "scaling",
)


def _one_of(names: Iterable[str]) -> Complete:
    known = tuple(names)

    def complete(incomplete: str) -> list[str]:
        return _fitting(known, incomplete)

    return complete


def _fitting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


papers = _one_of(PAPERS)
datasets = _one_of(DATASETS)
shown_datasets = _one_of(SHOWN_DATASETS)
devices = _one_of(DEVICES)
normalizations = _one_of(NORMALIZATIONS)
estimators = _one_of(ESTIMATORS)
benchmarks = _one_of(BENCHMARKS)


def experiments(incomplete: str) -> list[str]:
    """The experiments that travel with the program."""
    from resnet_cli.config.experiments import experiment_names

    return _fitting(experiment_names(), incomplete)


def profiles(incomplete: str) -> list[str]:
    """The four profiles."""
    from resnet_cli.config.schema import PROFILES

    return _fitting(PROFILES, incomplete)


def engines(incomplete: str) -> list[str]:
    """How a study computes."""
    from resnet_cli.runtime.engine import ENGINES

    return _fitting(ENGINES, incomplete)


def checkpoints(incomplete: str) -> list[str]:
    """Bundled weights by name, and the folders of finished runs here."""
    bundled = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))
    trained = sorted(str(path.parent) for path in Path("runs").glob("*/weights.safetensors"))
    return _fitting([*bundled, *trained], incomplete)


WEIGHTS = Path(__file__).parents[1] / "weights" / "bundled"
"""The bundled weights; as `resnet_cli.weights.load.bundled_folder`, which needs torch."""
