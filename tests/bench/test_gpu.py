"""The GPU benchmarks and the script around them, small and on the processor."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from resnet_cli.bench import gpu
from resnet_cli.results.tables import read_table
from resnet_cli.runtime.display import Display

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"


def test_every_item_is_measured(tmp_path: Path) -> None:
    settings = gpu.Settings(torch.device("cpu"), small=True)
    (checks, speeds), rows = gpu.run_gpu_benchmarks(
        [],
        settings,
        tmp_path,
        Display(),
        lambda: False,  # type: ignore[arg-type]
    )
    assert not any("failed" in row["remark"] for row in rows)
    table = read_table(checks)
    assert len(table) == 7
    assert table["remark"].str.contains(": agrees").all()
    table = read_table(speeds)
    assert (table["value"] > 0).all()
    assert set(table["item"]) >= {"train ResNet-110", "lesion sweep", "exact spectrum"}


def test_a_wrong_step_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = gpu.Settings(torch.device("cpu"), small=True)
    honest = gpu._after_a_step

    def wrong(
        settings: gpu.Settings,
        precision: str,
        engine: str,
        notes: object = None,
        active: int | None = None,
    ) -> object:
        found = honest(settings, precision, engine, None, active)
        return [2 * p for p in found] if engine == "fast" else found

    monkeypatch.setattr(gpu, "_after_a_step", wrong)
    assert all("DIFFERS" in row["remark"] for row in gpu.check_steps(settings))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs CIFAR-10")
def test_the_script_checks_measures_and_trains(tmp_path: Path) -> None:
    out = tmp_path / "out"
    environment = os.environ | {"DATA": str(DATA), "OUT": str(out), "DEVICE": "cpu", "SMALL": "1"}
    environment |= {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "BENCH": "no"}
    done = subprocess.run(
        ["bash", str(ROOT / "examples" / "gpu.sh")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(out / "preact110.tar") as file:
        names = {Path(name).name for name in file.getnames()}
    assert {"weights.safetensors", "run.json", "training.csv", "training.provenance.json"} <= names
