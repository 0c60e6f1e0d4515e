"""Make text from files and arguments safe to show."""

import unicodedata

CONTROL = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Unicode categories of characters that change how other text is shown: control characters
(terminal escapes, line breaks), format characters (bidirectional overrides), lone surrogates, line
and paragraph separators."""


def is_control(character: str) -> bool:
    """Whether a character belongs to CONTROL."""
    return not character.isprintable() and unicodedata.category(character) in CONTROL


def visible(text: str, keep: str = "") -> str:
    r"""Text in which every control character is escaped, such as `\x1b`.

    Args:
        keep: characters that are not escaped.
    """
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if is_control(character) and character not in keep
        else character
        for character in text
    )
