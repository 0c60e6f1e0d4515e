"""Write the report: one self-contained HTML file."""

import base64
import io
import json
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from resnet_cli import __version__
from resnet_cli.claims.verdict import JUDGED, Judgement, Verdict
from resnet_cli.claims.words import decisive, evidence, legend, seeds, source_title
from resnet_cli.config.schema import PROFILES
from resnet_cli.report.content import content
from resnet_cli.report.explorer import explorer_data
from resnet_cli.report.labels import PROFILE_WORDS
from resnet_cli.results.layout import provenance_path
from resnet_cli.results.tables import atomic_write
from resnet_cli.runtime.errors import UserError

COLOURS = 64
"""Number of colours of an embedded plot; a palette looks the same at a quarter of the size."""
WIDEST = 1440
"""Largest width of an embedded plot in pixels; our widest plots have it and are not resampled."""
WIDE = 1000
"""Least width in pixels of a plot with several panels, which scrolls on a phone."""

MARKS: Mapping[Verdict, str] = {"holds": "✓", "does not hold": "✗", "too close": "≈"}
"""The sign before a verdict; other verdicts get a dash."""


def write_report(results: Path, out: Path) -> Path:
    """Write the report on all results in a folder.

    Raises:
        UserError: there are no results, one cannot be read, or the file cannot be written.
    """
    parts = content(results)
    return write_page(
        "page.html",
        out,
        {
            "size": _size,
            "unbroken": _unbroken,
            "provenance": provenance_path,
            "link": lambda path: _link(path, out),
            "source_title": source_title,
            "mark": lambda judgement: MARKS.get(judgement.verdict, "–"),
            "css_class": _css_class,
            "decisive": decisive,
            "seeds": seeds,
            "evidence": lambda judgement: [*evidence(judgement), *judgement.commands],
        },
        parts=parts,
        wide=WIDE,
        words=PROFILE_WORDS,
        settings={
            count.profile: count.setting
            for part in reversed(parts)
            for count in part.counts
            if count.profile in PROFILES
        },
        legend=legend(),
        networks=json.dumps(explorer_data(results), separators=(",", ":")).replace("<", "\\u003c"),
    )


def write_page(
    template: str, out: Path, filters: Mapping[str, Callable[..., Any]], **values: Any
) -> Path:
    """Write a page from a template of this package.

    Args:
        filters: the template's filters, besides `embedded`.
        values: the template's variables, besides `version` and `written`.

    Raises:
        UserError: the file cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("resnet_cli.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"embedded": embedded, **filters}
    written = datetime.now(UTC).strftime("%Y-%m-%d")
    page = environment.get_template(template).render(version=__version__, written=written, **values)
    atomic_write(out, page)
    return out


def _css_class(judgement: Judgement) -> str:
    """The verdict as a CSS class."""
    verdict = judgement.verdict
    return verdict.replace(" ", "-") if verdict in JUDGED else "no-verdict"


def _unbroken(text: str) -> Markup:
    """The text without line breaks inside names such as `CIFAR-10` and `ResNet-110`."""
    return Markup(
        re.sub(r"[A-Za-z]+-\d+", r'<span class="unbroken">\g<0></span>', str(escape(text)))
    )


def _link(path: Path, page: Path) -> str:
    """The path of a file relative to the page's folder."""
    return Path(os.path.relpath(path, page.parent)).as_posix()


def embedded(path: Path) -> str:
    """A picture as a data URL.

    Raises:
        UserError: the file is not a picture.
    """
    small = _opened(path).convert("RGB").quantize(COLOURS)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _size(path: Path) -> tuple[int, int]:
    """Width and height of a picture as embedded, in pixels."""
    return _opened(path).size


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.thumbnail((WIDEST, WIDEST * 4))
            picture.load()
            return picture.copy()
    except OSError:
        raise UserError(f"{path}: not a picture; run its experiment again") from None
