"""The names of modules in the residual networks of other libraries.

A naming maps the names of modules to roles: `stem/POSITION`, `unit/STAGE/UNIT/POSITION` for the
residual branch, `shortcut/STAGE/UNIT/POSITION`, `last/POSITION` for layers after the last unit, and
`head/POSITION`. Positions give the order of layers; shapes show whether a layer is a convolution or
a batch norm. `norm/POSITION` is a batch norm either in the stem or after the last unit, depending
on its channels.

`implies` gives further properties of networks with this naming, as values of the assumptions of
`resnet_cli.weights.plan`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Rule = tuple[str, str]

HEAD: Rule = (
    r"((?:last_)?linear|fc|classifier|heads?|output|logits"
    r"|(?:fc|classifier|head|linear|heads)\.(?:\d|fc|linear|head)|1)",
    r"head/0",
)
_LAST: Rule = (r"(?:bn|norm|bn_?last|last_?bn|bn_?final|final_?bn|bnorm)", r"last/0")
_BRANCH = r"(?:conv|bn|norm)(\d)"
_STEM: Rule = (r"conv1", r"stem/1")
_UNIT: Rule = (rf"layer(\d+)\.(\d+)\.{_BRANCH}", r"unit/\1/\2/\3")


@dataclass(frozen=True)
class Naming:
    """The names of a network's modules in one code base."""

    name: str
    used_by: str
    """The repositories and libraries that use it."""
    rules: tuple[Rule, ...]
    """Patterns of module names and their roles; the first pattern that matches is used."""
    implies: Mapping[str, str] = field(default_factory=dict)
    requires: str = ""
    """A pattern that some key must match; otherwise this naming is not used."""

    def role(self, module: str) -> str | None:
        """The role of a module; None if its name is not in this naming."""
        for pattern, role in (*self.rules, HEAD):
            match = re.fullmatch(pattern, module)
            if match is not None:
                return match.expand(role)
        return None

    def fits(self, keys: Iterable[str]) -> int:
        """The number of a file's keys in this naming; 0 if the required key is missing."""
        keys = list(keys)
        if self.requires and not any(re.fullmatch(self.requires, key) for key in keys):
            return 0
        return sum(self.role(key.rpartition(".")[0]) is not None for key in keys)


