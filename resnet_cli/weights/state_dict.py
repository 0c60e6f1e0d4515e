"""Find the state dict in a checkpoint's content and clean it up.

Accepted: containers and prefixes of training code, raw weights next to averaged ones, thop's
counters, the masks of torch.nn.utils.prune, and buffers that normalise the input. Rejected, with
the entry's name: entries that are not dense tensors, and values that no trained network has (NaN,
infinity, negative variances).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_cli.datasets.normalisation import Normalization
from resnet_cli.runtime.errors import UserError, unknown
from resnet_cli.weights.pickles import Inert, UnsupportedTensor
from resnet_cli.weights.reading import ADAPTER

CONTAINERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "weights",
    "net_state_dict",
    "model_state",
    "params",
    "student",
    "checkpoint",
)
"""Keys under which training code stores weights, in order of preference."""
AVERAGED = re.compile(r"(^|[._])(ema|swa)([._]|$)|averag")
"""Keys of weights averaged over the training, which are used if there are no others."""
PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
    "backbone.",
    "net.",
    "network.",
    "encoder.",
    "resnet.",
    "student.",
    "base_model.",
)
MAX_LEVELS = 4
"""Number of levels at which containers are searched."""

MAX_COPIES = 4
"""Largest ratio of the tensors' size to the stored size; with tied weights it is above 1."""

_NUMBERED = re.compile(r"\d+\.(?=.*\.)")  # nn.Sequential(normalise, model)
_LEFTOVER = re.compile(r"(?:.*\.)?(?:total_ops|total_params)|n_averaged")
_NORMALIZATION = re.compile(
    r"(?:(?:\w+\.)*(?:normali[sz]e|normali[sz]er|normali[sz]ation|norm|preprocess)\.|\d+\.|)"
    r"(?:new_)?(mean|std|mu|sigma)"
)


@dataclass(frozen=True)
class State:
    """The weights of one network by name, with further information from their file."""

    tensors: Mapping[str, Tensor]
    """Name without prefixes -> tensor, as stored."""
    container: str
    """The path of keys to the weights, such as `model_ema`; empty at the top level."""
    others: tuple[str, ...] = ()
    """Paths of other weights in the file, for `--model weights=PATH`."""
    normalization: Normalization | None = None
    """The normalisation given by buffers in the file."""
    notes: tuple[str, ...] = ()
    """Messages on what was ignored or computed."""


def find_state(content: Any, path: Path, wanted: str | None = None) -> State:
    """The state dict in a checkpoint's content.

    Args:
        wanted: the path of the container; None means the raw weights, under a usual key.

    Raises:
        UserError: there is none, or there are several under unusual keys; or an entry is not a
            dense tensor.
    """
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: contains {_described(content)}; save model.state_dict(), {ADAPTER}"
        )
    if not content:
        raise UserError(f"{path}: contains an empty state dict; save model.state_dict()")
    found = dict(_state_dicts(content))
    if wanted is not None:
        if wanted not in found:
            raise unknown("weights", wanted, [name or "(top)" for name in found])
        chosen = wanted
    else:
        chosen = _choose(found, content, path)
    tensors, notes = _cleaned(found[chosen], path)
    normalization, tensors, more = _normalization(tensors, path)
    others = tuple(
        name for name in found if name != chosen and _may_be_weights(found[name], tensors)
    )
    check_values(tensors, path)
    return State(tensors, chosen, others, normalization, (*notes, *more))


def _state_dicts(
    content: Mapping[Any, Any], at: str = "", level: int = 0
) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """All dicts of tensors by name, with the paths of keys to them."""
    values = [value for key, value in content.items() if isinstance(key, str) and "." in key]
    if any(isinstance(value, Tensor | UnsupportedTensor) for value in values):
        yield at, content
        return
    if level < MAX_LEVELS:
        for key, value in content.items():
            if isinstance(key, str) and isinstance(value, dict) and value is not content:
                yield from _state_dicts(value, f"{at}.{key}" if at else key, level + 1)


def _choose(found: Mapping[str, Any], content: Mapping[Any, Any], path: Path) -> str:
    raw = [name for name in found if not AVERAGED.search(name)]
    if not found:
        raise UserError(f"{path}: {_without_weights(content)}; save model.state_dict(), {ADAPTER}")
    for names in (raw, list(found)):
        ranked = sorted(names, key=_rank)
        if len(ranked) == 1 or (ranked and _rank(ranked[0]) < len(CONTAINERS)):
            return ranked[0]
        if ranked:
            break
    raise UserError(
        f"{path}: contains several networks ({', '.join(sorted(found)[:6])}); choose one, for "
        f"example with --model weights={sorted(found)[0]}"
    )


def _rank(name: str) -> int:
    first = name.split(".")[0]
    return CONTAINERS.index(first) if first in CONTAINERS else -1 if not name else len(CONTAINERS)


def _described(content: object) -> str:
    if isinstance(content, Inert):
        return f"pickled code ({content.name:.80}), which is not run"
    kind = "Tensor" if isinstance(content, Tensor | UnsupportedTensor) else type(content).__name__
    return f"a {kind}, not a state dict"


def _without_weights(content: Mapping[Any, Any]) -> str:
    """A description of the content of a dict without a state dict."""
    for key, value in content.items():
        if isinstance(value, Inert):
            return (
                f"contains pickled code ({value.name:.80} under {_shown(str(key))}), which is not "
                "run"
            )
        if value == {} and str(key) in CONTAINERS:
            return f"contains an empty state dict under {_shown(str(key))}"
    listed = ", ".join(_shown(str(key)) for key in list(content)[:4])
    return f"contains no state dict, only {listed}"


