"""The schema of an experiment (network, data, training, study, cases) and the hash of a run."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveFloat,
    SerializeAsAny,
    model_validator,
)

from resnet_cli.config.editions import EDITION, explicit_cases, explicit_model
from resnet_cli.config.fields import Sizes, Strict, StudyConfig, Text, as_tuple, validated
from resnet_cli.config.registry import DATASETS, STUDIES, registered
from resnet_cli.config.yaml_reader import merge
from resnet_cli.runtime.errors import unknown

Profile = Literal["smoke", "mini", "cpu", "paper"]
PROFILES: tuple[str, ...] = get_args(Profile)
MAX_DEPTH = 10_000
"""A limit that keeps a file from building a network too large for the machine."""

MAX_COUNT = 1_000_000_000
"""The largest number of iterations, images and so on in a configuration."""
Count = Annotated[int, Field(gt=0, le=MAX_COUNT)]

Precision = Literal["float32", "tf32", "bfloat16"]
Branch = Literal["basic", "one_layer", "bottleneck"]
Placement = Literal[
    "original",
    "bn_after_addition",
    "relu_before_addition",
    "relu_only_preactivation",
    "full_preactivation",
]
Shortcut = Literal[
    "identity", "scaling", "exclusive_gating", "shortcut_only_gating", "convolution", "dropout"
]

LAYERS_PER_BRANCH: dict[str, int] = {"basic": 2, "one_layer": 1, "bottleneck": 3}
IMAGENET_UNITS: dict[str, dict[int, tuple[int, ...]]] = {
    "basic": {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)},
    "bottleneck": {
        50: (3, 4, 6, 3),
        101: (3, 4, 23, 3),
        152: (3, 8, 36, 3),
        200: (3, 24, 36, 3),
    },
    "one_layer": {},
}
VGG_LAYERS: dict[int, tuple[int, ...]] = {
    10: (1, 1, 2, 2, 2),
    12: (2, 2, 2, 2, 2),
    15: (2, 2, 3, 3, 3),
    18: (2, 2, 4, 4, 4),
}


class ModelConfig(Strict):
    """A network: the h, F and f of its residual units, their number and their width."""

    family: Literal["resnet", "vgg"] = "resnet"
    depth: int = Field(le=MAX_DEPTH)
    """Weighted layers. CIFAR: 6n+2 (basic), 3n+2 (one_layer), 9n+2 (bottleneck)."""
    branch: Branch = "basic"
    """F: two 3x3 layers, one 3x3 layer, or 1x1-3x3-1x1."""
    placement: Placement = "full_preactivation"
    """The positions of BN and ReLU (paper 1, Figure 4 a-e)."""
    shortcut: Shortcut = "identity"
    """h (paper 1, Figure 2 a-f)."""
    shortcut_scale: float = 1.0
    """lambda on the shortcut, for `scaling`."""
    residual_scale: float = 1.0
    """The factor on F, for `scaling`."""
    gate_bias: float = -6.0
    """The gates' initial bias b in g(x) = sigmoid(Wx + b), for both kinds of gating."""
    shortcut_dropout: float = Field(default=0.5, ge=0, lt=1)
    """The dropout probability p on the shortcut, for `dropout`. The values that are kept are
    divided by 1 - p, as in Torch's nn.Dropout, so the expectation of h(x) is x in training and
    evaluation. The expectation of 0.5 in paper 1, section 3.1, is that of the mask."""
    stage_change: Literal["projection", "zero_padding"] = "projection"
    """The shortcut where the shape changes: option B or A of He et al. 2015. `auto`, the default:
    zero padding in CIFAR networks of two-layer or one-layer units, otherwise a projection."""
    stride_in: Literal["1x1", "3x3"] = "1x1"
    """The layer of a bottleneck that has the stride. `auto`, the default: 1x1 in CIFAR networks,
    3x3 in ImageNet networks."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    units: Sizes | None = None
    """Units in each stage, for networks that are not in the papers; null: given by the depth."""
    widths: Sizes | None = None
    """Channels of each stage (before a bottleneck's fourfold expansion)."""

    @model_validator(mode="before")
    @classmethod
    def _explicit(cls, content: Any) -> Any:
        return explicit_model(content) if isinstance(content, Mapping) else content

    @model_validator(mode="after")
    def _fits_a_family(self) -> "ModelConfig":
        stages = len(self.stage_units())
        if len(self.stage_widths()) != stages:
            raise ValueError(
                f"widths: {stages} stages need {stages} widths, not {len(self.stage_widths())}"
            )
        if self.family == "vgg":
            defaults = explicit_model({"family": "vgg"})
            for key in sorted(self.model_fields_set - {"family", "depth", "widths"}):
                default = defaults.get(key, type(self).model_fields[key].default)
                if getattr(self, key) != default:
                    raise ValueError(f"{key} is only for residual networks; remove it for a VGG")
        if self.shortcut != "scaling" and (self.shortcut_scale, self.residual_scale) != (1.0, 1.0):
            raise ValueError("shortcut_scale and residual_scale need shortcut: scaling")
        return self

    def stage_units(self) -> tuple[int, ...]:
        """Units in each stage (for VGG: convolutions in each stage).

        Raises:
            ValueError: the family has no network of this depth.
        """
        if self.family == "vgg":
            if self.depth not in VGG_LAYERS:
                raise ValueError(
                    f"there is no VGG of depth {self.depth}; use "
                    f"{', '.join(map(str, VGG_LAYERS))} (convolutions and two linear layers)"
                )
            return VGG_LAYERS[self.depth]
        if self.units is not None:
            depth = sum(self.units) * LAYERS_PER_BRANCH[self.branch] + 2
            if self.depth != depth:
                raise ValueError(
                    f"depth {self.depth} does not fit units {list(self.units)} of {self.branch} "
                    f"units: these have depth {depth}"
                )
            return self.units
        if self.stem == "imagenet":
            known = IMAGENET_UNITS[self.branch]
            if self.depth not in known:
                raise ValueError(
                    f"there is no ImageNet network of depth {self.depth} with {self.branch} units; "
                    "use basic with 18 or 34, or bottleneck with 50, 101, 152 or 200"
                )
            return known[self.depth]
        per_n = 3 * LAYERS_PER_BRANCH[self.branch]
        n, rest = divmod(self.depth - 2, per_n)
        if rest or n < 1:
            below, above = max(n, 1) * per_n + 2, (max(n, 0) + 1) * per_n + 2
            near = f"{below} or {above}" if below != above else f"{below}"
            raise ValueError(
                f"depth {self.depth} does not fit a network of {self.branch} units: "
                f"depth must be {per_n}n+2, for example {near}"
            )
        return (n, n, n)

    def stage_widths(self) -> tuple[int, ...]:
        """Channels of each stage, before a bottleneck's expansion."""
        if self.widths is not None:
            return self.widths
        if self.family == "vgg":
            return (64, 128, 256, 512, 512)
        if self.stem == "imagenet":
            return (64, 128, 256, 512)
        return tuple(16 * 2**stage for stage in range(len(self.stage_units())))

    @property
    def label(self) -> str:
        """A short name for folders and tables: `preact110`, `resnet110-dropout`, `vgg15`."""
        if self.family == "vgg":
            return f"vgg{self.depth}"
        names = {"original": "resnet", "full_preactivation": "preact"}
        parts = [names.get(self.placement, f"{self.placement}-") + str(self.depth)]
        if self.branch == "one_layer":
            parts.append("one_layer")
        if self.shortcut != "identity":
            parts.append(self.shortcut)
        return "-".join(parts)


def _known_data_set(name: str) -> str:
    registered(DATASETS, "data set", name)
    return name


Augment = Literal["auto", "crop", "scale", "scale_aspect", "scale_colour", "scale_aspect_colour"]


class DataConfig(Strict):
    """A data set, and how its images are turned into batches."""

    dataset: Annotated[str, AfterValidator(_known_data_set)] = "digits"
    """Its name in the catalogue of data sets."""
    image_size: Annotated[int, Field(gt=0, le=4096)] | None = None
    """Width and height in pixels; null: the data set's usual size. Only class folders can have any
    size."""
    test_size: Annotated[int, Field(gt=0, le=4096)] | None = None
    """Class folders: width and height of the test images in pixels; null: image_size. If it is at
    most image_size, the test image is the centre crop of an image whose shorter side is 256/224 of
    image_size (224 from 256). A larger test image is cropped from an image whose shorter side is
    test_size (paper 1, section 5: "a single 320x320 crop from s = 320")."""
    normalize: str = "auto"
    """`channel` or `pixel` (statistics of the training split), `imagenet`, `cifar`, `none`, or
    `m1,m2,m3/s1,s2,s3` on the 0-1 scale. `auto`: the data set's default, which is imagenet for
    class folders and channel for others."""
    augment: Augment = "auto"
    """How training images are cropped. `crop`: a random crop after padding by `pad`. For class
    folders also `scale`: a random crop after resizing the shorter side to a random length of 256 to
    480 pixels for crops of 224 (He et al. 2015, section 3.4), in proportion for other sizes; and
    `scale_aspect`: a random crop of 8 to 100 % of the area with an aspect ratio of 3/4 to 4/3
    (Szegedy et al. 2015, arXiv:1409.4842, section 6). With `_colour`, brightness, contrast,
    saturation and lighting are also changed, as in fb.resnet.torch. `auto`: the data set's default,
    which is scale for class folders and crop for others."""
    pad: int = Field(default=4, ge=0, le=64)
    """crop: zero padding on each side before the random crop, in pixels; 0 disables the crop."""
    flip: bool = True
    """Flip each training image horizontally with probability 0.5."""
    train_images: Count | None = None
    """Only the first N training images."""
    test_images: Count | None = None
    """Only the first N test images."""

    @model_validator(mode="after")
    def _fits_the_data_set(self) -> "DataConfig":
        entry = registered(DATASETS, "data set", self.dataset)
        if self.augment not in ("auto", *entry.augmentations):
            raise ValueError(
                f"augment: {self.augment} is not available for {self.dataset}; use "
                f"{', '.join(entry.augmentations)}"
            )
        if self.test_size is not None and entry.image_sizes:
            raise ValueError(f"test_size: {self.dataset} has one size; remove it")
        return self

    def explicit(self) -> "DataConfig":
        """This configuration with the data set's values for `auto` and a missing `image_size`."""
        entry = registered(DATASETS, "data set", self.dataset)
        changes: dict[str, Any] = {}
        if self.image_size is None:
            changes["image_size"] = entry.image_size
        if self.normalize == "auto":
            changes["normalize"] = entry.normalize
        if self.augment == "auto":
            changes["augment"] = entry.augmentations[0]
        return self.model_copy(update=changes)


def _explicit_precision(value: object) -> object:
    """`auto` is float32. In the first edition it was float32 on CPUs and bfloat16 on CUDA devices,
    on which no results of that edition were measured."""
    return "float32" if value == "auto" else value


class TrainConfig(Strict):
    """SGD with momentum; schedules count iterations (one iteration is one optimizer step)."""

    epochs: Count | None = None
    iterations: Count | None = None
    """Length of the run; give either epochs or iterations."""
    batch_size: Count = 128
    batch_norm_group: Count | None = 64
    """Images that share batch-norm statistics: 64, since paper 1 splits batches of 128 over two
    GPUs; null: the whole batch."""
    lr: PositiveFloat = 0.1
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=1e-4, ge=0)
    schedule: Literal["milestones", "one_cycle"] = "milestones"
    warmup_iterations: int = Field(default=400, ge=0, le=MAX_COUNT)
    warmup_lr: PositiveFloat = 0.01
    milestones: Annotated[tuple[Count, ...], BeforeValidator(as_tuple)] = (32000, 48000)
    gamma: float = Field(default=0.1, gt=0, le=1)
    one_cycle_rise: float = Field(default=0.3, gt=0, lt=1)
    """one_cycle: the fraction of the run in which the learning rate rises linearly to `lr`; in the
    rest it falls linearly to zero."""
    stochastic_depth: float | None = Field(default=None, gt=0, le=1)
    """Survival probability of the last unit; it decays linearly from 1 (Huang et al. 2016)."""
    active_units: Count | None = None
    """Train on effective paths only: the number of units active in each batch (paper 2, section
    5)."""
    inactive_units: Literal["decay", "freeze"] = "decay"
    """Parameters of units that are inactive in a batch. `decay`: momentum and weight decay still
    apply, as in Huang et al.'s code (main.lua of yueatsprograms/Stochastic_Depth, whose optimizer
    gets zero gradients). `freeze`: the parameters and their momentum do not change."""
    last_batch: Literal["train", "drop"] = "train"
    """The smaller last batch of an epoch. `train`, as in fb.resnet.torch (dataloader.lua): it is
    split into as many equal batch-norm groups as a full batch. Images left over (fewer than the
    number of groups) are not used, and neither is a batch with fewer than two images per group."""
    checkpoint_units: bool = False
    """Save memory: store only the units' inputs and recompute the rest in the backward pass."""
    precision: Annotated[Precision, BeforeValidator(_explicit_precision)] = "float32"
    """The precision of training and of the evaluations during training. `bfloat16` is autocast:
    convolutions, matrix products and activations are rounded; parameters, statistics and sums are
    float32. `tf32` rounds the inputs of convolutions and matrix products on CUDA devices only."""
    evaluate_every: Count = 1
    """Number of epochs between evaluations on the test split; the last epoch is always evaluated.
    """

    @model_validator(mode="after")
    def _one_length(self) -> "TrainConfig":
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError("give exactly one of epochs and iterations")
        if self.stochastic_depth is not None and self.active_units is not None:
            raise ValueError("give only one of stochastic_depth and active_units")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must be in increasing order")
        return self


