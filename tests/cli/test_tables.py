"""What commands show: tables that fit the terminal, and progress of long work."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_helpers import RESULTS, TRAIN, Captured, cells_of

from resnet_cli.cli import run_command
from resnet_cli.runtime.display import Display, Update

BUNDLED = ["--checkpoint", "preact56-digits", "--out", "a"]

TABLES = {
    "list": ["list"],
    "models": ["models"],
    "data": ["data"],
    "weights": ["weights"],
    "compare he2016": ["compare", "he2016", "--profile", "mini", "--results", RESULTS],
    "compare veit2016": ["compare", "veit2016", "--profile", "mini", "--results", RESULTS],
    "train": TRAIN,
    "lesion": ["lesion", "--images", "20", *BUNDLED],
    "lesion, classes": ["lesion", "--only", "3,4", "--per-class", "--images", "50", *BUNDLED],
    "lesion, several": [
        *("lesion", "--blocks", "2-4", "--samples", "2", "--images", "20"),
        *BUNDLED,
    ],
    "paths": [
        *("paths", "--exact", "--samples", "1", "--batch-size", "2"),
        *BUNDLED,
    ],
    "path lengths": ["paths", "--lengths", *BUNDLED],
    "signal": ["signal", "--batch-size", "4", *BUNDLED],
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_fit_80_columns_with_every_number_whole(
    name: str, empty: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {}
    for width in (80, 300):
        monkeypatch.setenv("COLUMNS", str(width))
        capsys.readouterr()
        assert run_command(TABLES[name]) == 0
        shown[width] = capsys.readouterr().out
    narrow = [line for line in shown[80].splitlines() if line and line[0] in "┏┃┡│└"]
    assert narrow
    assert max(map(len, narrow)) <= 80
    assert "…" not in "".join(narrow)
    prose = [line for line in shown[80].splitlines() if "/" not in line]  # paths stay whole
    assert max(map(len, prose)) <= 80
    number = re.compile(r"[+-]?\d[\d.,e+-]*( to [+-]?[\d.]+)?( [M%])?")
    wide = [cell for row in cells_of(shown[300]) for cell in row]
    numbers = Counter(filter(number.fullmatch, wide))
    assert numbers - Counter(cell for row in cells_of(shown[80]) for cell in row) == Counter()


LONG_WORK = {
    "train": (TRAIN, ["main, seed 0"]),
    "eval": (["eval", "--checkpoint", "preact56-digits"], ["evaluating preact56, digits"]),
    "lesion": (["lesion"], ["deleting units of preact8, digits"]),
    "lesion --reorder": (
        ["lesion", "--reorder", "1", "--images", "20", *BUNDLED],
        ["reordering units of preact56, digits"],
    ),
    "lesion --greedy": (
        ["lesion", "--greedy", "1"],
        [
            "deleting the least harmful units of preact8, digits",
            "deleting random units of preact8, digits",
        ],
    ),
    "lesion --additivity": (
        ["lesion", "--additivity", "2", "--samples", "2"],
        ["deleting sets of units of preact8, digits"],
    ),
    "paths": (
        ["paths", "--exact", "--samples", "1", "--unit", "1", "--stages"],
        [
            "sampling paths of preact8, digits",
            "exact spectrum of preact8, digits",
            *(f"exact spectrum of stage {stage}" for stage in (1, 2, 3)),
            "exact spectrum of unit 1",
        ],
    ),
    "signal": (
        ["signal"],
        ["signals of preact8, digits, initial", "signals of preact8, digits, trained"],
    ),
    "weights --export": (
        ["weights", "--export", "RUN", "--name", "mine", "--out", "a"],
        ["evaluating RUN in float16"],
    ),
}


@pytest.mark.parametrize("name", LONG_WORK)
def test_long_work_shows_how_far_it_is(
    name: str, work: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, list[tuple[int, int]]] = {}

    @contextmanager
    def progress(display: Display, label: str) -> Iterator[Update]:
        steps = told.setdefault(label, [])
        yield lambda done, total, remark="": steps.append((done, total))

    monkeypatch.setattr(Display, "progress", progress)
    arguments, labels = LONG_WORK[name]
    if name == "train":
        shutil.rmtree("runs")
    run = str(next(Path("runs").glob("*"), ""))
    assert run_command([argument.replace("RUN", run) for argument in arguments]) == 0
    assert list(told) == [label.replace("RUN", run) for label in labels]
    for steps in told.values():
        done, totals = zip(*steps, strict=True)
        assert done[-1] == totals[-1]
        assert list(done) == sorted(done)
        assert len(set(totals)) == 1
