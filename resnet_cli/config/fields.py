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
    """A frozen model that rejects unknown keys and values of the wrong type."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class StudyConfig(Strict):
    """The `study:` block of an experiment; `kind` selects its class."""

    kind: str


def parse_range(value: object) -> tuple[int, ...]:
    """`3` -> (3,); `"1-20"` -> (1, …, 20); `"0,4,17"` or a list -> these numbers, sorted, each
    once.

    Raises:
        ValueError: the value is not a range, a number is negative, or there are too many numbers.
    """
    if isinstance(value, bool) or not isinstance(value, int | str | list | tuple):
        raise ValueError(f"{value!r:.80} is not a range; write 3, 1-20 or 1,5,9")
    if not isinstance(value, int | str) and not value:
        raise ValueError("the range is empty; write 3, 1-20 or 1,5,9")
    numbers: set[int] = set()
    total = 0
    parts = str(value).split(",") if isinstance(value, int | str) else [str(v) for v in value]
    for part in parts:
        match = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", part)
        if match is None:
            raise ValueError(f"{str(value)!r:.80} is not a range; write 3, 1-20 or 1,5,9")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"{part.strip()!r} is backwards; write {last}-{first}")
        total += last + 1 - first
        if total > MAX_RANGE:
            raise ValueError(f"a range of more than {MAX_RANGE:,} numbers; give fewer")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def range_text(numbers: tuple[int, ...]) -> str:
    """Increasing numbers in the shortest text that `parse_range` reads: `1-3,5`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def as_tuple(value: object) -> object:
    """Convert a list, as in YAML and JSON, to the tuple that the schema needs."""
    return tuple(value) if isinstance(value, list) else value


NORMALIZATIONS = ("channel", "pixel", "imagenet", "cifar", "none", "m1,m2,m3/s1,s2,s3")
"""Valid values of `data.normalize` and `--normalize`; see `datasets.normalisation`."""
FAILS_ABOVE = 20.0
"""In percent. Paper 1, Table 1 (ten classes), reports a higher test error as "fail"."""


def chance_error(num_classes: int) -> float:
    """The error of guessing among classes of equal size, in percent."""
    return 100.0 * (1 - 1 / num_classes)


def _positive(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Check that no number is zero.

    Raises:
        ValueError: a number is zero.
    """
    if 0 in numbers:
        raise ValueError("0 is not valid; the smallest number is 1")
    return numbers


IntRange = Annotated[tuple[int, ...], BeforeValidator(parse_range)]
PositiveRange = Annotated[IntRange, AfterValidator(_positive)]
Size = Annotated[int, Field(gt=0, le=100_000)]
Sizes = Annotated[tuple[Size, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=16)]


def _single_line(text: str) -> str:
    """Check that a text can be shown safely in a terminal, a table or a figure.

    Raises:
        ValueError: it contains a line break, a terminal escape or another control character.
    """
    control = next((character for character in text if is_control(character)), None)
    if control is not None:
        raise ValueError(f"must not contain line breaks or control characters ({visible(control)})")
    return text


Text = Annotated[str, AfterValidator(_single_line)]


_MESSAGES = {
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
"""Error messages in terms of YAML, by pydantic's type of error."""


def error_message(error: Mapping[str, Any]) -> str:
    """The message for one entry of `ValidationError.errors()`."""
    sentence = _MESSAGES.get(error["type"])
    if sentence is not None:
        return sentence.format(**error.get("ctx", {}))
    message = str(error["msg"]).removeprefix("Value error, ")
    return message.replace("Input should be", "must be")


def first_error_message(error: ValueError) -> str:
    """The first message of pydantic's ValidationError, or the text of any other ValueError."""
    first = error.errors()[0] if isinstance(error, ValidationError) else None
    return one_line(str(error) if first is None else error_message(first))


def validated(model: type[M], content: Mapping[str, Any], source: str) -> M:
    """Validate `content` and return it as a `model`.

    Args:
        source: where the content comes from, for the error message.

    Raises:
        UserError: the content is not valid; the message describes the first problem.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        # Unknown keys come first: a mistyped required key is also reported as missing.
        first, *others = sorted(
            error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden"
        )
        location = [str(part) for part in first["loc"]]
        where = shortened(".".join(location))
        also = dict.fromkeys(shortened(".".join(map(str, e["loc"])), 60) for e in others)
        also.pop(where, None)
        more = f"; also not valid: {shortened(', '.join(also))}" if also else ""
        if first["type"] == "extra_forbidden":
            known = _known_keys(model, location[:-1])
            raise UserError(f"{source}: {where}: {unknown('key', location[-1], known)}") from None
        message = one_line(error_message(first), 300)
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
