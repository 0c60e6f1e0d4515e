"""What the shapes of a checkpoint cannot tell: assumed, stated, and overridden by `--model`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from resnet_cli.runtime.errors import UserError, unknown

ACTIVATIONS = ("relu", "silu", "gelu", "leaky_relu", "elu", "hardswish", "tanh")
MEANINGS: Mapping[str, str] = {
    "attention_heads": "heads of each attention",
    "activation": "nonlinearity of all layers",
    "epsilon": "batch norm's epsilon",
    "last_activation": "nonlinearity after the last batch norm",
    "last_pool": "max pooling after the last convolution",
    "head": "module of the classifier",
    "shared_activation": "units whose shortcut starts after the first activation",
    "stem_pool": "pooling after the stem",
    "stem_stride": "stride of the first convolution",
    "stride_in": "layer of a unit that has its stride",
    "strides": "stride of each stage",
    "token": "what the classifier of a Vision Transformer sees: the class token or the mean",
    "weights": "container of the weights",
    "zero_padding": "zeros of a padded shortcut before and after its channels, or after them only",
}
"""The keys of `--model`, in words."""


@dataclass(frozen=True)
class Assumption:
    """One property of a network that its file does not determine."""

    key: str
    value: str
    others: tuple[str, ...] = ()
    """Plausible values that labelled images can tell apart."""
    source: str = "assumed"
    """`assumed`, `--model`, `config.json`, or the naming that implies it."""

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


@dataclass
class Assumptions:
    """The assumptions about one network, as they are made."""

    given: Mapping[str, str] = field(default_factory=dict)
    """By `--model`."""
    implied: Mapping[str, str] = field(default_factory=dict)
    """By the naming."""
    stated: Mapping[str, str] = field(default_factory=dict)
    """By a config.json next to the file."""
    naming: str = ""
    made: dict[str, Assumption] = field(default_factory=dict)

    def value(self, key: str, usual: str, known: Sequence[str], others: Sequence[str] = ()) -> str:
        """The value of a property: given, else stated, else implied, else usual.

        Args:
            known: valid values; empty if any is.
            others: values worth trying on labelled images.

        Raises:
            UserError: the given value is not a valid one.
        """
        for source, values in (
            ("--model", self.given),
            ("config.json", self.stated),
            (f"implied by the naming of {self.naming}", self.implied),
            ("assumed", {key: usual}),
        ):
            if key in values and (not known or values[key] in known or source == "--model"):
                value = values[key]
                break
        if known and value not in known:
            raise unknown(f"--model {key}", value, known)
        rest = () if source == "--model" else tuple(v for v in others if v != value)
        self.made[key] = Assumption(key, value, rest, source)
        return value

    def check_all_used(self) -> None:
        """Refuse overrides of what this network does not have.

        Raises:
            UserError: there are some.
        """
        for key in self.given:
            if key not in self.made:
                raise unknown("key of --model for this network", key, self.made)


def parse_overrides(texts: Sequence[str]) -> dict[str, str]:
    """The pairs that `--model KEY=VALUE` gives.

    Raises:
        UserError: one is no pair, has an unknown key, or a key is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise UserError(f"--model {text}: write KEY=VALUE, for example stride_in=1x1")
        if key not in MEANINGS:
            raise unknown("key of --model", key, MEANINGS)
        if key in found:
            raise UserError(f"--model {key}: given twice; give it once")
        found[key] = value
    return found