def _parse_study(value: object) -> object:
    """The study given by a `study:` block.

    Raises:
        ValueError: there is no such study, or it does not have a key of the block.
    """
    if not isinstance(value, Mapping):
        return value
    kind = value.get("kind")
    if not isinstance(kind, str):
        raise ValueError(f"needs the key kind: {', '.join(sorted(STUDIES))}")
    if kind not in STUDIES:
        raise ValueError(unknown("kind", kind, STUDIES))
    study = registered(STUDIES, "study", kind)
    for key in value:
        if key not in study.model_fields:
            raise ValueError(unknown("key", str(key), study.model_fields))
    return study.model_validate(value)


AnyStudy = Annotated[SerializeAsAny[StudyConfig], BeforeValidator(_parse_study)]
"""The configuration of any study; `kind` selects its class."""


class Case(Strict):
    """One row of a table: overrides of the experiment's network, data or training."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.+-]*$", max_length=100)
    """Also the name of its study's folder."""
    title: Text | None = None
    model: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)


class RunConfig(Strict):
    """One training: everything that determines its weights, and nothing else."""

    edition: Literal[2] = EDITION
    """The edition of the configuration (`resnet_cli.config.editions`)."""
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    seed: int = Field(ge=0, lt=2**63)

    @property
    def hash(self) -> str:
        """SHA-256 of the complete resolved configuration, including defaults (64 hex digits)."""
        return config_hash(self.model_dump(mode="json"))

    @property
    def folder(self) -> str:
        """The name of the run's folder under `runs/`."""
        return f"{self.model.label}-{self.data.dataset}-seed{self.seed}-{self.hash[:10]}"