def _may_be_weights(other: Mapping[Any, Any], tensors: Mapping[str, Tensor]) -> bool:
    """Whether these may be weights of a network of similar size: an average, or another model."""
    return len(other) >= len(tensors) // 2


def _cleaned(state: Mapping[Any, Any], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by name without prefixes, without thop's counters and with pruned weights masked."""
    notes, tensors = [], {}
    others = [
        key for key, value in state.items() if not isinstance(value, Tensor | UnsupportedTensor)
    ]
    if others:
        listed = ", ".join(_shown(str(key)) for key in others[:3])
        notes.append(f"ignored, not tensors: {listed}{', …' if len(others) > 3 else ''}")
    for key, value in state.items():
        if not isinstance(value, Tensor | UnsupportedTensor):
            continue
        name = _strip(str(key))
        if _LEFTOVER.fullmatch(name):
            continue
        if isinstance(value, UnsupportedTensor):
            raise UserError(f"{path}: {_shown(str(key))}: {_why_unsupported(value)}")
        if name in tensors:
            raise UserError(
                f"{path}: {_shown(str(key))}: another key also becomes {_shown(name)} without its "
                "prefix; save model.state_dict()"
            )
        tensors[name] = _checked(value, str(key), path)
    _check_memory(tensors, path)
    masked = [name for name in tensors if name.endswith("_mask")]
    for mask in masked:
        name = mask.removesuffix("_mask")
        if name + "_orig" in tensors and tensors[name + "_orig"].shape == tensors[mask].shape:
            tensors[name] = tensors.pop(name + "_orig") * tensors.pop(mask)
    if masked:
        notes.append(f"{len(masked)} pruned tensors multiplied by their masks")
    return tensors, notes


def _check_memory(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Check that a file does not use the same values under many names, as each would be copied.

    Raises:
        UserError: it does.
    """
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors.values()
    }
    named = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if named > MAX_COPIES * sum(storages.values()) + (1 << 20):
        raise UserError(f"{path}: uses the same values many times; save model.state_dict()")


def _why_unsupported(value: UnsupportedTensor) -> str:
    if value.kind == "quantised":
        return "is quantised; save the network before quantisation"
    return f"not a dense tensor with all its values in the file ({value.kind})"


def _checked(tensor: Tensor, key: str, path: Path) -> Tensor:
    """The tensor, after checking that it is dense and has a valid type.

    Raises:
        UserError: it is not.
    """
    is_dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
    size = tensor.numel() * tensor.element_size()
    if not is_dense or size > tensor.untyped_storage().nbytes():
        raise UserError(
            f"{path}: {_shown(key)}: not a dense tensor with all its values in the file"
        )
    if not (tensor.is_floating_point() or key.endswith(("num_batches_tracked", "_mask"))):
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise UserError(
            f"{path}: {_shown(key)}: has type {dtype}; weights must be floating-point numbers (is "
            "the network quantised?)"
        )
    return tensor


def _strip(key: str) -> str:
    while True:
        match = _NUMBERED.match(key)
        if key.startswith(PREFIXES):
            key = key.partition(".")[2]
        elif match is not None:
            key = key[match.end() :]
        else:
            return key


def _normalization(
    tensors: dict[str, Tensor], path: Path
) -> tuple[Normalization | None, dict[str, Tensor], list[str]]:
    """The normalisation given by buffers of the file, the other tensors, and messages.

    Raises:
        UserError: a buffer has an invalid shape or value.
    """
    named = {name: match for name in tensors if (match := _NORMALIZATION.fullmatch(name))}
    if not named:
        return None, tensors, []
    rest = {name: tensor for name, tensor in tensors.items() if name not in named}
    means = [name for name, match in named.items() if match[1] in ("mean", "mu")]
    deviations = [name for name, match in named.items() if match[1] in ("std", "sigma")]
    if len(means) != 1 or len(deviations) != 1:
        listed = ", ".join(map(_shown, named))
        return None, rest, [f"ignored, not a mean and standard deviation of inputs: {listed}"]
    values = []
    for name in (means[0], deviations[0]):
        value = tensors[name].float().flatten()
        if value.numel() not in (1, 3) or not bool(value.isfinite().all()):
            raise UserError(
                f"{path}: {_shown(name)}: has shape {list(tensors[name].shape)}; a normalisation "
                "must have 3 finite numbers"
            )
        values.append(value.expand(3).reshape(3, 1, 1).clone())
    mean, std = values
    if float(mean.abs().max()) > 2 or float(std.max()) > 2:  # on the 0-255 scale
        mean, std = mean / 255, std / 255
    if not bool((std > 0).all()):
        raise UserError(f"{path}: {_shown(deviations[0])}: a standard deviation must be above 0")
    return Normalization(mean, std), rest, [f"inputs normalised by {_shown(means[0])} of the file"]


def check_values(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Check weights for values that no successful training gives.

    Raises:
        UserError: a value is not finite, or a running variance is negative.
    """
    for name, tensor in tensors.items():
        if tensor.is_meta or not tensor.is_floating_point():
            continue
        if not bool(tensor.isfinite().all()):
            count = int((~tensor.isfinite()).sum())
            raise UserError(
                f"{path}: {_shown(name)}: {count} of {tensor.numel()} values are not finite; the "
                "training diverged, or the file is damaged"
            )
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise UserError(
                f"{path}: {_shown(name)}: a running variance is negative; the file is damaged"
            )


def _shown(key: str) -> str:
    """A key for an error message: shortened, and without control characters."""
    return (key if key.isprintable() else ascii(key))[:80]
