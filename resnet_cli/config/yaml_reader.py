"""Safe reading of YAML: no tags, anchors or duplicate keys, limited size and nesting."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from resnet_cli.runtime.errors import UserError, one_line

MAX_YAML_BYTES = 1_000_000
MAX_NESTING = 50


class _Loader(yaml.SafeLoader):
    """SafeLoader that rejects tags, aliases (and so anchor bombs) and duplicate keys.

    `1e-4` is read as a number, as in YAML 1.2.
    """

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(
                None, None, "anchors and aliases are not allowed here", mark
            )
        event = self.peek_event()  # type: ignore[no-untyped-call]
        tag = getattr(event, "tag", None)
        if tag is not None:  # tags such as `!!timestamp x` raise other errors inside the library
            raise yaml.constructor.ConstructorError(
                None, None, f"tags are not allowed here (got {tag!r:.80})", event.start_mark
            )
        if self._depth >= MAX_NESTING:
            raise yaml.constructor.ConstructorError(
                None, None, "nested too deeply for an experiment", event.start_mark
            )
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def flatten_mapping(self, node: Any) -> None:
        """Do not expand merge keys (`<<`); construct_mapping rejects them."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not text", key_node.start_mark
                )
            if key in mapping:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key!r}", key_node.start_mark
                )
            mapping[key] = self.construct_object(value_node, deep=True)
        return mapping


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML text safely.

    Raises:
        UserError: the text is not YAML, too long, nested too deeply, or has tags, anchors or
            duplicate keys.
    """
    if len(text) > MAX_YAML_BYTES:
        raise UserError(
            f"{source}: more than {MAX_YAML_BYTES:,} characters, too long for an experiment"
        )
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{source}{where}: {one_line(error.problem or error, 300)}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{source}: not valid YAML: {one_line(error, 300)}") from None


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `over` into a copy of `base`: mappings key by key; other values replace."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = (
            merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
        )
    if "epochs" in over and "iterations" not in over:  # a run has only one of the two lengths
        merged.pop("iterations", None)
    if "iterations" in over and "epochs" not in over:
        merged.pop("epochs", None)
    return merged
