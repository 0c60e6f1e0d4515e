"""Weights on disk: this program's self-describing safetensors files, and third-party weights.

This program's files contain everything that a study needs: the resolved configuration, the classes
and the normalisation of the inputs. Nothing here runs pickled code.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from resnet_cli.config.editions import to_current_edition
from resnet_cli.config.schema import ModelConfig, RunConfig
from resnet_cli.datasets.normalisation import Normalization, check_statistics
from resnet_cli.models.adapt import load_adapted, weights_hash
from resnet_cli.models.factory import build
from resnet_cli.models.network import Network
from resnet_cli.models.survival import set_survival
from resnet_cli.results.layout import WEIGHTS_FILE
from resnet_cli.results.run_file import check_files, read_run_file
from resnet_cli.runtime.errors import UserError, shortened
from resnet_cli.weights import cards
from resnet_cli.weights.state_dict import check_values

if TYPE_CHECKING:
    from resnet_cli.weights.assumptions import Assumption

FORMAT = "resnet-cli weights 1"
MAX_HEADER = 16 << 20
"""Largest header of this program's files, in bytes; that of a ResNet-1001 has 0.5 MB."""
DEFAULT_WEIGHTS = "preact56-digits"
"""The bundled weights that a study uses if none are given; their data set needs no download."""


@dataclass(frozen=True)
class Loaded:
    """A network and its properties."""

    network: Network
    """In evaluation mode."""
    model: ModelConfig | None
    """None for a network without a configuration, such as one from a user's Python file."""
    num_classes: int
    source: str
    """What was loaded, for messages: a path, or the name of bundled weights."""
    sha256: str
    """The hash of the file; for an untrained network, that of its run's configuration; for a
    network from a user's Python file, that of its weights."""
    run: RunConfig | None = None
    """How it was trained; None for third-party weights."""
    class_names: tuple[str, ...] | None = None
    normalization: Normalization | None = None
    outcome: Mapping[str, Any] = field(default_factory=dict)
    """The results at the end of training (test_error, epochs, …)."""
    is_trained: bool = True
    """False if the weights are those of the initialisation."""
    name: str = ""
    """A short name inferred from third-party weights."""
    assumptions: tuple["Assumption", ...] = ()
    """Assumed properties of a third-party network."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Properties set with `--model`."""
    notes: tuple[str, ...] = ()
    """Messages on what was chosen in the file, computed from it or ignored."""

    @property
    def label(self) -> str:
        """A short name of the network."""
        if self.model is not None:
            return self.model.label
        return self.name or Path(self.source).stem

    @property
    def is_plain(self) -> bool:
        """See `Network.is_plain`; a third-party VGG has no configuration that would say so."""
        return self.network.is_plain


