"""Infer the plan of a residual network from named tensors: stem, units, last layers and head.

The plan follows from the names and shapes of the tensors. Other properties (strides, pooling,
nonlinearities, the position of padded zeros) are recorded as assumptions.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from torch import Tensor

from resnet_cli.runtime.errors import UserError
from resnet_cli.weights.assumptions import Assumptions
from resnet_cli.weights.namings import NAMINGS, UNSUPPORTED_KEYS, Naming
from resnet_cli.weights.reading import ADAPTER

NORM_LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass
class Layer:
    """A convolution, batch norm or linear layer in the file."""

    name: str
    """The name in the file."""
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def weight(self) -> Tensor:
        return self.tensors["weight"]

    @property
    def outs(self) -> int:
        return int(self.weight.shape[0])

    @property
    def ins(self) -> int:
        """Input channels; for a grouped convolution, those of one group."""
        return int(self.weight.shape[1])

    @property
    def kernel(self) -> int:
        return int(self.weight.shape[2])


@dataclass
class UnitPlan:
    """The plan of one residual unit."""

    name: str
    """The unit's name, for error messages."""
    starts_stage: bool
    convs: list[Layer]
    norms: list[Layer]
    projection: list[Layer]
    """A convolution, with or without batch norm; empty for the identity or zero padding."""
    pools_shortcut: bool = False
    """Whether there is average pooling before the projection (ResNet-D)."""
    stride: int = 1

    @property
    def outs(self) -> int:
        return self.convs[-1].outs


@dataclass
class Plan:
    """A residual network as described by a file."""

    naming: Naming
    stem: list[tuple[Layer, Layer | None]]
    """Convolutions, each with the batch norm after it, if any."""
    units: list[UnitPlan]
    last: Layer | None
    """The batch norm after the last unit."""
    head: Layer
    is_preactivation: bool

    @property
    def depth(self) -> int:
        """Weighted layers on the residual path."""
        return len(self.stem) + sum(len(unit.convs) for unit in self.units) + 1

    @property
    def channels(self) -> int:
        """Number of channels of the images."""
        return self.stem[0][0].ins


def plan_of(tensors: Mapping[str, Tensor], source: str, assume: Assumptions) -> Plan:
    """The plan of a state dict's network.

    Raises:
        UserError: the naming or kind of network is unknown, or an entry is missing or unexpected.
    """
    naming = _naming(tensors, source)
    assume.implied, assume.naming = naming.implies, naming.name
    layers_by_role: dict[str, list[tuple[int, Layer]]] = {}
    for name, layer in _layers(tensors, source).items():
        group, _, position = str(naming.role(name)).rpartition("/")
        layers_by_role.setdefault(group, []).append((int(position), layer))
    groups = {
        group: [layer for _, layer in sorted(found, key=lambda pair: pair[0])]
        for group, found in layers_by_role.items()
    }
    head = _head(groups.get("head", []), source, assume)
    units = _units(groups, layers_by_role, source)
    is_preactivation = _is_preactivation(units, groups)
    floating = groups.get("norm", [])
    last, stem = list(groups.get("last", [])), list(groups.get("stem", []))
    for norm in floating:
        in_stem = _belongs_to_stem(norm, stem, units, is_preactivation)
        (stem if in_stem else last).append(norm)
    if len(last) > 1:
        _refuse(source, last[1].name, "a second batch norm after the last unit")
    plan = Plan(
        naming, _stem(stem, source), units, last[0] if last else None, head, is_preactivation
    )
    _set_strides(plan, source, assume)
    return plan


def _refuse(source: str, name: str, why: str) -> NoReturn:
    shown = (name if name.isprintable() else ascii(name))[:80]
    raise UserError(f"{source}: {shown}: {why}")


def _naming(tensors: Mapping[str, Tensor], source: str) -> Naming:
    best = max(NAMINGS, key=lambda naming: naming.fits(tensors))
    unknown_keys = [key for key in tensors if best.role(key.rpartition(".")[0]) is None]
    if not unknown_keys:
        return best
    why = "not in a naming that can be loaded (docs/checkpoints.md lists them)"
    _refuse_unknown_key(source, unknown_keys, why)


def _refuse_unknown_key(source: str, keys: Sequence[str], why: str) -> NoReturn:
    """Report the first key that shows the kind of network, or else the first key."""
    for key in keys:
        for pattern, part in UNSUPPORTED_KEYS:
            if re.fullmatch(pattern, key):
                why = f"{part}, which cannot be loaded from names alone"
                _refuse(source, key, f"{why}; {ADAPTER[3:]}")
    _refuse(source, keys[0], f"{why}; {ADAPTER[3:]}")


