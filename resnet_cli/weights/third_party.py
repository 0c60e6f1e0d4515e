"""Third-party checkpoints: weights that were trained by other PyTorch code.

Loading has four steps, each in its own module: `reading` opens the file without running code in it,
`state_dict` finds the state dict, `namings` and `plan` infer the network from names and shapes, and
`assemble` builds it. Every entry of the file and every parameter of the network must be used; the
first one that is not is named in the error. Properties that cannot be inferred from shapes are
assumed as in the code that uses the naming, are reported, and can be set with `--model KEY=VALUE`
(`assumptions`).
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cli.config.schema import LAYERS_PER_BRANCH, ModelConfig
from resnet_cli.datasets.normalisation import Normalization
from resnet_cli.models.adapt import TOLERANCE, weights_hash
from resnet_cli.models.network import Network
from resnet_cli.models.resnet import make_places
from resnet_cli.models.units import EXPANSION
from resnet_cli.runtime.errors import UserError
from resnet_cli.weights.assemble import assemble
from resnet_cli.weights.assumptions import Assumptions
from resnet_cli.weights.convnext import assemble_convnext, is_convnext
from resnet_cli.weights.load import Loaded, file_hash
from resnet_cli.weights.plan import Plan, plan_of
from resnet_cli.weights.reading import read_content
from resnet_cli.weights.state_dict import State, find_state
from resnet_cli.weights.vgg import assemble_vgg, is_vgg
from resnet_cli.weights.vit import assemble_vit, is_vit

OTHER_KINDS = (
    (is_vgg, assemble_vgg),
    (is_vit, assemble_vit),
    (is_convnext, assemble_convnext),
)
"""For networks that are not ResNets: functions that recognise one by its keys and build it."""
MAX_CONFIG = 1 << 20
"""Largest config.json that is read, in bytes."""


def load_third_party(path: Path, overrides: Mapping[str, str] | None = None) -> Loaded:
    """Load third-party weights of a residual network.

    Args:
        overrides: key -> value of assumptions to override.

    Raises:
        UserError: the file cannot be read, or contains another kind of network.
    """
    given = dict(overrides or {})
    content, _ = read_content(path)
    state = find_state(content, path, given.get("weights"))
    stated, normalization = _stated(path)
    assume = Assumptions(given, stated=stated)
    if state.others or "weights" in given:
        assume.value("weights", state.container, ())
    network, plan = infer(state.tensors, str(path), assume)
    assume.check_all_used()
    found = _loaded(network, plan, assume, state, str(path), file_hash(path))
    return replace(found, normalization=state.normalization or normalization, overrides=given)


def infer(
    tensors: Mapping[str, Tensor], source: str, assume: Assumptions
) -> tuple[Network, Plan | None]:
    """The network of a state dict, and its plan (None for networks other than ResNets).

    Args:
        tensors: name -> tensor, without prefixes; they may be on the meta device.
        source: the name of the file in error messages.

    Raises:
        UserError: the naming or kind of network is unknown, a key is missing or unexpected, or a
            shape is wrong.
    """
    for recognises, make in OTHER_KINDS:
        if recognises(tensors):
            return make(tensors, source, assume), None
    plan = plan_of(tensors, source, assume)
    return assemble(plan, source, assume), plan


def recognise(model: nn.Module, example: Tensor) -> Loaded:
    """The network that a model computes, inferred from the names and shapes of its state dict.

    Other properties are found by comparing logits: all plausible values are tried until the network
    gives the model's logits.

    Args:
        example: inputs of the model's input shape; they may be random.

    Raises:
        UserError: the naming of its modules is unknown, or no plausible network gives its logits.
    """
    name = type(model).__name__
    state = find_state({"model": dict(model.state_dict())}, Path(name))
    was_training = model.training
    heads = {getattr(module, "num_heads", None) for module in model.modules()} - {None}
    given = {"attention_heads": str(heads.pop())} if len(heads) == 1 else {}
    network, plan, assume = _assumed(state.tensors, name, given)
    uncertain = [made for made in assume.made.values() if made.others]
    try:
        with torch.no_grad():
            expected = model.eval()(example)
            for values in product(*((made.value, *made.others) for made in uncertain)):
                tried = dict(zip((made.key for made in uncertain), values, strict=True))
                network, plan, assume = _assumed(state.tensors, name, given | tried)
                if _computes(network, example, expected):
                    break
            else:
                raise UserError(
                    f"{name}: no known network with these weights gives the model's logits; pass "
                    "stem, units and head"
                )
    finally:
        model.train(was_training)
    return _loaded(network, plan, assume, state, name, weights_hash(network))


def _assumed(
    tensors: Mapping[str, Tensor], source: str, given: Mapping[str, str]
) -> tuple[Network, Plan | None, Assumptions]:
    assume = Assumptions(given)
    return *infer(tensors, source, assume), assume


def _computes(network: Network, example: Tensor, expected: object) -> bool:
    """Whether the network accepts the example and gives these logits."""
    try:
        found = network(example)
    except RuntimeError:  # the shapes do not match
        return False
    if not isinstance(expected, Tensor) or found.shape != expected.shape:
        return False
    return float((found - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())


def _loaded(
    network: Network,
    plan: Plan | None,
    assume: Assumptions,
    state: State,
    source: str,
    sha256: str,
) -> Loaded:
    notes = list(state.notes)
    if state.others:
        others = " or ".join(f"--model weights={name}" for name in state.others[:3])
        notes.insert(0, f"weights: {state.container or 'top'}; the file also has {others}")
    if plan is not None and "bias" not in plan.head.tensors:
        notes.append("the classifier has no bias")
    if plan is not None and plan.channels == 1:
        notes.append("images converted to grey: 0.299 R + 0.587 G + 0.114 B, after normalisation")
    classifier = list(network.head.modules())[-1]
    assert isinstance(classifier, nn.Linear)
    return Loaded(
        network,
        None if plan is None else _config(plan, assume),
        classifier.out_features,
        source,
        sha256,
        name=_label(network, plan),
        assumptions=tuple(assume.made.values()),
        notes=tuple(notes),
    )


def _label(network: Network, plan: Plan | None) -> str:
    if plan is None:
        kinds = {"Patches": "vit", "Sequential": "convnext"}
        kind = kinds.get(type(network.stem).__name__, "vgg")
        return f"{kind}{len(network.units) + (kind == 'vgg')}"
    wide = plan.is_preactivation and plan.units[0].outs > 2 * plan.stem[-1][0].outs
    kind = "preact" if plan.is_preactivation else "resnet"
    grouped = any(
        conv.ins < unit.convs[0].outs and conv is not unit.convs[0]
        for unit in plan.units
        for conv in unit.convs[1:2]
    )
    if grouped:
        kind = "resnext"
    width = f"-{plan.units[0].outs // plan.stem[-1][0].outs}x" if wide else ""
    return f"{kind}{plan.depth}{width}"


# --- the network's configuration, if there is one -------------------------------------------------


def _config(plan: Plan, assume: Assumptions) -> ModelConfig | None:
    """The shortest configuration that describes this network; None if there is none.

    For example, a ResNet-20 with zero-padded shortcuts is `ModelConfig(depth=20,
    placement="original")`.
    """
    value = {key: made.value for key, made in assume.made.items()}
    kernels = {tuple(conv.kernel for conv in unit.convs) for unit in plan.units}
    branches = {(3,): "one_layer", (3, 3): "basic", (1, 3, 1): "bottleneck"}
    branch = branches.get(next(iter(kernels))) if len(kernels) == 1 else None
    stems = {(7, "2", "max"): "imagenet", (3, "1", "none"): "cifar"}
    first = plan.stem[0][0]
    stem = stems.get((first.kernel, value["stem_stride"], value["stem_pool"]))
    usual = ",".join(["1"] + ["2"] * (value["strides"].count(",")))
    biased = any("bias" in conv.tensors for unit in plan.units for conv in unit.convs)
    projections = [bool(unit.projection) for unit in plan.units]
    expansion = EXPANSION if branch == "bottleneck" else 1
    widths = tuple(unit.outs // expansion for unit in plan.units if unit.starts_stage)
    is_configurable = (
        branch is not None
        and stem is not None
        and not plan.is_preactivation
        and (plan.channels, len(plan.stem), plan.last) == (3, 1, None)
        and not biased
        and "bias" not in first.tensors
        and value["activation"] == "relu"
        and float(value["epsilon"]) == 1e-5
        and value["strides"] == usual
        and value.get("zero_padding", "both") == "both"
        and value.get("stride_in") != "conv2"
        and first.outs == widths[0]
        and not any(unit.pools_shortcut for unit in plan.units)
    )
    if not is_configurable:
        return None
    counts: list[int] = []
    for unit in plan.units:
        if unit.starts_stage:
            counts.append(0)
        counts[-1] += 1
    fields: dict[str, Any] = {
        "depth": sum(counts) * LAYERS_PER_BRANCH[str(branch)] + 2,
        "branch": branch,
        "placement": "original",
        "stem": stem,
    }
    try:
        config = _smallest(fields, tuple(counts), widths, any(projections), value)
    except ValueError:  # deeper or wider than ModelConfig allows, or too many stages
        return None
    inner = [place.out_channels // expansion for place in make_places(config)]
    changes = [place.changes_shape for place in make_places(config)]
    as_planned = inner == [unit.convs[0].outs for unit in plan.units] and (
        projections == changes or not any(projections)
    )
    return config if as_planned else None


def _smallest(
    fields: dict[str, Any],
    units: tuple[int, ...],
    widths: tuple[int, ...],
    has_projection: bool,
    value: Mapping[str, str],
) -> ModelConfig:
    try:
        follows_from_depth = ModelConfig(**fields).stage_units() == units
    except ValueError:
        follows_from_depth = False
    if not follows_from_depth:
        fields["units"] = units
    with_widths = ModelConfig(**fields, widths=widths)
    if with_widths.model_copy(update={"widths": None}).stage_widths() != widths:
        fields["widths"] = widths
    if fields["branch"] == "bottleneck":
        fields["stride_in"] = value.get("stride_in", "3x3")
    if any(place.changes_shape for place in make_places(ModelConfig(**fields))):
        fields["stage_change"] = "projection" if has_projection else "zero_padding"
    return ModelConfig(**fields)


# --- config.json of transformers and timm --------------------------------------------------------


def _stated(path: Path) -> tuple[dict[str, str], Normalization | None]:
    """The network's properties and input normalisation from a config.json next to the file.

    Only files of transformers (`model_type: resnet`) and timm (`pretrained_cfg`) are used.
    """
    stated: dict[str, str] = {}
    config = _json(path.parent / "config.json")
    if config.get("model_type") == "resnet":
        if isinstance(config.get("hidden_act"), str):
            stated["activation"] = config["hidden_act"]
        if "downsample_in_bottleneck" in config:
            stated["stride_in"] = "1x1" if config["downsample_in_bottleneck"] is True else "3x3"
        depths = config.get("depths")
        if config.get("downsample_in_first_stage") is True and isinstance(depths, list):
            stated["strides"] = ",".join("2" for _ in depths)
        images = _json(path.parent / "preprocessor_config.json")
        return stated, _triples(images.get("image_mean"), images.get("image_std"))
    pretrained = config.get("pretrained_cfg")
    if isinstance(pretrained, dict):
        return stated, _triples(pretrained.get("mean"), pretrained.get("std"))
    return stated, None


def _json(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file() or path.stat().st_size > MAX_CONFIG:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _triples(mean: object, std: object) -> Normalization | None:
    numbers = [mean, std]
    if not all(
        isinstance(values, list)
        and len(values) == 3
        and all(isinstance(x, float | int) and 0 <= x <= 1 for x in values)
        for values in numbers
    ):
        return None
    made = [torch.tensor(values, dtype=torch.float32).reshape(3, 1, 1) for values in numbers]
    return Normalization(*made) if bool((made[1] > 0).all()) else None
