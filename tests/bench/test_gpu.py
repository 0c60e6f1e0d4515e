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


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [
        (700, "64000 32000 48000 400 bfloat16"),
        (400, "32000 16000 24000 200 bfloat16"),
        (60, "no length fits"),
    ],
)
def test_the_script_chooses_the_longest_length_that_fits(
    tmp_path: Path, budget: int, chosen: str
) -> None:
    """In the fastest precision whose check agrees. Training ends at once, without data."""
    bench = tmp_path / "bench"
    bench.mkdir()
    outcomes = {"float32": "agrees", "tf32": "DIFFERS", "bfloat16": "agrees"}
    rows = "".join(f'step,{p},fast,0,"at most 1: {said}"\n' for p, said in outcomes.items())
    (bench / "bench_gpu_checks.csv").write_text(f"item,precision,side,value,remark\n{rows}")
    speeds = {"float32": 6525, "tf32": 20000, "bfloat16": 14119}
    rows = "".join(f"train ResNet-110,{p},fast,{s},\n" for p, s in speeds.items())
    (bench / "bench_gpu.csv").write_text(f"item,precision,side,value,remark\n{rows}")
    environment = os.environ | {"DATA": str(tmp_path / "none"), "OUT": str(tmp_path)}
    environment |= {"DEVICE": "cpu", "BENCH": "no", "BUDGET_SECONDS": str(budget)}
    environment |= {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    script = ["bash", str(ROOT / "examples" / "gpu.sh")]
    done = subprocess.run(
        script, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ResNet-110: {chosen}, " in done.stdout
    assert "VGG-15: no length fits" in done.stdout  # its speed was not measured
