"""Checkpoints of others: weights that some other PyTorch code trained, loaded as our networks.

The naming is the common one of original (post-activation) residual networks, torchvision's and
that of most CIFAR repositories:

    conv1.weight, bn1.*                      stem; 7x7 means ImageNet's, 3x3 CIFAR's
    layer{s}.{u}.conv{i}.weight, .bn{i}.*    unit u (from 0) of stage s (from 1)
    layer{s}.{u}.shortcut.{0,1}.*            projection and its batch norm, where the shape changes
    layer{s}.{u}.downsample.{0,1}.*          the same in torchvision's words
    linear.* or fc.*                         classifier

The architecture is read off the shapes, never off a file's name: the number of convolutions in a
unit tells the branch, a missing projection at a change of shape means zero padding. What shapes
cannot tell is taken from what such code does: the first unit of each later stage has stride 2, a
bottleneck has it in the 3x3 layer (so torchvision and kuangliu/pytorch-cifar, unlike the authors'
CIFAR code), ReLU follows the addition, and batch norm's epsilon is 1e-5.

What people trip over with such files, and what happens here:
- keys saved under DataParallel (`module.`) or torch.compile (`_orig_mod.`): prefixes are stripped;
- `load_state_dict(strict=False)` that loads into nothing, followed by 10 % accuracy: every key of
  the file and every parameter of the network is accounted for, and what does not fit is refused by
  name (`num_batches_tracked` alone, which older files lack, may be absent);
- pickles that run code when they are opened: refused, and nothing runs.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from resnet_cli.config.schema import LAYERS_PER_BRANCH, ModelConfig
from resnet_cli.models import build
from resnet_cli.models.network import Head, Network
from resnet_cli.models.resnet import make_places, make_resnet
from resnet_cli.models.units import EXPANSION, ResidualUnit
from resnet_cli.runtime.errors import UserError, one_line

CONTAINERS = ("state_dict", "model", "model_state_dict", "net", "weights")
PREFIXES = ("module.", "_orig_mod.")
NAMING = "conv1, bn1, layer1.0.conv1, layer1.0.bn1, …, shortcut or downsample, linear or fc"

_BN = r"(?:weight|bias|running_mean|running_var|num_batches_tracked)"
_KNOWN_KEY = re.compile(
    r"conv1\.weight|(?:linear|fc)\.(?:weight|bias)|bn1\." + _BN + r"|"
    r"layer(?P<stage>[1-9]\d{0,2})\.(?P<unit>0|[1-9]\d{0,3})\.(?:"
    r"conv[1-9]\.weight|(?:shortcut|downsample)\.0\.weight|"
    r"(?:bn[1-9]|(?:shortcut|downsample)\.1)\." + _BN + r")"
)
_FOREIGN_PARTS = (
    (r"\.(se|fc|fc\d|ca|sa|attn|attention)\.", "a squeeze-and-excitation or attention module"),
    (r"(conv\d*|(shortcut|downsample)\.0)\.bias$", "a convolution with a bias"),
    (r"^(bn|norm)\.", "a batch norm after the last unit, so a pre-activation network"),
    (r"^(features|classifier)\.", "a network of another kind (VGG, DenseNet)"),
)

Shape = tuple[int, ...]


def load_foreign(path: Path) -> tuple[Network, ModelConfig, int]:
    """Load the weights that another program trained, whatever residual network they are of.

    Returns:
        The network in evaluation mode and channels_last format, its inferred configuration, and
        the number of classes.

    Raises:
        UserError: the file is unreadable or unsafe, or holds another kind of network.
    """
    state = load_state_dict_file(path)
    config, classes = infer_config(state, str(path))
    network = build(config, classes)
    given = {
        ours: state[theirs]
        for theirs, ours in _foreign_names(network, state).items()
        if theirs in state
    }
    network.load_state_dict(network.state_dict() | given, strict=True)
    return network.eval(), config, classes


# --- the file ----------------------------------------------------------------------------------


def load_state_dict_file(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running code, its container and its prefixes removed.

    Raises:
        UserError: no such file, damaged, no checkpoint, pickled code, or entries without values.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the checkpoint file in it")
    try:
        with path.open("rb") as file:
            start = file.read(1)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if not start:
        raise UserError(f"{path}: is empty; download or save it again")
    if path.suffix == ".safetensors":
        content: Any = _read_safetensors(path)
    else:
        content = _read_pickle(path, start)
    content = _unwrap(content, path)
    _check_entries(content, path)
    state: dict[str, Tensor] = {}
    for key, tensor in content.items():
        name = _strip(key)
        if name in state:
            raise UserError(
                f"{path}: {_shown(key)}: names the same entry as another key, {_shown(name)}"
            )
        state[name] = tensor
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        why = one_line(error, 120)
        raise UserError(
            f"{path}: no readable safetensors file, perhaps cut short ({why}); download or save "
            "it again"
        ) from None


def _read_pickle(path: Path, start: bytes) -> Any:
    try:
        with warnings.catch_warnings():  # about old pickle protocols and TorchScript archives
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        names = re.search(r"GLOBAL (\S+)", str(error))
        if names is None and start not in (b"\x80", b"P"):  # neither a pickle nor a zip archive
            raise UserError(f"{path}: is no checkpoint (neither torch's nor safetensors)") from None
        what = f"pickled code ({names[1]})" if names else "pickled code"
        raise UserError(
            f"{path}: holds {what} and is refused; save model.state_dict() alone with torch.save "
            "or safetensors"
        ) from None
    except Exception as error:  # a damaged file can fail anywhere in torch's reader
        # Only what the reader itself says is for people; a KeyError of its insides is not.
        why = f" ({one_line(error, 120)})" if isinstance(error, RuntimeError) else ""
        raise UserError(
            f"{path}: is no checkpoint, or cut short{why}; download or save it again"
        ) from None


def _unwrap(content: Any, path: Path) -> dict[str, Any]:
    """The state dict inside a training checkpoint's dict, or the dict itself."""
    if isinstance(content, dict):
        for container in CONTAINERS:
            if isinstance(content.get(container), dict):
                content = content[container]
                break
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: holds a {type(content).__name__}, no state dict; save model.state_dict()"
        )
    if not content:
        raise UserError(f"{path}: holds an empty state dict; save model.state_dict()")
    return content


