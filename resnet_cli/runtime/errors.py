"""The two kinds of errors of a command, and the message for a mistyped name."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad usage or input: one line saying what is wrong, where, and how to fix it. Exit code 2."""


class RunError(RuntimeError):
    """A run that failed through no fault of the input. Exit code 1."""


def shortened(text: object, limit: int = 200) -> str:
    """A name for an error message; a long one is cut to its beginning and end."""
    shown = str(text)
    half = limit // 2
    return shown if len(shown) <= limit else f"{shown[:half]} … {shown[-half:]}"


MAX_NAMES = 120
"""A list of valid names longer than this, in characters, is omitted if there is a similar name."""


def unknown(what: str, name: str, known: Iterable[str], shown_by: str = "") -> UserError:
    """The error for a name that does not exist; it suggests the most similar valid name and lists
    all of them.

    Args:
        shown_by: a command that shows all names, mentioned instead of the list.
    """
    names = sorted(known)
    name = shortened(name)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if shown_by:
        return UserError(f"unknown {what} {name!r}{hint or ';'} `{shown_by}` shows all")
    listed = ", ".join(names) or "none"
    valid = "" if near and len(listed) > MAX_NAMES else f" (known: {listed})"
    return UserError(f"unknown {what} {name!r}{hint}{valid}")


def one_line(error: object, limit: int = 200) -> str:
    """An error's text without line breaks, cut to `limit` characters; its type if it has none."""
    return " ".join(str(error).split())[:limit] or type(error).__name__