def weights_bytes(
    network: Network,
    run: RunConfig,
    class_names: tuple[str, ...],
    normalization: Normalization,
    outcome: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> bytes:
    """The content of a safetensors file with a network's weights and description.

    Args:
        dtype: type of the stored floating-point weights; bundled files use float16.
    """
    tensors = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"normalization.{n}": t for n, t in normalization.tensors().items()}
    stored = {
        name: (t.to(dtype) if t.is_floating_point() and name.startswith("model.") else t)
        .detach()
        .cpu()
        .contiguous()
        for name, t in tensors.items()
    }
    metadata = {
        "format": FORMAT,
        "run": run.model_dump_json(),
        "class_names": json.dumps(class_names),
        "outcome": json.dumps(dict(outcome), sort_keys=True),
    }
    return safetensors_bytes(stored, metadata)


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The content of a safetensors file, in a reproducible order.

    The safetensors library sorts the tensors, but the order of the metadata changes from process to
    process. Here the metadata are sorted too, so equal trainings give equal files.
    """
    content = save(dict(tensors), dict(metadata))
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    described = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    described += b" " * (-len(described) % 8)  # the tensors stay aligned to 8 bytes
    return b"".join((len(described).to_bytes(8, "little"), described, memoryview(content)[start:]))


def load_network(reference: str | Path, overrides: Mapping[str, str] | None = None) -> Loaded:
    """Load a network from a weights file, a run's folder, bundled weights by name, a third-party
    checkpoint (`resnet_cli.weights.third_party`), or a user's Python file
    (`resnet_cli.models.adapt`).

    Args:
        overrides: properties of a third-party network, with the keys of
            `resnet_cli.weights.assumptions`.

    Raises:
        UserError: the source does not exist, is damaged, was changed after training, does not match
            any known network, or has a weight that is not finite.
    """
    path = Path(reference)
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except OSError as error:  # such as a name that is too long or a folder without permission
        raise UserError(f"--checkpoint {shortened(path)}: {error.strerror}") from None
    if is_folder:
        if not (path / WEIGHTS_FILE).is_file():
            raise UserError(
                f"--checkpoint {path}: this folder contains no {WEIGHTS_FILE}; give a finished run "
                "under runs/ or a checkpoint file"
            )
        path = path / WEIGHTS_FILE
    elif not is_there:
        path = cards.bundled_path(str(reference))
    if not path.is_file():
        raise UserError(f"--checkpoint {path}: not a file; give a checkpoint file")
    if path.name == WEIGHTS_FILE:
        check_files(path.parent, read_run_file(path.parent) or {}, WEIGHTS_FILE)
    if path.suffix == ".py":
        _refuse_overrides(overrides, reference)
        adapted = load_adapted(path)
        check_values(adapted.network.state_dict(), path)
        digest = weights_hash(adapted.network)
        return Loaded(adapted.network, None, adapted.num_classes, str(reference), digest)
    source = str(reference)
    if is_ours(path):
        _refuse_overrides(overrides, reference)
        tensors, metadata = read_safetensors(path)
        return _ours(path, tensors, metadata, source, file_hash(path))
    from resnet_cli.weights.third_party import load_third_party

    return replace(load_third_party(path, overrides), source=source)


def _refuse_overrides(overrides: Mapping[str, str] | None, reference: str | Path) -> None:
    if overrides:
        raise UserError(
            f"--model {next(iter(overrides))}: {reference} already describes its network; use "
            "--model only for third-party checkpoints"
        )


def is_ours(path: Path) -> bool:
    """Whether a file was made by `weights_bytes`, according to its header.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER, path.stat().st_size):
                return False
            metadata = json.loads(file.read(length)).get("__metadata__", {})
            return str(metadata.get("format", "")).startswith("resnet-cli")
    except OSError as error:
        raise UserError(f"--checkpoint {path}: cannot be read: {error.strerror}") from None
    except (ValueError, AttributeError, RecursionError):
        return False


def file_hash(path: Path) -> str:
    """The SHA-256 of a file as 64 hex digits.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"--checkpoint {path}: cannot be read: {error.strerror}") from None


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file.

    Raises:
        UserError: the file is missing, truncated or not a safetensors file.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise UserError(f"{path}: not a regular file; give a safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: damaged, or not a safetensors file ({' '.join(str(error).split())[:120]})"
        ) from None


def _ours(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], source: str, digest: str
) -> Loaded:
    if metadata["format"] != FORMAT:
        raise UserError(
            f"{path}: has the format {metadata['format']!r}, but this version reads {FORMAT!r}; "
            f"give the run's {WEIGHTS_FILE}"
        )
    try:
        run = RunConfig.model_validate(to_current_edition(json.loads(metadata["run"])))
        class_names, outcome = json.loads(metadata["class_names"]), json.loads(metadata["outcome"])
        if not (isinstance(class_names, list) and class_names and isinstance(outcome, dict)):
            raise TypeError
        mean, std = tensors["normalization.mean"], tensors["normalization.std"]
        if mean.dim() != 3 or len(mean) != 3 or std.shape != (3, 1, 1):
            raise TypeError
        check_statistics(mean, std, "normalisation")
        normalization = Normalization(mean.float(), std.float())
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: its description is damaged ({type(error).__name__}); train it again"
        ) from None
    state = {
        name.removeprefix("model."): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if name.startswith("model.")
    }
    # A false configuration must not allocate memory: every weighted layer needs at least one
    # tensor, and shapes are compared on the meta device before the network is built.
    if run.model.depth > len(state):
        raise UserError(
            f"{path}: its weights do not match its configuration: fewer tensors than layers"
        )
    with torch.device("meta"):
        wanted = build(run.model, len(class_names)).state_dict()
    wrong = sorted(set(state) ^ set(wanted))
    wrong += [n for n in wanted if n in state and state[n].shape != wanted[n].shape]
    if wrong:
        raise UserError(f"{path}: its weights do not match its configuration: {wrong[0]}")
    check_values(state, path)
    network = build(run.model, len(class_names))
    network.load_state_dict(state)
    set_survival(network, run.train)
    return Loaded(
        network.eval(),
        run.model,
        len(class_names),
        source,
        digest,
        run,
        tuple(class_names),
        normalization,
        outcome,
    )
