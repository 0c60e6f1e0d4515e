"""Pages of the documentation site that are made from other files: a hook of MkDocs (`make docs`).

The home page is README.md, the columns of the tables are results/README.md, and the reference of
the commands is what `--help` prints.
"""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
GENERATED = ("index.md", "commands.md", "tables.md")


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages and the pictures that they show."""
    from mkdocs.structure.files import File

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    pages = (readme, commands(), (ROOT / "results/README.md").read_text(encoding="utf-8"))
    for name, text in zip(GENERATED, pages, strict=True):
        files.append(File.generated(config, name, content=linked(text)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page's text with links that lead to pages of the site."""
    return linked(markdown)


def linked(text: str) -> str:
    """A text of the repository as a page: a link to a file that is no page becomes plain text."""

    def page(match: re.Match[str]) -> str:
        shown, target = match.group(1), match.group(2)
        name = target.removeprefix("../").removeprefix("docs/")
        if name == "results/README.md":
            name = "tables.md"
        is_page = name.endswith(".md") and (name in GENERATED or (ROOT / "docs" / name).exists())
        return f"[{shown}]({name})" if is_page else shown

    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!http|#)([^)#]+)\)", page, text)


def commands() -> str:
    """Every command and its `--help`."""
    import typer.main

    from resnet_cli.cli import app

    group = typer.main.get_command(app)
    context = group.make_context("resnet-cli", [], resilient_parsing=True)
    parts = ["# Commands", "Every command prints the same with `--help`."]
    for name in group.list_commands(context):  # type: ignore[attr-defined]
        command = group.get_command(context, name)  # type: ignore[attr-defined]
        below = command.context_class(command, info_name=name, parent=context)
        below.max_content_width = below.terminal_width = 80
        parts.append(f"## {name}\n\n```text\n{command.get_help(below)}\n```")
    return "\n\n".join(parts) + "\n"
