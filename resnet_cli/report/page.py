"""Writes the report: one HTML file that needs no other and no network."""

import base64
import io
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from resnet_cli import __version__
from resnet_cli.claims.words import legend
from resnet_cli.config.schema import PROFILES
from resnet_cli.report.content import content
from resnet_cli.report.explorer import explorer_data
from resnet_cli.report.labels import PROFILE_WORDS
from resnet_cli.results.layout import provenance_path
from resnet_cli.results.tables import atomic_write
from resnet_cli.runtime.errors import UserError

COLOURS = 64
"""Of an embedded plot; a palette makes it a quarter as large and looks the same."""
WIDEST = 1440
"""Pixels of an embedded plot; our widest plots have as many and are not resampled."""
WIDE = 1000
"""Pixels from which a plot has several panels: on a phone it is scrolled and not shrunk."""


def write_report(results: Path, out: Path) -> Path:
    """Write the report on everything under `results` to `out`.

    Raises:
        UserError: there are no results, one cannot be read, or the file cannot be written.
    """
    parts = content(results)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("resnet_cli.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["embedded"] = embedded
    environment.filters["size"] = _size
    environment.filters["unbroken"] = _unbroken
    environment.globals["wide"] = WIDE
    environment.filters["provenance"] = provenance_path
    environment.filters["link"] = lambda path: _link(path, out)
    page = environment.get_template("page.html").render(
        parts=parts,
        words=PROFILE_WORDS,
        settings={
            count.profile: count.setting
            for part in reversed(parts)
            for count in part.counts
            if count.profile in PROFILES
        },
        legend=legend(),
        networks=json.dumps(explorer_data(results), separators=(",", ":")).replace("<", "\\u003c"),
        version=__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d"),
    )
    atomic_write(out, page)
    return out


def _unbroken(text: str) -> Markup:
    """Without a line's end in `CIFAR-10` and `ResNet-110`."""
    return Markup(
        re.sub(r"[A-Za-z]+-\d+", r'<span class="unbroken">\g<0></span>', str(escape(text)))
    )


def _link(path: Path, page: Path) -> str:
    """A file as the page links to it, relative to the page's folder."""
    return Path(os.path.relpath(path, page.parent)).as_posix()


def embedded(path: Path) -> str:
    """A picture as a data address.

    Raises:
        UserError: it is no picture.
    """
    small = _opened(path).convert("RGB").quantize(COLOURS)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _size(path: Path) -> tuple[int, int]:
    """Width and height of a picture as embedded, pixels."""
    return _opened(path).size


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.thumbnail((WIDEST, WIDEST * 4))
            picture.load()
            return picture.copy()
    except OSError:
        raise UserError(f"{path}: is no picture; run its experiment again") from None
