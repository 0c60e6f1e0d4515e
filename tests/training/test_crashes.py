"""kill -9, a full disk, a damaged checkpoint at any moment; then the same command again: nothing
is lost, and nothing differs. `make torture` does the same at many more moments."""

import random
import signal
import sys
from pathlib import Path

import pytest
import torture

from resnet_cli.results.tables import read_provenance

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL and no fork"
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    folder = tmp_path_factory.mktemp("undisturbed") / "study"
    return folder, torture.untouched(folder)


@pytest.mark.parametrize(
    ("kind", "faults"),
    [("kill", 25), ("terminate", 6), ("disk full", 6), ("damaged checkpoint", 8)],
)
def test_faults_at_random_moments(
    kind: str, faults: int, undisturbed: tuple[Path, int], tmp_path: Path
) -> None:
    reference, moments = undisturbed
    tally = torture.disturbed(kind, tmp_path, reference, moments, random.Random(1), faults)
    assert tally.injected >= faults
    assert tally.resumed > 0
    assert (tally.rows_lost, tally.files_differing) == (0, 0)


def test_a_limit_on_the_size_of_files(undisturbed: tuple[Path, int], tmp_path: Path) -> None:
    tally = torture.limited_files(tmp_path / "study", undisturbed[0])
    assert (tally.injected, tally.resumed) == (1, 1)
    assert (tally.rows_lost, tally.files_differing) == (0, 0)


def test_the_comparison_sees_what_is_missing_or_other(
    undisturbed: tuple[Path, int], tmp_path: Path
) -> None:
    import shutil

    reference, _ = undisturbed
    shutil.copytree(reference, tmp_path / "copy")
    assert torture.compare(reference, tmp_path / "copy") == (0, [])
    table = next((tmp_path / "copy/results").rglob("table.csv"))
    table.write_text(table.read_text().replace(",ok,", ",fail,").replace(",fail,", ",ok,", 1))
    lines = next((tmp_path / "copy/results").rglob("lesion_delete.csv"))
    lines.write_text("".join(lines.read_text().splitlines(keepends=True)[:-2]))
    lost, differing = torture.compare(reference, tmp_path / "copy")
    assert lost == 2
    assert str(lines) in differing


@pytest.mark.parametrize(
    ("options", "command"),
    [([], "make torture"), (["--seed", "1"], "torture.py --seed 1")],
    ids=["make", "by hand"],
)
def test_the_table_records_the_command(
    options: list[str], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tests/training/torture.py", *options])
    monkeypatch.setattr(torture, "untouched", lambda folder: 1)
    monkeypatch.setattr(torture, "disturbed", lambda kind, *rest: torture.Tally(kind))
    monkeypatch.setattr(torture, "limited_files", lambda *folders: torture.Tally("limit"))
    torture.main()
    assert read_provenance(Path("results/reliability/reliability.csv"))["command"] == command