def _check_entries(content: Mapping[Any, Any], path: Path) -> None:
    """Every entry must be a tensor that has values of its own, on the CPU."""
    others = [
        f"{str(key)!r:.80} ({type(value).__name__})"
        for key, value in content.items()
        if not (isinstance(key, str) and isinstance(value, Tensor))
    ]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise UserError(
            f"{path}: holds entries that are no tensors: {', '.join(others[:3])}{more}; save "
            f"model.state_dict(), alone or under one of {', '.join(CONTAINERS)}"
        )
    for key, tensor in content.items():
        dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not dense or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(
                f"{path}: {_shown(key)}: is no dense tensor with all its values in the file"
            )
        if not (tensor.is_floating_point() or key.endswith("num_batches_tracked")):
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise UserError(
                f"{path}: {_shown(key)}: is {dtype}; weights must be floating-point numbers (a "
                "quantised network?)"
            )


def _strip(key: str) -> str:
    while key.startswith(PREFIXES):
        key = key.partition(".")[2]
    return key


# --- the architecture --------------------------------------------------------------------------


def infer_config(state: Mapping[str, Tensor], source: str) -> tuple[ModelConfig, int]:
    """The configuration and number of classes of a state dict in the common naming.

    Only what the depth alone does not tell is set: a ResNet-20 with zero-padded shortcuts is
    `ModelConfig(depth=20, placement="original")`.

    Args:
        state: names to tensors, prefixes removed.
        source: what an error calls it, such as the file's path.

    Raises:
        UserError: another naming or kind of network, a key too many or too few, a wrong shape.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    _refuse_other_naming(shapes, source)
    units = _count_units(shapes, source)
    num_convs = 0
    while f"layer1.0.conv{num_convs + 1}.weight" in shapes:
        num_convs += 1
    _refuse_other_units(shapes, num_convs, source)
    branch = {layers: name for name, layers in LAYERS_PER_BRANCH.items()}[num_convs]
    expansion = EXPANSION if branch == "bottleneck" else 1
    widths = tuple(
        _out_channels(shapes, f"layer{stage}.0.conv{num_convs}.weight", source) // expansion
        for stage in range(1, len(units) + 1)
    )
    stem = _infer_stem(shapes, widths[0], source)
    has_projection = any(_is_projection(key) for key in shapes)
    try:
        config = _smallest_config(branch, stem, units, widths, has_projection, source)
    except UserError:
        raise
    except ValueError as error:  # deeper, wider or of more stages than any network here
        raise UserError(
            f"{source}: is no network that can be loaded: {one_line(error, 120)}"
        ) from None
    head = _head_word(shapes)
    classes = _out_channels(shapes, f"{head}.weight", source)
    _account_for_all(shapes, config, classes, source)
    return config, classes


def _refuse(source: str, key: str, why: str) -> NoReturn:
    raise UserError(f"{source}: {_shown(key)}: {why}")


def _refuse_other_naming(shapes: Mapping[str, Shape], source: str) -> None:
    for key in shapes:
        if _KNOWN_KEY.fullmatch(key) is None:
            for pattern, part in _FOREIGN_PARTS:
                if re.search(pattern, key):
                    _refuse(source, key, f"{part}; only original residual networks can be loaded")
            _refuse(source, key, f"is not of the naming that can be loaded ({NAMING})")
    if "conv1.weight" in shapes and "bn1.weight" not in shapes:
        _refuse(
            source,
            "bn1.weight",
            "is missing: no batch norm follows the first convolution, so a pre-activation "
            "network; only original residual networks can be loaded",
        )


def _count_units(shapes: Mapping[str, Shape], source: str) -> tuple[int, ...]:
    """Units in each stage; stages and units must be numbered without a gap."""
    found: dict[int, set[int]] = {}
    for key in shapes:
        match = _KNOWN_KEY.fullmatch(key)
        if match is not None and match["stage"]:
            found.setdefault(int(match["stage"]), set()).add(int(match["unit"]))
    for stage in range(1, max(found, default=1) + 1):
        numbers = found.get(stage, set())
        for unit in range(max(numbers, default=0) + 1):
            if unit not in numbers:
                _refuse(source, f"layer{stage}.{unit}.conv1.weight", "is missing")
    return tuple(len(found[stage]) for stage in sorted(found))


def _refuse_other_units(shapes: Mapping[str, Shape], num_convs: int, source: str) -> None:
    """Refuse pre-activation, grouped and wide units, each by the key that gives it away."""
    if num_convs == 0:
        _refuse(source, "layer1.0.conv1.weight", "is missing")
    if num_convs not in LAYERS_PER_BRANCH.values():
        key = f"layer1.0.conv{num_convs}.weight"
        _refuse(source, key, f"units of {num_convs} convolutions; 1, 2 or 3 can be loaded")
    convs = {key: shape for key, shape in shapes.items() if ".conv" in key}
    for key, shape in convs.items():
        if len(shape) != 4 or 0 in shape:
            _refuse(source, key, f"has shape {list(shape)}; a 2-D convolution is expected")
    for key, shape in convs.items():
        prefix, number = key.removesuffix(".weight").rsplit(".conv", 1)
        bn = f"{prefix}.bn{number}.weight"
        outs, ins = shape[:2]
        if shapes.get(bn) == (ins,) != (outs,):
            why = (
                f"has the {ins} channels of its convolution's input, so a pre-activation unit; "
                "only original residual networks can be loaded"
            )
            _refuse(source, bn, why)
        before = convs.get(f"{prefix}.conv{int(number) - 1}.weight", (ins,))[0]
        if ins < before and before % ins == 0:
            _refuse(source, key, f"a grouped convolution ({before} channels, {ins} a group)")
        if num_convs == 3 and number == "3" and outs != EXPANSION * ins:
            _refuse(
                source,
                key,
                f"a bottleneck of {ins} channels inside and {outs} outside (a wide network or "
                f"ResNeXt); only {EXPANSION} times as many outside can be loaded",
            )


def _out_channels(shapes: Mapping[str, Shape], key: str, source: str) -> int:
    shape = shapes.get(key)
    if shape is None:
        _refuse(source, key, "is missing")
    if not shape or 0 in shape:
        _refuse(source, key, f"has shape {list(shape)}; weights are expected")
    return shape[0]


def _infer_stem(shapes: Mapping[str, Shape], width: int, source: str) -> str:
    channels = _out_channels(shapes, "conv1.weight", source)
    stems: dict[Shape, str] = {(3, 7, 7): "imagenet", (3, 3, 3): "cifar"}
    shape = shapes["conv1.weight"]
    if shape[1:] not in stems:
        why = f"has shape {list(shape)}; [C, 3, 7, 7] (ImageNet) or [C, 3, 3, 3] (CIFAR) is needed"
        _refuse(source, "conv1.weight", why)
    if channels != width:
        why = f"a stem of {channels} channels before a first stage of width {width}"
        _refuse(source, "conv1.weight", f"{why} (a wide network?); they must be equal")
    return stems[shape[1:]]


def _is_projection(key: str) -> bool:
    return ".shortcut." in key or ".downsample." in key


def _head_word(names: Mapping[str, object]) -> str:
    return "linear" if any(name.startswith("linear.") for name in names) else "fc"


def _smallest_config(
    branch: str,
    stem: str,
    units: tuple[int, ...],
    widths: tuple[int, ...],
    has_projection: bool,
    source: str,
) -> ModelConfig:
    """The configuration of this network that says no more than it must."""
    fields: dict[str, Any] = {
        "depth": sum(units) * LAYERS_PER_BRANCH[branch] + 2,
        "branch": branch,
        "placement": "original",
        "stem": stem,
    }
    try:
        told_by_depth = ModelConfig(**fields).stage_units() == units
    except ValueError:
        told_by_depth = False
    if not told_by_depth:
        fields["units"] = units
    with_widths = ModelConfig(**fields, widths=widths)
    if with_widths.model_copy(update={"widths": None}).stage_widths() != widths:
        fields["widths"] = widths
    if branch == "bottleneck" and stem == "cifar":
        fields["stride_in"] = "3x3"
    if any(place.changes_shape for place in make_places(ModelConfig(**fields))):
        fields["stage_change"] = "projection" if has_projection else "zero_padding"
    return ModelConfig(**fields)


def _account_for_all(
    shapes: Mapping[str, Shape], config: ModelConfig, classes: int, source: str
) -> None:
    """Refuse unless the file and the inferred network have the same entries of the same shapes."""
    with torch.device("meta"):  # shapes without memory
        network = make_resnet(config, classes)
    ours = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    names = _foreign_names(network, shapes)
    told = f"a ResNet-{config.depth} of {config.branch} units"
    for theirs, name in names.items():
        if theirs not in shapes:
            if not theirs.endswith("num_batches_tracked"):
                _refuse(source, theirs, f"is missing ({told} has it)")
        elif shapes[theirs] != ours[name]:
            why = f"has shape {list(shapes[theirs])}; {told} has {list(ours[name])} there"
            _refuse(source, theirs, why)
    for key in shapes:
        if key not in names:
            why = "a projection in a unit that keeps its shape " if _is_projection(key) else ""
            _refuse(source, key, f"{why}is not part of {told}")


def _foreign_names(network: Network, state: Mapping[str, object]) -> dict[str, str]:
    """The common naming's keys to our own, with the words that `state` uses."""
    shortcut = "downsample" if any(".downsample." in key for key in state) else "shortcut"
    assert isinstance(network.head, Head)
    pairs: list[tuple[str, nn.Module]] = [
        *_numbered("conv", _of_kind(network.stem, nn.Conv2d)),
        *_numbered("bn", _of_kind(network.stem, nn.BatchNorm2d)),
    ]
    for unit in network.unit_list:
        assert isinstance(unit, ResidualUnit)
        prefix = f"layer{unit.place.stage}.{unit.place.number - 1}."
        pairs += _numbered(f"{prefix}conv", _of_kind(unit.F, nn.Conv2d))
        pairs += _numbered(f"{prefix}bn", _of_kind(unit.F, nn.BatchNorm2d))
        projection = _of_kind(unit.h, nn.Conv2d) + _of_kind(unit.h, nn.BatchNorm2d)
        pairs += _numbered(f"{prefix}{shortcut}.", projection, start=0)
    pairs.append((_head_word(state), network.head.fc))
    ours = {module: name for name, module in network.named_modules()}
    return {
        f"{theirs}.{leaf}": f"{ours[module]}.{leaf}"
        for theirs, module in pairs
        for leaf in module.state_dict()
    }


def _of_kind(parent: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in parent.modules() if isinstance(module, kind)]


def _numbered(
    word: str, modules: Sequence[nn.Module], start: int = 1
) -> list[tuple[str, nn.Module]]:
    return [(f"{word}{number}", module) for number, module in enumerate(modules, start)]


def _shown(key: str) -> str:
    """A key as an error line may print it: short, and without control characters."""
    return (key if key.isprintable() else ascii(key))[:80]
