"""Options that several commands share, declared once as the fields of a dataclass."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any


def with_options(group: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the fields of a dataclass to a command as options; all have defaults.

    The command receives them as one object, its argument `options`. In `--help` they follow the
    command's own options.
    """
    shared = inspect.signature(group, eval_str=True).parameters

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = dict(inspect.signature(command, eval_str=True).parameters)
        del own["options"]

        @wraps(command)
        def wrapper(**values: Any) -> None:
            options = group(**{name: values.pop(name) for name in shared})
            command(**values, options=options)

        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in (*own.values(), *shared.values())
        ]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper

    return decorate
