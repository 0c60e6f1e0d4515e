"""Completion on the tab key, requested as a shell does it, and that it needs nothing heavy."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from resnet_cli.claims.papers import PAPERS
from resnet_cli.cli import run_command
from resnet_cli.cli.options import Paper, checkpoint_names
from resnet_cli.config.experiments import experiment_names
from resnet_cli.config.schema import PROFILES
from resnet_cli.runtime.engine import Engine
from resnet_cli.weights.cards import bundled_names

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def offered(typed: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> list[str]:
    """The completions that bash gets for a line whose last word is incomplete."""
    words = typed.split(" ")
    monkeypatch.setenv("_RESNET_CLI_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_command([])
    assert not ended.value.code
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out.split()


CASES = {
    "resnet-cli tr": ["train"],
    "resnet-cli train quick": ["quickstart"],
    "resnet-cli train he2016/table": [n for n in experiment_names() if "he2016/table" in n],
    "resnet-cli run quickstart veit2016/fig5": ["veit2016/fig5a", "veit2016/fig5b"],
    "resnet-cli show quick": ["quickstart"],
    "resnet-cli signal quick": ["quickstart"],
    "resnet-cli train --profile ": list(PROFILES),
    "resnet-cli train --log ": ["tensorboard", "wandb"],
    "resnet-cli train --device c": ["cpu", "cuda"],
    "resnet-cli run --executor ": ["serial", "ray"],
    "resnet-cli reproduce ": list(PAPERS),
    "resnet-cli compare v": ["veit2016"],
    "resnet-cli eval --checkpoint ": bundled_names(),
    "resnet-cli lesion --dataset cifar": ["cifar10", "cifar100"],
    "resnet-cli lesion --normalize i": ["imagenet"],
    "resnet-cli lesion --engine ": list(get_args(Engine)),
    "resnet-cli paths --estimator i": ["image"],
    "resnet-cli bench training": ["training_110", "training_20"],
    "resnet-cli data ": ["digits", "cifar10", "cifar100"],
    "resnet-cli train mine.ya": [],  # then bash offers files
}


@pytest.mark.parametrize("typed", CASES)
def test_what_is_offered(typed: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    assert offered(typed, monkeypatch, capsys) == CASES[typed]


def test_finished_runs_are_offered_as_checkpoints() -> None:
    for name in ("a", "b"):
        Path("runs", name).mkdir(parents=True)
    Path("runs/b/weights.safetensors").touch()
    assert checkpoint_names() == [*bundled_names(), "runs/b"]


def test_the_papers_are_those_with_claims() -> None:
    assert get_args(Paper) == PAPERS


def test_an_answer_needs_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from resnet_cli.cli import run_command\n"
        "try: run_command([])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'numpy', 'matplotlib', 'scipy', 'rich.table'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    for typed in (
        "train q",
        "train --profile ",
        "eval --checkpoint ",
        "bench ",
        "lesion --engine ",
    ):
        words = {"COMP_WORDS": f"resnet-cli {typed}", "COMP_CWORD": str(len(typed.split(" ")))}
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | words | {"_RESNET_CLI_COMPLETE": "complete_bash"},
        )
        assert done.stderr == ""
        assert len(done.stdout.splitlines()) > 1
        assert done.stdout.splitlines()[-1] == "[]"


def test_installed_for_the_shell_it_is_asked_from() -> None:
    Path("home").mkdir()
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m resnet_cli --install-completion; exit $?"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"HOME": str(Path("home").absolute())},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "bash completion installed in " in done.stdout
    script = Path("home/.bash_completions/resnet-cli.sh")
    assert str(script) in Path("home/.bashrc").read_text()
    assert "_RESNET_CLI_COMPLETE=complete_bash" in script.read_text()