def _relative_path(name: str) -> str:
    """Check that a name is a relative path that stays inside results/.

    Raises:
        ValueError: it could lead elsewhere, or it is not a valid path.
    """
    if PurePath(name).anchor or {"", ".", ".."} & set(name.split("/")):
        raise ValueError("must be a relative path without empty, '.' and '..' parts")
    if "\\" in name:
        raise ValueError("must not contain a backslash")
    return name


class Experiment(Strict):
    """A resolved experiment: one file with one profile, ready to run."""

    edition: Literal[2] = EDITION
    name: Annotated[Text, AfterValidator(_relative_path)]
    """The file's path below `experiments/`, without `.yaml`."""
    profile: Profile
    title: Text
    paper: Literal["he2016", "veit2016"] | None = None
    figure: Text | None = None
    """The table or figure of the paper it reproduces: `table1`, `fig5a`."""
    note: Text | None = None
    """How this profile differs from the paper."""
    question: Text | None = Field(default=None, exclude=True)
    """The question that the experiment answers. Like the next three keys, it is for readers and
    verdicts and does not affect results, so it is not stored in configurations or hashed."""
    published: Text | None = Field(default=None, exclude=True)
    """The paper's result, as a sentence."""
    time: Text | None = Field(default=None, exclude=True)
    """How long this profile takes; on two cores unless the text mentions a GPU."""
    decides_below: PositiveFloat | None = Field(default=None, exclude=True)
    """The test error in percent that a reference network must reach before its training counts for
    a verdict; null: that network's published error plus one percentage point."""
    model: ModelConfig
    data: DataConfig = DataConfig()
    train: TrainConfig
    study: AnyStudy | None = None
    fail_above: float | Literal["auto"] | None = "auto"
    """A test error above this percentage counts as `fail`. `auto`: 20, as in paper 1, for data sets
    of at most 10 classes; no limit for others."""
    seeds: Annotated[tuple[int, ...], BeforeValidator(as_tuple)] = (0,)
    cases: Annotated[tuple[Case, ...], BeforeValidator(as_tuple)] = (Case(name="main"),)

    @model_validator(mode="before")
    @classmethod
    def _explicit(cls, content: Any) -> Any:
        """Replace `auto` separately for each case, because its value must not be inherited."""
        if not isinstance(content, Mapping) or "cases" not in content:
            return content
        model = content.get("model")
        if not isinstance(model, Mapping):
            return content
        return {**content, "cases": explicit_cases(model, content["cases"])}

    @model_validator(mode="after")
    def _distinct(self) -> "Experiment":
        names = [case.name for case in self.cases]
        if not names or len(set(names)) != len(names):
            raise ValueError("cases: give one or more, with different names")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError("seeds: give one or more different numbers, none negative")
        return self

    def run_config(self, case: Case, seed: int) -> RunConfig:
        """The training of one case and seed.

        Raises:
            UserError: the case's overrides are not valid.
        """
        merged = {
            part: merge(getattr(self, part).model_dump(exclude_unset=True), getattr(case, part))
            for part in ("model", "data", "train")
        }
        return validated(RunConfig, merged | {"seed": seed}, f"{self.name}: case {case.name!r}")

    def runs(self) -> list[tuple[Case, RunConfig]]:
        """All trainings of the experiment: cases in order, and seeds in order within each case."""
        return [(case, self.run_config(case, seed)) for case in self.cases for seed in self.seeds]

    @property
    def hash(self) -> str:
        """SHA-256 of the resolved experiment (64 hex digits)."""
        return config_hash(self.model_dump(mode="json"))


def config_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a configuration, as 64 hex digits."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