def _layers(tensors: Mapping[str, Tensor], source: str) -> dict[str, Layer]:
    layers: dict[str, Layer] = {}
    for key, tensor in tensors.items():
        name, _, leaf = key.rpartition(".")
        if 0 in tensor.shape or (leaf == "weight" and tensor.ndim == 0):
            _refuse(source, key, f"has shape {list(tensor.shape)}; expected weights")
        layers.setdefault(name, Layer(name)).tensors[leaf] = tensor
    for layer in layers.values():
        if "weight" not in layer.tensors:
            _refuse(source, f"{layer.name}.weight", "is missing")
        is_norm = layer.weight.ndim == 1
        allowed = NORM_LEAVES if is_norm else NORM_LEAVES[:2]
        for leaf, tensor in layer.tensors.items():
            key = f"{layer.name}.{leaf}"
            if leaf not in allowed:
                _refuse_unknown_key(source, [key], "not part of a layer that can be loaded")
            expected = () if leaf == "num_batches_tracked" else (layer.outs,)
            counts = leaf == "num_batches_tracked" and tensor.numel() == 1
            if leaf != "weight" and tuple(tensor.shape) != expected and not counts:
                _refuse(source, key, f"has shape {list(tensor.shape)}; expected {list(expected)}")
        if is_norm:
            for leaf in NORM_LEAVES[1:4]:
                if leaf not in layer.tensors:
                    what = "is missing"
                    if leaf.startswith("running"):
                        what += " (batch norm without running statistics, or another normalisation)"
                    _refuse(source, f"{layer.name}.{leaf}", what)
    return layers


def _head(found: Sequence[Layer], source: str, assume: Assumptions) -> Layer:
    if not found:
        raise UserError(
            f"{source}: has no classifier (fc, linear, classifier, head), only a backbone; save "
            f"the whole network, {ADAPTER}"
        )
    names = [layer.name for layer in found]
    if len(found) > 1:
        if "head" not in assume.given:
            raise UserError(
                f"{source}: has {len(found)} classifiers ({', '.join(names[:4])}); choose one, for "
                f"example with --model head={names[0]}"
            )
        wanted = assume.value("head", names[0], names)
        found = [layer for layer in found if layer.name == wanted]
    head = found[0]
    if head.weight.ndim not in (2, 4) or head.weight[0].numel() != head.ins:
        _refuse(
            source,
            f"{head.name}.weight",
            f"has shape {list(head.weight.shape)}; expected a linear classifier",
        )
    return head


def _units(
    groups: Mapping[str, list[Layer]],
    layers_by_role: Mapping[str, list[tuple[int, Layer]]],
    source: str,
) -> list[UnitPlan]:
    """The units in forward order; stages and units must be numbered without gaps."""
    numbers = sorted(
        tuple(map(int, group.split("/")[1:])) for group in groups if group[:4] == "unit"
    )
    if not numbers:
        _refuse(source, "layer1.0.conv1.weight", "is missing: no residual units")
    _check_numbers(numbers, groups, source)
    units: list[UnitPlan] = []
    for stage, number in numbers:
        layers = groups[f"unit/{stage}/{number}"]
        convs = [layer for layer in layers if layer.weight.ndim == 4]
        norms = [layer for layer in layers if layer.weight.ndim == 1]
        name = layers[0].name.rpartition(".")[0]
        others = [layer for layer in layers if layer.weight.ndim not in (1, 4)]
        if others or not convs:
            what = (others or layers)[0]
            shape = list(what.weight.shape)
            _refuse(source, f"{what.name}.weight", f"has shape {shape}; expected a 2-D convolution")
        for layer in convs:
            _check_kernel(layer, source)
        shortcut = layers_by_role.get(f"shortcut/{stage}/{number}", [])
        starts = not units or stage != numbers[len(units) - 1][0]
        if stage == 0 and units:  # the naming has no stages: one begins where the width changes
            starts = convs[0].outs != units[-1].convs[0].outs or starts
        units.append(
            UnitPlan(
                name,
                starts,
                convs,
                norms,
                groups.get(f"shortcut/{stage}/{number}", []),
                pools_shortcut=bool(shortcut) and min(place for place, _ in shortcut) == 1,
            )
        )
    return units


def _check_numbers(
    numbers: Sequence[tuple[int, ...]], groups: Mapping[str, list[Layer]], source: str
) -> None:
    stages = sorted({stage for stage, _ in numbers})
    first = numbers[0]
    for stage in range(stages[0], stages[-1] + 1):
        found = [number for s, number in numbers if s == stage]
        for number in range(first[1], max(found, default=first[1]) + 1):
            if number not in found:
                like = groups[f"unit/{first[0]}/{first[1]}"][0].name
                raise UserError(
                    f"{source}: unit {number} of stage {stage} is missing (numbered like {like})"
                )
    for group, layers in groups.items():
        if group.startswith("shortcut") and group.replace("shortcut", "unit") not in groups:
            _refuse(source, layers[0].name, "a shortcut without its unit")


def _check_kernel(layer: Layer, source: str) -> None:
    shape = layer.weight.shape
    if layer.weight.ndim != 4 or shape[2] != shape[3] or shape[2] % 2 == 0:
        _refuse(
            source,
            f"{layer.name}.weight",
            f"has shape {list(shape)}; expected a 2-D convolution with an odd square kernel",
        )


