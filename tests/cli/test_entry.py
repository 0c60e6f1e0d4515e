"""One command line: help, version, JSON, exit codes, and how fast it starts."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from cli_helpers import RESULTS, TRAIN, Captured, environment, refused, summary_of

from resnet_cli import __version__
from resnet_cli.claims.compare import PREFERENCE
from resnet_cli.cli import app, run_command


def test_version_and_help(empty: Path, capsys: Captured) -> None:
    assert run_command(["--version"]) == 0
    assert capsys.readouterr().out == f"resnet-cli {__version__}\n"
    for arguments in (["--help"], ["-h"], ["train", "--help"], ["lesion", "-h"]):
        assert run_command(arguments) == 0
        captured = capsys.readouterr()
        assert "Usage: resnet-cli" in captured.out
        assert captured.err == ""


COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]

QUICK = {
    "train": TRAIN,
    "run": ["run", "quickstart", "--profile", "smoke"],
    "reproduce": ["reproduce", "he2016", "--profile", "smoke", "--shard", "999/999"],
    "compare": ["compare", "he2016", "--profile", "mini", "--results", RESULTS],
    "report": ["report", "--results", RESULTS, "--out", "page.html"],
    "plot": ["plot", f"{RESULTS}/he2016/mini/fig6a/table.csv", "--out", "figures"],
    "eval": ["eval"],
    "examine": ["examine", "preact56-digits", "--images", "20", "--budget", "1s", "--out", "o"],
    "lesion": ["lesion"],
    "paths": ["paths", "--lengths"],
    "signal": ["signal", "--batch-size", "8"],
    "list": ["list"],
    "show": ["show", "veit2016/fig5a"],
    "models": ["models"],
    "data": ["data"],
    "bench": ["bench", "help", "--small", "--repeats", "1"],
    "weights": ["weights"],
}


def test_a_quick_example_of_every_command() -> None:
    assert QUICK.keys() == COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_one_json_line(name: str, work: Path, capsys: Captured) -> None:
    assert any("--json" in parameter.opts for parameter in COMMANDS[name].params)
    assert "NaN" not in json.dumps(summary_of(QUICK[name], capsys))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_page_ends_with_examples(name: str, empty: Path, capsys: Captured) -> None:
    """Each example is a complete command on its own line, with existing options."""
    assert run_command([name, "--help"]) == 0
    page = capsys.readouterr().out
    title, *lines = page.strip().split("\n\n")[-1].splitlines()
    assert title.strip() == "Examples:"
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    for line in lines:
        program, command, *words = shlex.split(line)
        assert (program, command) == ("resnet-cli", name)
        assert {word for word in words if word.startswith("-")} <= options
    assert len(lines) > 1
    assert max(map(len, page.splitlines())) <= 80


DEFAULT_PROFILES = {
    "train": "[default: the first of mini, smoke, cpu, paper that the experiment has]",
    "run": "[default: the first of mini, smoke, cpu, paper that the experiment has]",
    "show": "[default: the first of mini, smoke, cpu, paper that the experiment has]",
    "signal": "[default: the first of mini, smoke, cpu, paper that the experiment has]",
    "reproduce": "[default: mini]",
    "compare": f"[default: the first of {', '.join(PREFERENCE)} that has results]",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_the_default_profile(name: str, empty: Path, capsys: Captured) -> None:
    assert run_command([name, "--help"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert ("--profile" in page) == (name in DEFAULT_PROFILES)
    option = re.split(r"--profile (?:PROFILE|<[^>]*>) ", page, maxsplit=1)[-1].partition(" --")[0]
    assert option.endswith(DEFAULT_PROFILES.get(name, ""))
    if name == "compare":
        assert "another folder" in option


def test_the_list_of_commands_cuts_no_sentence(empty: Path, capsys: Captured) -> None:
    assert run_command(["--help"]) == 0
    page = capsys.readouterr().out
    assert "..." not in page.replace("[ARGS]...", "")
    assert max(map(len, page.splitlines())) <= 80


def test_an_error_is_one_line_whatever_is_in_a_name(work: Path, capsys: Captured) -> None:
    line = refused(["eval", "--checkpoint", "a\n\x1b[31mb/c"], capsys)
    assert line.startswith(r"--checkpoint a\n\x1b[31mb/c: no such file")
    assert "null byte" in refused(["eval", "--checkpoint", "a\0b"], capsys)


def test_a_name_without_any_argument_is_help(empty: Path, capsys: Captured) -> None:
    assert run_command([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Usage: resnet-cli")
    assert "  train " in captured.err
    assert "Traceback" not in captured.err


def test_help_answers_without_torch(empty: Path) -> None:
    script = (
        "import sys; sys.argv = ['resnet-cli', *sys.argv[1:]]\n"
        "from resnet_cli.cli import run_command\n"
        "code = run_command(sys.argv[1:])\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'scipy', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)), code)"
    )
    for arguments in (["--help"], ["train", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(),
        )
        assert done.stderr == ""
        assert done.stdout.splitlines()[-1] == "[] 0"


def test_the_module_is_the_command(empty: Path) -> None:
    command = [sys.executable, "-m", "resnet_cli"]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "Usage: resnet-cli" in done.stdout
    assert "\x1b" not in done.stdout
    done = subprocess.run([*command, "trian"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "fig3"], "he2016/fig3 or veit2016/fig3"),
        (["eval", "preact20-cifar10"], "--checkpoint preact20-cifar10"),
        (["signal", "preact20-cifar10"], "--checkpoint preact20-cifar10"),
        (["lesion", "--checkpoint", "preact20-cifar"], "did you mean 'preact20-cifar10'?"),
        (["train", "--budget", "10"], "--budget '10'"),
        (["lesion", "--budget", "10"], "--budget '10'"),
        (["run", "quickstart", "--profile", "paper"], "has no profile 'paper'"),
        (["paths", "--k", "x"], "--k"),
        (["lesion", "--blocks", "0"], "--blocks: 0 is not valid"),
        (["lesion", "--reorder", "0-3"], "--reorder: 0 is not valid"),
        (["paths", "--device", "gpu"], "--device gpu: use auto, cpu, cuda or cuda:n"),
        (["train", "--device", "gpu"], "--device gpu: use auto, cpu, cuda or cuda:n"),
        (["lesion", "--model", "stride=1"], "did you mean 'strides'?"),
        (["examine", "preact56-digits", "--budget", "10"], "--budget '10'"),
        (["lesion", "--dataset", "mnist"], "unknown data set 'mnist'"),
        (["eval", "--normalize", "imagnet"], "did you mean 'imagenet'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_name_is_refused_before_pytorch_loads(
    arguments: list[str], message: str, empty: Path
) -> None:
    script = (
        "import sys\n"
        "from resnet_cli.cli import run_command\n"
        "code = run_command(sys.argv[1:])\n"
        "print('torch' in sys.modules, code)"
    )
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment())
    assert done.stdout.splitlines()[-1] == "False 2"
    assert message in done.stderr
    assert "Input should" not in done.stderr


@pytest.mark.parametrize(
    ("experiment", "sentence"),
    [
        ("veit2016/fig5a", "1 training on digits, seconds on two cores"),
        ("veit2016/fig7", "no training, seconds on two cores"),
    ],
)
def test_run_says_what_it_will_train_and_for_how_long(
    experiment: str, sentence: str, empty: Path, capsys: Captured
) -> None:
    assert run_command(["run", experiment, "--profile", "smoke", "--budget", "0s"]) == 130
    assert capsys.readouterr().out.splitlines()[0] == f"{experiment} (smoke): {sentence}"


@pytest.mark.parametrize("name", COMMANDS)
def test_output_on_a_full_device_is_one_line(
    name: str, work: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    capsys.readouterr()
    with open(os.open("/dev/full", os.O_WRONLY), "w", closefd=False) as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert run_command(QUICK[name]) == 2
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("resnet-cli: the output cannot be written: No space left")


@pytest.mark.parametrize("arguments", [["models"], ["--help"], ["list", "--json"]], ids=" ".join)
def test_a_full_device_leaves_no_traceback_at_exit(arguments: list[str], empty: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "resnet_cli", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2
    assert "the output cannot be written: No space left" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
