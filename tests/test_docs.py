"""The documentation: every page is in the site's menu, and what it refers to exists."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
TEXTS = {f"docs/{name}": ROOT / "docs" / name for name in PAGES} | {
    name: ROOT / name for name in ("README.md", "CONTRIBUTING.md", "results/README.md")
}


@pytest.fixture(scope="module")
def site_pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages_of(entries: Any) -> list[str]:
    """The pages of a menu, in order."""
    if isinstance(entries, str):
        return [entries]
    values = entries.values() if isinstance(entries, dict) else entries
    return [page for entry in values for page in pages_of(entry)]


def test_the_menu_has_every_page_once(site_pages: ModuleType) -> None:
    menu = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(menu) == sorted([*PAGES, *site_pages.GENERATED])


@pytest.mark.parametrize("name", TEXTS)
def test_links_and_named_files_exist(name: str) -> None:
    path = TEXTS[name]
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http|#)([^)#]+)(?:#[^)]*)?\)", text):
        assert (path.parent / target).exists(), target
    for named in re.findall(r"`((?:tests|examples|resnet_cli|docs)/[\w/.]+)`", text):
        assert (ROOT / named).exists(), named


def test_the_reference_has_every_command(site_pages: ModuleType) -> None:
    import typer.main

    from resnet_cli.cli import app

    names = re.findall(r"^## (\w+)$", site_pages.commands(), flags=re.MULTILINE)
    assert set(names) == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert "--blocks" in site_pages.commands().split("## lesion")[1].split("## ")[0]


def test_links_that_leave_the_site_become_text(site_pages: ModuleType) -> None:
    text = "[a](docs/speed.md) [b](../results/README.md) [c](../LICENSE) [d](https://e.org) [f](#g)"
    shown = "[a](speed.md) [b](tables.md) c [d](https://e.org) [f](#g)"
    assert site_pages.linked(text) == shown


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="the extra docs is missing")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, timeout=120)
    assert "Top-1 error in percent" in (tmp_path / "api.html").read_text(encoding="utf-8")
