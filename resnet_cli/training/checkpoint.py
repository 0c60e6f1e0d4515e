"""Checkpoints of a run in training: everything that the next iteration depends on.

A checkpoint is one safetensors file: weights, momentum and running statistics as tensors, and the
position as JSON. It holds no generator state, because no generator outlives an iteration: every
random draw is a function of the seed and the iteration (`resnet_cli.runtime.seeding`).

A new checkpoint is written next to the last one, read back and compared by hash, and only then
takes its place; the last one is kept as `checkpoint.previous.safetensors`. A damaged file is
renamed to `….damaged`, and the previous checkpoint is used.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from resnet_cli.results.layout import CHECKPOINT_FILE, NEW_CHECKPOINT, PREVIOUS_CHECKPOINT
from resnet_cli.results.tables import atomic_write
from resnet_cli.runtime.errors import RunError, UserError
from resnet_cli.weights.load import read_safetensors, safetensors_bytes

FORMAT = "resnet-cli checkpoint 1"


@dataclass
class Position:
    """How far a run has got. Sums are over the images of the current epoch."""

    iteration: int = 0
    """Optimizer steps done."""
    loss_sum: float = 0.0
    wrong: int = 0
    images: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    """Time of training and evaluation, summed over all sessions of a resumed run."""
    diverged: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The rows of training.csv so far."""


def save_checkpoint(
    folder: Path,
    config_hash: str,
    position: Position,
    tensors: Mapping[str, Tensor],
    data: str = "",
) -> None:
    """Write a checkpoint into a run's folder, keeping the previous one.

    Args:
        data: the fingerprint of the training split.

    Raises:
        UserError: the file cannot be written; the last checkpoint is intact.
        RunError: the file does not read back as it was written.
    """
    stored = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    position_text = json.dumps(asdict(position), sort_keys=True)
    metadata = {
        "format": FORMAT,
        "config": config_hash,
        "data": data,
        "position": position_text,
        "sha256": _digest(stored, config_hash + data + position_text),
    }
    new = folder / NEW_CHECKPOINT
    atomic_write(new, safetensors_bytes(stored, metadata))
    if _read(new, config_hash) is None:
        new.unlink(missing_ok=True)
        raise RunError(f"{new}: does not read back as it was written; check the disk")
    if (folder / CHECKPOINT_FILE).exists():
        os.replace(folder / CHECKPOINT_FILE, folder / PREVIOUS_CHECKPOINT)
    os.replace(new, folder / CHECKPOINT_FILE)


def load_checkpoint(
    folder: Path, config_hash: str, data: str = ""
) -> tuple[Position, dict[str, Tensor], list[str]] | None:
    """The newest undamaged checkpoint in a run's folder, or None without any checkpoint.

    Args:
        data: the fingerprint of the training split. Checkpoints without one, from early versions,
            are accepted.

    Returns:
        The position, the tensors, and a warning for each damaged file, which is renamed.

    Raises:
        UserError: the checkpoint is from a training on different images.
    """
    warnings: list[str] = []
    for name in (CHECKPOINT_FILE, PREVIOUS_CHECKPOINT):
        path = folder / name
        if not path.exists():
            continue
        found = _read(path, config_hash)
        if found is not None:
            stored = checkpoint_data(folder, name)
            if data and stored not in (None, data):
                raise UserError(
                    f"{path}: from a training on different images (fingerprint {stored[:12]}…, not "
                    f"{data[:12]}…); give the same images with --data-dir, or move {folder} away"
                )
            return (*found, warnings)
        os.replace(path, path.with_name(path.name + ".damaged"))
        warnings.append(f"{path} is damaged; renamed to {path.name}.damaged")
    if warnings:
        return Position(), {}, warnings
    return None


def checkpoint_data(folder: Path, name: str = CHECKPOINT_FILE) -> str | None:
    """The fingerprint of the training split that a checkpoint records; None if there is none."""
    if not (folder / name).is_file():
        return None
    try:
        with safe_open(folder / name, framework="pt") as file:
            return (file.metadata() or {}).get("data") or None
    except (SafetensorError, OSError, ValueError):
        return None


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint, or a part of one written by a process that was killed."""
    return any(
        (folder / name).exists() for name in (CHECKPOINT_FILE, PREVIOUS_CHECKPOINT, NEW_CHECKPOINT)
    )


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a finished run, which its weights file replaces."""
    for name in (CHECKPOINT_FILE, PREVIOUS_CHECKPOINT, NEW_CHECKPOINT):
        (folder / name).unlink(missing_ok=True)


def _read(path: Path, config_hash: str) -> tuple[Position, dict[str, Tensor]] | None:
    """A checkpoint that is undamaged and belongs to the run, otherwise None."""
    try:
        tensors, metadata = read_safetensors(path)
        text = metadata["position"]
        position = Position(**json.loads(text))
    except (UserError, KeyError, TypeError, ValueError, RecursionError):
        return None
    whole = metadata.get("sha256") == _digest(
        tensors, metadata.get("config", "") + metadata.get("data", "") + text
    )
    belongs = metadata.get("format") == FORMAT and metadata.get("config") == config_hash
    return (position, tensors) if whole and belongs else None


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 over the text and the names, types, shapes and bytes of all tensors."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