NAMINGS: tuple[Naming, ...] = (
    Naming(
        "bearpaw, pre-activation",
        "bearpaw/pytorch-classification (preresnet)",
        (
            _STEM,
            _UNIT,
            (r"layer(\d+)\.(\d+)\.downsample\.(\d)", r"shortcut/\1/\2/\3"),
            _LAST,
        ),
        {"shared_activation": "none"},
        requires=r"bn\.weight",
    ),
    Naming(
        "meliketoy",
        "meliketoy/wide-resnet.pytorch: biases, and the stride in the second convolution",
        (
            _STEM,
            (r"bn1", r"norm/1"),
            _UNIT,
            (r"layer(\d+)\.(\d+)\.shortcut\.(\d)", r"shortcut/\1/\2/\3"),
        ),
        {"shared_activation": "none", "stride_in": "conv2"},
        requires=r"layer1\.0\.conv1\.bias",
    ),
    Naming(
        "torchvision",
        "torchvision, timm, kuangliu/pytorch-cifar, akamaster, chenyaofo, bearpaw, fb.resnet ports",
        (
            _STEM,
            (r"conv1\.(\d)", r"stem/\1"),
            (r"bn1", r"norm/9"),
            _UNIT,
            (r"layer(\d+)\.(\d+)\.(?:shortcut|downsample)\.(\d)", r"shortcut/\1/\2/\3"),
            (r"layer(\d+)\.(\d+)\.(?:shortcut|downsample)", r"shortcut/\1/\2/0"),
            _LAST,
        ),
        {"shared_activation": "projections"},
    ),
    Naming(
        "weiaicunzai",
        "weiaicunzai/pytorch-cifar100 (resnet)",
        (
            (r"conv1\.(\d)", r"stem/\1"),
            (r"conv(\d)_x\.(\d+)\.residual_function\.(\d)", r"unit/\1/\2/\3"),
            (r"conv(\d)_x\.(\d+)\.shortcut\.(\d)", r"shortcut/\1/\2/\3"),
        ),
    ),
    Naming(
        "weiaicunzai, pre-activation",
        "weiaicunzai/pytorch-cifar100 (preactresnet)",
        (
            (r"pre\.(\d)", r"stem/\1"),
            (r"stage(\d)\.(\d+)\.residual\.(\d)", r"unit/\1/\2/\3"),
            (r"stage(\d)\.(\d+)\.shortcut", r"shortcut/\1/\2/0"),
        ),
        {"shared_activation": "none", "stride_in": "1x1"},
    ),
    Naming(
        "weiaicunzai, wide",
        "weiaicunzai/pytorch-cifar100 (wideresidual): no ReLU after the last batch norm",
        (
            (r"init_conv", r"stem/0"),
            (r"conv(\d)\.(\d+)\.residual\.(\d)", r"unit/\1/\2/\3"),
            (r"conv(\d)\.(\d+)\.shortcut\.(\d)", r"shortcut/\1/\2/\3"),
            _LAST,
        ),
        {"shared_activation": "none", "last_activation": "none"},
    ),
    Naming(
        "hysts",
        "hysts/pytorch_image_classification (resnet, resnet_preact, wrn)",
        (
            (r"conv", r"stem/1"),
            (r"bn", r"norm/2"),
            (rf"stage(\d)\.block(\d+)\.{_BRANCH}", r"unit/\1/\2/\3"),
            (r"stage(\d)\.block(\d+)\.shortcut\.conv", r"shortcut/\1/\2/0"),
            (r"stage(\d)\.block(\d+)\.shortcut\.bn", r"shortcut/\1/\2/1"),
        ),
        {"shared_activation": "stages"},
    ),
    Naming(
        "open_lth",
        "facebookresearch/open_lth (cifar_resnet): the units are one list",
        (
            (r"conv", r"stem/1"),
            (r"bn", r"norm/2"),
            (rf"blocks\.(\d+)\.{_BRANCH}", r"unit/0/\1/\2"),
            (r"blocks\.(\d+)\.shortcut\.(\d)", r"shortcut/0/\1/\2"),
        ),
    ),
    Naming(
        "xternalz",
        "xternalz/WideResNet-pytorch, bearpaw (wrn), RobustBench",
        (
            _STEM,
            (r"bn1", r"norm/2"),
            (rf"block(\d)\.layer\.(\d+)\.{_BRANCH}", r"unit/\1/\2/\3"),
            (r"block(\d)\.layer\.(\d+)\.convShortcut", r"shortcut/\1/\2/0"),
        ),
        {"shared_activation": "projections"},
    ),
    Naming(
        "Hugging Face",
        "transformers (ResNetForImageClassification), such as microsoft/resnet-50",
        (
            (r"embedder\.embedder\.convolution", r"stem/0"),
            (r"embedder\.embedder\.normalization", r"stem/1"),
            (
                r"stages\.(\d+)\.layers\.(\d+)\.layer\.(\d)\.(?:convolution|normalization)",
                r"unit/\1/\2/\3",
            ),
            (r"stages\.(\d+)\.layers\.(\d+)\.shortcut\.convolution", r"shortcut/\1/\2/0"),
            (r"stages\.(\d+)\.layers\.(\d+)\.shortcut\.normalization", r"shortcut/\1/\2/1"),
        ),
    ),
)
"""In order of preference: of namings that match equally many names, the first is used."""

UNSUPPORTED_KEYS: tuple[Rule, ...] = (
    (
        r"(^|.*\.)(se|fc\d?|ca|sa|attn|attention|gate)\..*",
        "a squeeze-and-excitation or attention module",
    ),
    (r".*(weight_[gv]|parametrizations).*", "weight normalisation"),
    (r"(.*\.)?(_packed_params|scale|zero_point).*", "a quantised network"),
    (r"(blocks|encoder|layers|vit)\..*|cls_token|pos_embed", "a transformer"),
    (r"(features|denseblock|classifier)\..*", "a network of another kind (DenseNet, MobileNet)"),
)
"""Patterns of keys in networks that cannot be loaded, with descriptions."""
