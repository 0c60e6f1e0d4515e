"""From what a checkpoint holds to one state dict: its container, prefixes, leftovers, statistics.

Accepted and cleaned up: the containers and prefixes of training code, raw weights next to averaged
ones, the counters of thop, the masks of torch.nn.utils.prune, buffers that normalise the input.
Refused by name: what is no tensor with values, and values that no trained network has (NaN,
infinity, a negative variance).
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
from resnet_cli.weights.pickles import Inert, NoTensor
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
"""Names that training code stores weights under, in the order in which they are taken."""
AVERAGED = re.compile(r"(^|[._])(ema|swa)([._]|$)|averag")
"""Names of averages of the weights over the training; taken if there is nothing else."""
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
MOST_LEVELS = 4
"""How deep containers are searched."""

MOST_COPIES = 4
"""How many times the values of a file its tensors may name; tied weights name some twice."""

_NUMBERED = re.compile(r"\d+\.(?=.*\.)")  # nn.Sequential(normalise, model)
_LEFTOVER = re.compile(r"(?:.*\.)?(?:total_ops|total_params)|n_averaged")
_NORMALIZATION = re.compile(
    r"(?:(?:\w+\.)*(?:normali[sz]e|normali[sz]er|normali[sz]ation|norm|preprocess)\.|\d+\.|)"
    r"(?:new_)?(mean|std|mu|sigma)"
)


@dataclass(frozen=True)
class State:
    """The weights of one network, by name, with what else their file says."""

    tensors: Mapping[str, Tensor]
    """Names without prefixes; floating-point values as stored."""
    container: str
    """The path of names that the weights lie under, such as `model_ema`; empty if at the top."""
    others: tuple[str, ...] = ()
    """Paths of other weights in the file, which `--model weights=PATH` takes."""
    normalization: Normalization | None = None
    """Of buffers in the file."""
    notes: tuple[str, ...] = ()
    """What was left out or computed, in words."""


def find_state(content: Any, path: Path, wanted: str | None = None) -> State:
    """The state dict inside a checkpoint's content.

    Args:
        wanted: the container to take; None: the raw weights, under the usual names.

    Raises:
        UserError: there is none, or several and no usual one; entries without plain values.
    """
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {_described(content)}; save model.state_dict(), {ADAPTER}")
    if not content:
        raise UserError(f"{path}: holds an empty state dict; save model.state_dict()")
    found = dict(_state_dicts(content))
    if wanted is not None:
        if wanted not in found:
            raise unknown("weights", wanted, [name or "(top)" for name in found])
        chosen = wanted
    else:
        chosen = _chosen(found, content, path)
    tensors, notes = _cleaned(found[chosen], path)
    normalization, tensors, more = _normalization(tensors, path)
    others = tuple(name for name in found if name != chosen and _alike(found[name], tensors))
    check_values(tensors, path)
    return State(tensors, chosen, others, normalization, (*notes, *more))


def _state_dicts(
    content: Mapping[Any, Any], at: str = "", level: int = 0
) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Dicts that hold tensors by name, by the path of names they lie under."""
    values = [value for key, value in content.items() if isinstance(key, str) and "." in key]
    if any(isinstance(value, Tensor | NoTensor) for value in values):
        yield at, content
        return
    if level < MOST_LEVELS:
        for key, value in content.items():
            if isinstance(key, str) and isinstance(value, dict) and value is not content:
                yield from _state_dicts(value, f"{at}.{key}" if at else key, level + 1)


def _chosen(found: Mapping[str, Any], content: Mapping[Any, Any], path: Path) -> str:
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
        f"{path}: holds several networks ({', '.join(sorted(found)[:6])}); name one, for example "
        f"--model weights={sorted(found)[0]}"
    )


def _rank(name: str) -> int:
    first = name.split(".")[0]
    return CONTAINERS.index(first) if first in CONTAINERS else -1 if not name else len(CONTAINERS)


def _described(content: object) -> str:
    if isinstance(content, Inert):
        return f"pickled code ({content.name:.80}), which is not run"
    kind = "Tensor" if isinstance(content, Tensor | NoTensor) else type(content).__name__
    return f"a {kind}, no state dict"


