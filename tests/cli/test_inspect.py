"""The commands that show what is available: list, show, models, data, weights, bench."""

import re
from pathlib import Path

import yaml
from cli_helpers import Captured, cells_of, refused, summary_of

from resnet_cli.cli import run_command
from resnet_cli.config.experiments import experiment_names, load_experiment


def test_list_names_every_experiment(empty: Path, capsys: Captured) -> None:
    content = summary_of(["list"], capsys)
    assert list(content["experiments"]) == experiment_names()
    assert content["experiments"]["quickstart"]
    for name, profiles in content["profiles"].items():
        assert profiles
        for about in profiles.values():
            assert about["dataset"]
            assert about["time"], name
    assert run_command(["list"]) == 0
    assert "quickstart" in capsys.readouterr().out


def test_show_is_the_resolved_configuration(empty: Path, capsys: Captured) -> None:
    arguments = ["show", "quickstart", "--profile", "smoke", "--set", "train.lr=0.25"]
    content = summary_of(arguments, capsys)
    expected = load_experiment("quickstart", "smoke", ["train.lr=0.25"], None)
    assert content["config"] == expected.model_dump(mode="json")
    assert content["hash"] == expected.hash
    assert run_command(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"# hash {expected.hash}\n")
    assert "\n  lr: 0.25\n" in out


def test_data_says_what_was_found(empty: Path, capsys: Captured) -> None:
    content = summary_of(["data"], capsys)
    assert content["found"] == ["digits"]
    assert {place["dataset"] for place in content["places"]} == {"digits", "cifar10", "cifar100"}
    assert run_command(["data", "digits"]) == 0
    assert "found" in capsys.readouterr().out


def test_models_lists_the_papers_networks(empty: Path, capsys: Captured) -> None:
    content = summary_of(["models"], capsys)
    by_name = {row["network"]: row for row in content["models"]}
    assert by_name["preact110"]["units"] == 54
    assert by_name["preact110"]["parameters"] == 1_727_962


def test_before_each_benchmark_it_says_what_is_left(empty: Path, capsys: Captured) -> None:
    arguments = ["bench", "help", "batch_preparation", "--small", "--repeats", "1"]
    assert run_command(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("1 of 2: preparing a batch")
    assert re.fullmatch(r"2 of 2, about \d+ s left: resnet-cli --help", lines[3])


def test_the_card_of_bundled_weights(empty: Path, capsys: Captured) -> None:
    content = summary_of(["weights", "preact56-digits"], capsys)
    (card,) = content["weights"]
    assert card["name"] == "preact56-digits"
    assert run_command(["weights", "preact56-digits"]) == 0
    out = capsys.readouterr().out
    for part in (
        "27 units",
        f"{card['parameters']:,}",
        "digits, normalised by channel",
        f"{card['test_error']:.2f} % on 360 images",
        "15 epochs",
        card["command"],
        card["commit"],
        card["sha256"],
    ):
        assert part in out
    assert "momentum" not in out
    assert run_command(["weights", "preact56-digits", "-v"]) == 0
    longer = capsys.readouterr().out
    assert longer.startswith(out)
    assert yaml.safe_load(longer.removeprefix(out)) == card["run"]
    line = refused(["weights", "preact56-digit"], capsys)
    assert "did you mean 'preact56-digits'?" in line


def test_an_unusual_width_is_named(empty: Path, capsys: Captured) -> None:
    assert run_command(["weights"]) == 0
    narrow = [row for row in cells_of(capsys.readouterr().out) if "wide" in row[1]]
    assert [row[:2] for row in narrow] == [["vgg15-cifar10", "vgg15, 24-176 wide"]]
    for name, width in (("vgg15-cifar10", "24-176 wide"), ("preact20-cifar10", "")):
        refused(["lesion", "--checkpoint", name, "--data-dir", "nowhere"], capsys)
        run_command(["lesion", "--checkpoint", name, "--data-dir", "nowhere"])
        assert width in (line := capsys.readouterr().out.splitlines()[0])
        assert ("wide" in line) == bool(width)


def test_data_says_in_a_row_what_is_nowhere(empty: Path, capsys: Captured) -> None:
    assert run_command(["data"]) == 0
    short = capsys.readouterr().out
    assert short.count("cifar10 ") == 1
    assert "-v names them" in short
    assert run_command(["data", "-v"]) == 0
    assert capsys.readouterr().out.count("cifar10 ") > 1
    assert run_command(["data", "cifar10"]) == 0
    assert capsys.readouterr().out.count("missing") > 1
