"""What the tests of the command line share."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from resnet_cli.cli import run_command

Captured = pytest.CaptureFixture[str]

TIMES = ["images_per_second", "seconds"]

TRAIN = ["train", "--profile", "smoke"]

OUT = Path("results/local/quickstart/smoke")


def run_folder() -> Path:
    (folder,) = Path("runs").iterdir()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All files in a folder and its subfolders: path -> content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def summary_of(arguments: list[str], capsys: Captured) -> dict[str, Any]:
    """The summary that a command prints with --json, as the only line on stdout."""
    capsys.readouterr()
    assert run_command([*arguments, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.endswith("\n")
    assert out.count("\n") == 1
    content = json.loads(out)
    assert content["command"] == arguments[0]
    return content  # type: ignore[no-any-return]


FEW = ["--images", "10"]

RESULTS = str(Path(__file__).parents[2] / "results")


def cells_of(out: str) -> list[list[str]]:
    """The cells of every line of every table."""
    lines = [line for line in out.splitlines() if line.startswith(("│", "┃"))]
    return [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines]


def refused(arguments: list[str], capsys: Captured, *, code: int = 2, writes: bool = False) -> str:
    """The one line that a command leaves on stderr; every file is as it was before, but for new
    ones where it `writes`."""
    before = contents(Path())
    capsys.readouterr()
    assert run_command(arguments) == code
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("resnet-cli: ")
    assert "Traceback" not in captured.out + captured.err
    kept = contents(Path())
    assert (kept | before if writes else before) == kept
    capsys.readouterr()
    assert run_command([*arguments, "--json"]) == code
    assert capsys.readouterr().out == ""  # a failure is no result
    return line.removeprefix("resnet-cli: ")


def environment() -> dict[str, str]:
    """One thread, as in the tests' own process, so that sums have the same order."""
    return os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