def _without_weights(content: Mapping[Any, Any]) -> str:
    """What a dict without a state dict holds, in words."""
    for key, value in content.items():
        if isinstance(value, Inert):
            return (
                f"holds pickled code ({value.name:.80} under {_shown(str(key))}), which is not run"
            )
        if value == {} and str(key) in CONTAINERS:
            return f"holds an empty state dict under {_shown(str(key))}"
    listed = ", ".join(_shown(str(key)) for key in list(content)[:4])
    return f"holds no state dict, only {listed}"


def _alike(other: Mapping[Any, Any], tensors: Mapping[str, Tensor]) -> bool:
    """The weights of a network of about this size: an average of the same, or another model."""
    return len(other) >= len(tensors) // 2


def _cleaned(state: Mapping[Any, Any], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by name without prefixes; thop's counters left out, pruned weights masked."""
    notes, tensors = [], {}
    others = [key for key, value in state.items() if not isinstance(value, Tensor | NoTensor)]
    if others:
        listed = ", ".join(_shown(str(key)) for key in others[:3])
        notes.append(f"left out, no tensors: {listed}{', …' if len(others) > 3 else ''}")
    for key, value in state.items():
        if not isinstance(value, Tensor | NoTensor):
            continue
        name = _strip(str(key))
        if _LEFTOVER.fullmatch(name):
            continue
        if isinstance(value, NoTensor):
            raise UserError(f"{path}: {_shown(str(key))}: {_why_no_tensor(value)}")
        if name in tensors:
            raise UserError(
                f"{path}: {_shown(str(key))}: names the same entry as another key, {_shown(name)}"
            )
        tensors[name] = _plain(value, str(key), path)
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
    """Refuse a file that names the same values under many names: each would be copied.

    Raises:
        UserError: it does.
    """
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors.values()
    }
    named = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if named > MOST_COPIES * sum(storages.values()) + (1 << 20):
        raise UserError(f"{path}: names the same values many times; save model.state_dict()")


def _why_no_tensor(value: NoTensor) -> str:
    if value.kind == "quantised":
        return "is quantised; save the network before quantisation"
    return f"is no dense tensor with all its values in the file ({value.kind})"


def _plain(tensor: Tensor, key: str, path: Path) -> Tensor:
    """The tensor, if it is dense and of numbers that weights are.

    Raises:
        UserError: it is not.
    """
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise UserError(
            f"{path}: {_shown(key)}: is no dense tensor with all its values in the file"
        )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UserError(
            f"{path}: {_shown(key)}: is no dense tensor with all its values in the file"
        )
    if not (tensor.is_floating_point() or key.endswith(("num_batches_tracked", "_mask"))):
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise UserError(
            f"{path}: {_shown(key)}: is {dtype}; weights must be floating-point numbers (a "
            "quantised network?)"
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
    """The normalisation that buffers of the file state, and the tensors without them.

    Raises:
        UserError: they are of an impossible shape or value.
    """
    named = {name: match for name in tensors if (match := _NORMALIZATION.fullmatch(name))}
    if not named:
        return None, tensors, []
    rest = {name: tensor for name, tensor in tensors.items() if name not in named}
    means = [name for name, match in named.items() if match[1] in ("mean", "mu")]
    deviations = [name for name, match in named.items() if match[1] in ("std", "sigma")]
    if len(means) != 1 or len(deviations) != 1:
        listed = ", ".join(map(_shown, named))
        return None, rest, [f"not used, no mean and deviation of the input: {listed}"]
    values = []
    for name in (means[0], deviations[0]):
        value = tensors[name].float().flatten()
        if value.numel() not in (1, 3) or not bool(value.isfinite().all()):
            raise UserError(
                f"{path}: {_shown(name)}: has shape {list(tensors[name].shape)}; a normalisation "
                "has 3 finite numbers"
            )
        values.append(value.expand(3).reshape(3, 1, 1).clone())
    mean, std = values
    if float(mean.abs().max()) > 2 or float(std.max()) > 2:  # on the scale of bytes
        mean, std = mean / 255, std / 255
    if not bool((std > 0).all()):
        raise UserError(f"{path}: {_shown(deviations[0])}: a deviation must be above 0")
    return Normalization(mean, std), rest, [f"inputs normalised by {_shown(means[0])} of the file"]


def check_values(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights that no training that went well leaves behind.

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
    """A key as an error line may print it: short, and without control characters."""
    return (key if key.isprintable() else ascii(key))[:80]
