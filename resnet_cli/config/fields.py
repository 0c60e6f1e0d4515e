"""The base of all configuration models, the types of their fields, and one-line errors."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from resnet_cli.runtime.errors import UserError, one_line, shortened, unknown
from resnet_cli.runtime.text import is_control, visible

MAX_RANGE = 1_000_000
M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """A frozen model that refuses keys it does not know and values of the wrong type."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class StudyConfig(Strict):
    """The `study:` block of a YAML, whatever the study; its class is found by `kind`."""

    kind: str


def parse_range(value: object) -> tuple[int, ...]:
    """`3` -> (3,); `"1-20"` -> (1, …, 20); `"0,4,17"` or a list -> those numbers, sorted once.

    Raises:
        ValueError: the text is no such range, a number is negative, or there are too many.
    """
    if isinstance(value, bool) or not isinstance(value, int | str | list | tuple):
        raise ValueError(f"{value!r:.80} is no range; write 3, 1-20 or 1,5,9")
    if not isinstance(value, int | str) and not value:
        raise ValueError("the range is empty; write 3, 1-20 or 1,5,9")
    numbers: set[int] = set()
    total = 0
    parts = str(value).split(",") if isinstance(value, int | str) else [str(v) for v in value]
    for part in parts:
        match = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", part)
        if match is None:
            raise ValueError(f"{str(value)!r:.80} is no range; write 3, 1-20 or 1,5,9")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"{part.strip()!r} runs backwards; write {last}-{first}")
        total += last + 1 - first
        if total > MAX_RANGE:
            raise ValueError(f"a range of more than {MAX_RANGE:,} numbers")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def as_tuple(value: object) -> object:
    """YAML and JSON have lists where the schema has tuples."""
    return tuple(value) if isinstance(value, list) else value


FAILS_ABOVE = 20.0
"""Percent; paper 1, Table 1, calls a higher test error "fail", on ten classes."""


def chance_error(num_classes: int) -> float:
    """The error of guessing among classes of equal size, in percent."""
    return 100.0 * (1 - 1 / num_classes)


IntRange = Annotated[tuple[int, ...], BeforeValidator(parse_range)]
Size = Annotated[int, Field(gt=0, le=100_000)]
Sizes = Annotated[tuple[Size, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=16)]


def _one_line(text: str) -> str:
    """Text that shows as it is written, in a terminal, a table and a figure.

    Raises:
        ValueError: it holds a line break, a terminal escape or another control character.
    """
    control = next((character for character in text if is_control(character)), None)
    if control is not None:
        raise ValueError(f"holds a line break or control character ({visible(control)})")
    return text


Text = Annotated[str, AfterValidator(_one_line)]


_SENTENCES = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
}
"""Types of pydantic's errors in the words of YAML."""


def error_sentence(error: Mapping[str, Any]) -> str:
    """What is wrong with a value, from one entry of `ValidationError.errors()`."""
    sentence = _SENTENCES.get(error["type"])
    if sentence is not None:
        return sentence.format(**error.get("ctx", {}))
    message = str(error["msg"]).removeprefix("Value error, ")
    return message.replace("Input should be", "must be")


def validated(model: type[M], content: Mapping[str, Any], source: str) -> M:
    """`content` as a `model`.

    Args:
        source: where the content stands, for the error's line.

    Raises:
        UserError: it does not fit; the line says what of it does not first.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        # Unknown keys come first: a mistyped key that is required is missing as well.
        first, *others = sorted(
            error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden"
        )
        location = [str(part) for part in first["loc"]]
        where = shortened(".".join(location))
        also = dict.fromkeys(shortened(".".join(map(str, e["loc"])), 60) for e in others)
        also.pop(where, None)
        more = f"; wrong as well: {shortened(', '.join(also))}" if also else ""
        if first["type"] == "extra_forbidden":
            known = _known_keys(model, location[:-1])
            raise UserError(f"{source}: {where}: {unknown('key', location[-1], known)}") from None
        message = one_line(error_sentence(first), 300)
        given = first["input"]
        got = "" if isinstance(given, dict | BaseModel) else f" (got {given!r:.80})"
        where = f"{where}: " if where else ""
        raise UserError(f"{source}: {where}{message}{got}{more}") from None


def _known_keys(model: type[BaseModel], location: list[str]) -> list[str]:
    """The keys that are valid at a location inside a model."""
    current: Any = model
    for part in location:
        if part.isdigit():
            continue
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(part)
            current = field.annotation if field is not None else current
        models = _models_in(current)
        current = models[0] if len(models) == 1 else current
    return list(current.model_fields) if hasattr(current, "model_fields") else []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models_in(part)]
