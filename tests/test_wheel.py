"""The wheel alone, in an environment of its own: everything works without the repository."""

import os
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`resnet-cli` of a fresh environment that has the wheel; PyTorch and the like are found where
    these tests have them."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run([*build, "--directory", str(folder)], cwd=ROOT, check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    home = folder / "environment"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    where = sysconfig.get_path("purelib", vars={"base": str(home)})
    others = {*site.getsitepackages(), str(Path(torch.__file__).parents[1])}
    Path(where, "others.pth").write_text("\n".join(sorted(others)))
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True, timeout=120)
    return home / "bin" / "resnet-cli"


COMMANDS = {
    "list": ("list", "quickstart"),
    "weights": ("weights", "preact110-cifar10"),
    "data": ("data", "digits"),
    "lesion": ("lesion --only 3 --images 20", "preact56-digits"),
    "paths": ("paths --lengths", "preact56"),
    "train": ("train quickstart --profile smoke", "test error"),
    "compare": ("compare veit2016", "claims: "),
    "report": ("report", "report.html"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_of_the_front_page(name: str, command: Path, tmp_path: Path) -> None:
    arguments, shown = COMMANDS[name]
    done = subprocess.run(
        [str(command), *arguments.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert shown in done.stdout


def test_the_installed_package_is_the_wheels(command: Path, tmp_path: Path) -> None:
    code = "import resnet_cli; print(resnet_cli.__file__)"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    python = [str(command.with_name("python")), "-c", code]
    shown = subprocess.run(
        python, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment
    )
    assert Path(shown.stdout.strip()).is_relative_to(command.parents[1])
