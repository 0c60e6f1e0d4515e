"""Examinations: sizes that fit a budget, all studies, resumed with the same sizes, and the page."""

import json
import re
from pathlib import Path

import pytest

from resnet_cli.cli.entry import run_command
from resnet_cli.run import examine as examine_module
from resnet_cli.run.examine import LEVELS, Sizes, fitting


def test_sizes_grow_with_the_budget_and_never_exceed_the_images() -> None:
    passes = [level.passes(54) for level in LEVELS]
    assert passes == sorted(passes, reverse=True)
    assert fitting(54, 1e-9, 600, 10_000) == LEVELS[0]
    assert fitting(54, 1.0, 1, 10_000) == LEVELS[-1], "the smallest, though it takes longer"
    middle = fitting(9, 0.002, 600, 10_000)
    assert middle.passes(9) * 0.002 <= 600
    assert fitting(9, 1e-9, 600, 360) == Sizes(360, 360, LEVELS[0].draws, LEVELS[0].paths)


def run(*arguments: str) -> int:
    return run_command(list(arguments))


def read_summary(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_one_network_is_examined_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(examine_module, "LEVELS", (Sizes(40, 10, 1, 1),))
    monkeypatch.setattr(examine_module, "BATCH", 8)
    command = ("examine", "preact56-digits", "--images", "40", "--budget", "1s", "--out", "out")
    assert run(*command, "--json") == 0
    summary = read_summary(capsys)
    (network,) = summary["networks"]  # type: ignore[misc]
    assert network["images"] == 40
    assert {f["answer"] for f in network["findings"]} <= {
        "holds",
        "does not hold",
        "too few draws",
    }
    assert len(network["findings"]) == 6
    names = {"deletion", "deletions", "reordering", "paths", "signal"}
    assert {path.name for path in Path("out").iterdir() if path.is_dir()} == names
    page = Path("out/examine.html").read_text()
    assert page.count("data:image/png;base64,") == 6
    assert not re.findall(r'(?:src|href)="(?!data:)', page), "the page needs no other file"
    assert all(finding["evidence"] in page for finding in network["findings"][:1])

    tables = {path: path.read_bytes() for path in Path("out").rglob("*.csv")}
    plan = Path("out/examine.json").read_bytes()
    assert run(*command, "--json") == 0
    assert {path: path.read_bytes() for path in Path("out").rglob("*.csv")} == tables
    assert Path("out/examine.json").read_bytes() == plan


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["preact56-digits", "preact56-digits"], "given twice"),
        (["a", "b", "c"], "3 checkpoints"),
        (["no-such-network"], "no-such-network"),
        (["preact56-digits", "--budget", "soon"], "--budget 'soon'"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    arguments: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("examine", *arguments) == 2
    assert fault in capsys.readouterr().err
