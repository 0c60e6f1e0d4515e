"""The commands run and reproduce: what they run, skip and report."""

import json
from pathlib import Path

import pytest
from cli_helpers import Captured, refused, summary_of

from resnet_cli.cli import run_command
from resnet_cli.config.experiments import load_experiment
from resnet_cli.results.tables import read_table
from resnet_cli.run.experiment import paper_experiments

TINY = """
title: tiny
model: {depth: 8, widths: [2, 4, 8]}
data: {train_images: 64, test_images: 10}
train: {epochs: 1}
"""


def test_reproduce_he2016_smoke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Run every experiment of the paper end to end; the second time nothing is trained."""
    names = paper_experiments("he2016")
    monkeypatch.chdir(tmp_path)
    command = ["reproduce", "he2016", "--profile", "smoke", "--device", "cpu", "--json"]
    assert run_command(command) == 0
    captured = capsys.readouterr()
    (line,) = captured.out.splitlines()
    summary = json.loads(line)
    assert summary["failed"] == {}
    assert summary["not_offered"] == ["he2016/imagenet101", "he2016/table5"]
    assert "he2016/table5: not offered at smoke (it has paper)" in captured.err
    assert sorted(summary["experiments"]) == sorted(set(names) - set(summary["not_offered"]))
    for name in set(summary["experiments"]) - {"he2016/signal"}:
        folder = tmp_path / "results" / "he2016" / "smoke" / name.removeprefix("he2016/")
        for file in ("table.csv", "table.png", "training.csv", "training.png"):
            assert (folder / file).is_file()
    signals = tmp_path / "results" / "he2016" / "smoke" / "signal"
    cases = [case.name for case in load_experiment("he2016/signal", "smoke").cases]
    assert sorted(path.parent.name for path in signals.glob("*/signal.csv")) == sorted(cases)
    assert (signals / "signal.png").is_file()
    assert len(list((tmp_path / "runs").iterdir())) == 30
    comparison = summary["comparisons"]["he2016"]
    measured = {r["source"] for r in comparison["rows"] if r["measured"] is not None}
    assert measured == {"table1", "table2", "table3", "table4"}
    assert {c["source"] for c in comparison["claims"] if c["verdict"] == "not measured"} == {
        "table5",
        "text",
    }
    # The same again: nothing is trained, the same outcome.
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("run.json")}
    assert run_command([*command, "-q"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["comparisons"] == summary["comparisons"]
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("run.json")}


@pytest.mark.parametrize("more", [[], ["--shard", "1/1"]], ids=["here", "shard"])
def test_missing_data_stop_one_experiment_alone(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """A paper with two experiments: one on CIFAR-10, which is missing, and one on digits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESNET_CLI_DATA", str(tmp_path / "nothing"))
    shelf = tmp_path / "experiments" / "he2016"
    shelf.mkdir(parents=True)
    text = TINY + "paper: he2016\nprofiles: {smoke: {}}\nseeds: [0, 1]\n"
    (shelf / "fig6a.yaml").write_text(text)
    (shelf / "table1.yaml").write_text(text.replace("data: {", "data: {dataset: cifar10, "))
    monkeypatch.setattr("resnet_cli.config.experiments.experiments_folder", lambda: shelf.parent)
    command = ["reproduce", "he2016", "--profile", "smoke", "--device", "cpu", "--results", "out"]
    assert run_command([*command, "--json", *more]) == 2
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert list(summary["experiments"]) == ([] if more else ["he2016/fig6a"])
    assert list(summary["failed"]) == ["he2016/table1"]
    assert "resnet-cli: he2016/table1 failed: " in captured.err.splitlines()[-1]
    assert captured.err.count("CIFAR-10 not found") == 2, "when it failed, and at the end"
    assert "he2016/fig6a" not in captured.err.splitlines()[-1]
    assert len(list(Path("runs").glob("*/run.json"))) == 2
    assert Path("out/he2016/smoke/fig6a/table.csv").is_file() == (not more)
    if more:
        assert run_command(["run", "he2016", "--profile", "smoke", *more]) == 2
        assert "2 trainings done, 2 failed" in capsys.readouterr().out


def test_a_shard_of_a_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["reproduce", "he2016", "--profile", "smoke", "--shard", "25/25", "--json"]
    assert run_command(command) == 0
    assert json.loads(capsys.readouterr().out)["experiments"] == {}
    assert len(list(Path("runs").glob("*/run.json"))) == 1


def test_reproduce_stops_at_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["reproduce", "he2016", "--profile", "smoke", "--budget", "0s", "--device", "cpu"]
    assert run_command(command) == 130
    assert "the same command resumes" in capsys.readouterr().err


def test_a_folder_runs_what_has_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    for name, profiles in (("a", "smoke: {}"), ("b", "paper: {}")):
        (tmp_path / f"{name}.yaml").write_text(f"{TINY}profiles: {{{profiles}}}\n")
    monkeypatch.chdir(tmp_path)
    assert run_command(["run", ".", "--profile", "smoke"]) == 0
    assert "b.yaml: not offered at smoke (it has paper)" in capsys.readouterr().out
    assert [path.name for path in Path("results/local").iterdir()] == ["a"]
    assert run_command(["run", ".", "--profile", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "none of these 2 experiments has the profile 'cpu'" in error
    assert run_command(["run", "b.yaml", "--profile", "smoke"]) == 2
    assert "has no profile 'smoke' (it has paper)" in capsys.readouterr().err


def test_run_takes_a_yaml_file_with_a_study(work: Path, capsys: Captured) -> None:
    Path("mine.yaml").write_text(
        "title: Mine\n"
        "model: {depth: 8, widths: [4, 8, 16]}\n"
        "data: {train_images: 64, test_images: 30}\n"
        "train: {iterations: 1, batch_size: 64}\n"
        "study: {kind: delete, k: 1}\n"
    )
    content = summary_of(["run", "mine.yaml", "--out", "mine"], capsys)
    assert read_table(Path("mine/lesion_delete.csv"))["blocks"].tolist() == ["0", "1", "2"]
    assert Path("mine/lesion_delete.csv") in map(Path, content["experiments"]["mine"]["files"])


def test_out_takes_one_experiment(work: Path, capsys: Captured) -> None:
    Path("mine").mkdir()
    for name in ("a", "b"):
        Path(f"mine/{name}.yaml").write_text("title: T\nmodel: {depth: 8}\ntrain: {epochs: 1}\n")
    line = refused(["run", "mine", "--out", "x"], capsys)
    assert line.startswith("--out needs a single experiment")
