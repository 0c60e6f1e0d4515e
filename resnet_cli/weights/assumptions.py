"""Properties of a network that cannot be inferred from a checkpoint's shapes: they are assumed,
reported, and can be set with `--model`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from resnet_cli.runtime.errors import UserError, shortened, unknown

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
    "token": "input of a Vision Transformer's classifier: the class token or the mean",
    "weights": "container of the weights",
    "zero_padding": "zeros of a padded shortcut: before and after its channels, or only after them",
}
"""The keys of `--model` and their meanings."""
LIMIT = 1000
"""Above every number that a network has as a property."""
N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Assumption:
    """One property of a network that its file does not determine."""

    key: str
    value: str
    others: tuple[str, ...] = ()
    """Other plausible values, which can be tried on labelled images."""
    source: str = "assumed"
    """Where the value comes from: `assumed`, `--model`, `config.json`, or the naming."""

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


@dataclass
class Assumptions:
    """The assumptions about one network, which are recorded as they are made."""

    given: Mapping[str, str] = field(default_factory=dict)
    """Values from `--model`."""
    implied: Mapping[str, str] = field(default_factory=dict)
    """Values implied by the naming."""
    stated: Mapping[str, str] = field(default_factory=dict)
    """Values from a config.json next to the file."""
    naming: str = ""
    made: dict[str, Assumption] = field(default_factory=dict)

    def value(self, key: str, usual: str, known: Sequence[str], others: Sequence[str] = ()) -> str:
        """The value of a property: given, or else stated, implied or usual, in this order.

        Args:
            known: valid values; empty if any value is valid.
            others: values worth trying on labelled images.

        Raises:
            UserError: the given value is not valid.
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

    def number(self, key: str, usual: str) -> float:
        """The value of a property that is a number.

        Raises:
            UserError: it is not, or not in the range of such properties.
        """
        return self._parsed(float, "a number", key, usual)

    def whole_number(self, key: str, usual: str) -> int:
        """The value of a property that is a whole number; raises as `number`."""
        return self._parsed(int, "a whole number", key, usual)

    def _parsed(self, kind: Callable[[str], N], what: str, key: str, usual: str) -> N:
        text = self.value(key, usual, ())
        with suppress(ValueError):
            number = kind(text)
            if 0 < number < LIMIT:
                return number
        raise UserError(
            f"--model {key}={shortened(text)}: must be {what} above 0 and below {LIMIT}"
        )

    def check_all_used(self) -> None:
        """Check that this network has all properties that `--model` sets.

        Raises:
            UserError: it does not have one of them.
        """
        for key in self.given:
            if key not in self.made:
                raise unknown("key of --model for this network", key, self.made)


def parse_overrides(texts: Sequence[str]) -> dict[str, str]:
    """Parse the values of `--model KEY=VALUE`.

    Raises:
        UserError: a value is not a pair, a key is unknown, or a key is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise UserError(f"--model {text}: write KEY=VALUE, for example stride_in=1x1")
        if key not in MEANINGS:
            raise unknown("key of --model", key, MEANINGS)
        if key in found:
            raise UserError(f"--model {key}: given twice; give it only once")
        found[key] = value
    return found