def _is_preactivation(units: Sequence[UnitPlan], groups: Mapping[str, list[Layer]]) -> bool:
    """Whether batch norms come before the convolutions and so have their input channels."""
    for unit in units:
        if len(unit.norms) < len(unit.convs):
            return True  # the first unit of an ImageNet network has no first activation
        for conv, norm in zip(unit.convs, unit.norms, strict=False):
            if conv.ins != conv.outs and norm.outs in (conv.ins, conv.outs):
                return norm.outs == conv.ins
    return "last" in groups or not any(
        layer.weight.ndim == 1 for layer in groups.get("stem", []) + groups.get("norm", [])
    )


def _belongs_to_stem(
    norm: Layer, stem: Sequence[Layer], units: Sequence[UnitPlan], is_preactivation: bool
) -> bool:
    convs = [layer for layer in stem if layer.weight.ndim == 4]
    if not convs:
        return True
    if norm.outs != convs[-1].outs:
        return False
    return norm.outs != units[-1].outs or not is_preactivation


def _stem(layers: Sequence[Layer], source: str) -> list[tuple[Layer, Layer | None]]:
    found: list[tuple[Layer, Layer | None]] = []
    for layer in layers:
        if layer.weight.ndim == 4:
            _check_kernel(layer, source)
            found.append((layer, None))
        elif layer.weight.ndim == 1 and found and found[-1][1] is None:
            found[-1] = (found[-1][0], layer)
        else:
            _refuse(source, layer.name, "not part of a stem that can be loaded")
    if not found:
        _refuse(source, "conv1.weight", "is missing: no first convolution")
    return found


# --- strides, and checks of the shapes ------------------------------------------------------------


def _set_strides(plan: Plan, source: str, assume: Assumptions) -> None:
    """Set the stride of each unit and check the channels from layer to layer.

    Raises:
        UserError: a layer does not fit the one before it.
    """
    stages = sum(unit.starts_stage for unit in plan.units)
    usual = ",".join(["1"] + ["2"] * (stages - 1))
    text = assume.value("strides", usual, ())
    try:
        strides = [int(part) for part in text.split(",")]
    except ValueError:
        strides = []
    if len(strides) != stages or not all(1 <= stride <= 8 for stride in strides):
        raise UserError(
            f"--model strides={text}: {stages} stages need {stages} numbers, such as {usual}"
        )
    remaining = iter(strides)
    channels = 0
    projects = any(unit.projection for unit in plan.units)
    if not plan.is_preactivation and plan.stem[-1][1] is None:
        _refuse(source, plan.stem[-1][0].name, "no batch norm follows the first convolution")
    for conv, norm in plan.stem:
        _check_layer(conv, channels or conv.ins, norm, conv.outs, source)
        channels = conv.outs
    for unit in plan.units:
        if unit.starts_stage:
            unit.stride = next(remaining)
        _check_unit(plan, unit, channels, source)
        changes = unit.stride != 1 or unit.outs != channels
        if projects and changes and not unit.projection:
            _refuse(source, unit.name, "changes the shape, but its projection is missing")
        channels = unit.outs
    if plan.last is not None and plan.last.outs != channels:
        why = f"has {plan.last.outs} channels, but the last unit has {channels}"
        _refuse(source, f"{plan.last.name}.weight", why)
    if plan.head.ins != channels:
        why = f"has shape {list(plan.head.weight.shape)}, but the last unit has {channels} channels"
        _refuse(source, f"{plan.head.name}.weight", why)


def _check_layer(conv: Layer, ins: int, norm: Layer | None, width: int, source: str) -> None:
    if ins % conv.ins or conv.outs % (ins // conv.ins):
        why = f"has shape {list(conv.weight.shape)}, but its input has {ins} channels"
        _refuse(source, f"{conv.name}.weight", why)
    if norm is not None and norm.outs != width:
        why = f"has {norm.outs} channels, but its input has {width}"
        _refuse(source, f"{norm.name}.weight", why)


def _check_unit(plan: Plan, unit: UnitPlan, channels: int, source: str) -> None:
    missing = len(unit.convs) - len(unit.norms)
    no_first = plan.is_preactivation and missing == 1 and unit is plan.units[0]
    if missing and not no_first:
        raise UserError(
            f"{source}: {unit.name}: {len(unit.convs)} convolutions but {len(unit.norms)} batch "
            f"norms; {ADAPTER[3:]}"
        )
    ins = channels
    norms = [None, *unit.norms] if no_first else list(unit.norms)
    for conv, norm in zip(unit.convs, norms, strict=True):
        _check_layer(conv, ins, norm, ins if plan.is_preactivation else conv.outs, source)
        ins = conv.outs
    if not unit.projection:
        return
    conv, *rest = unit.projection
    if conv.weight.ndim != 4 or len(rest) > 1 or any(layer.weight.ndim != 1 for layer in rest):
        _refuse(source, conv.name, "a shortcut must be one convolution and at most one batch norm")
    _check_kernel(conv, source)
    _check_layer(conv, channels, rest[0] if rest else None, conv.outs, source)
    if conv.outs != unit.outs:
        why = f"has {conv.outs} output channels, but its residual branch has {unit.outs}"
        _refuse(source, f"{conv.name}.weight", why)
    if not rest and not plan.is_preactivation:
        _refuse(source, conv.name, "a projection without batch norm in a post-activation unit")
