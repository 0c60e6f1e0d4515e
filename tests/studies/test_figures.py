"""Paper 2's experiments: every file resolves, all of them run at smoke, and options by hand."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from resnet_cli.claims.judge import judge_all
from resnet_cli.claims.veit2016 import CLAIMS
from resnet_cli.claims.words import evidence, judgement_to_dict
from resnet_cli.cli import run_command
from resnet_cli.config.experiments import experiment_names, find_experiment
from resnet_cli.config.experiments import load_experiment as load
from resnet_cli.config.schema import PROFILES, Experiment
from resnet_cli.models.factory import build
from resnet_cli.results.tables import is_pair, read_provenance, read_table
from resnet_cli.runtime.errors import UserError

NAMES = [name for name in experiment_names() if name.startswith("veit2016/")]
ONLY_PAPER = {"veit2016/fig4"}
"""Needs ImageNet, so it has no smaller profile."""
RUNNABLE = [name for name in NAMES if name not in ONLY_PAPER]
EXPERIMENTS = [
    (name, profile)
    for name in NAMES
    for profile in PROFILES
    if name in RUNNABLE or profile == "paper"
]
Captured = pytest.CaptureFixture[str]


# --- the files -----------------------------------------------------------------------------------


def test_no_figure_is_missing() -> None:
    figures = {"fig3", "fig4", "fig5a", "fig5b", "fig6", "fig7", "fig8", "effective_paths"}
    beyond = {"highway_lesion", "highway_paths", "greedy", "additivity"}
    beyond |= {"recalibration", "stage_change"}
    beyond |= {"influence", "iterative", "effects", "shortest_paths"}
    assert {name.removeprefix("veit2016/") for name in NAMES} == figures | beyond


@pytest.mark.parametrize("name", NAMES)
def test_a_file_opens_as_a_document(name: str) -> None:
    text = find_experiment(name).read_text(encoding="utf-8")
    opening = text.split("\nextends:")[0].split("\ntitle:")[0]
    assert all(line.startswith("#") for line in opening.splitlines())
    starts = re.findall(r"^# (\w+):", opening, re.MULTILINE)
    assert starts[:2] == ["Paper", "Command"]
    experiment = load(name)
    assert experiment.question
    assert experiment.time
    assert experiment.published
    assert f"resnet-cli run {name} --profile" in opening
    assert "arXiv:1605.06431" in opening
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize(("name", "profile"), EXPERIMENTS)
def test_every_file_resolves_at_each_profile(name: str, profile: str) -> None:
    experiment = load(name, profile)
    assert experiment.paper == "veit2016"
    assert experiment.note
    for _, run in experiment.runs():
        with torch.device("meta"):
            network = build(run.model, 10)
        if profile != "smoke" and run.model.family == "resnet" and name in RUNNABLE:
            assert len(network.units) == 54
        if run.train.active_units is not None:
            assert run.train.active_units < len(network.units)
        if profile == "mini":
            assert (run.data.dataset, run.data.test_images) == ("digits", None)
        if profile == "paper" and name in RUNNABLE:
            assert run.train.iterations == 64000
            assert run.train.milestones == (32000, 48000)
            assert (run.train.batch_size, run.train.batch_norm_group) == (128, 64)
            assert (run.data.dataset, run.data.normalize, run.data.pad) == ("cifar10", "pixel", 4)


@pytest.mark.parametrize("profile", PROFILES)
def test_equal_trainings_are_one_run(profile: str) -> None:
    """One network, trained once, serves every figure that asks about it."""
    plain = {
        run.hash
        for name in RUNNABLE
        for case, run in load(name, profile).runs()
        if run.seed == 0 and case.name in ("main", "plain", "full", "preact110")
    }
    assert len(plain) == 1
    highway = [
        {run.hash for _, run in load(f"veit2016/highway_{what}", profile).runs()}
        for what in ("lesion", "paths")
    ]
    assert highway[0] == highway[1]
    assert len(highway[0]) == 3 * len(load("veit2016/highway_paths", profile).seeds)


def test_imagenet_has_no_smaller_profile() -> None:
    with pytest.raises(UserError, match=r"fig4.yaml: has no profile 'mini' \(it has paper\)"):
        load("veit2016/fig4", "mini")
    (_, run), *_ = load("veit2016/fig4", "paper").runs()
    with torch.device("meta"):
        assert len(build(run.model, 1000).units) == 66


def test_every_claim_has_its_experiment() -> None:
    assert {f"veit2016/{name}" for claim in CLAIMS for name in claim.needs} <= set(NAMES)


# --- all of them at smoke ------------------------------------------------------------------------


@dataclass(frozen=True)
class Smoke:
    """What one `run` of all experiments left behind."""

    folder: Path
    """Holds runs/ and results/."""
    summary: dict[str, Any]

    @property
    def results(self) -> Path:
        return self.folder / "results" / "veit2016" / "smoke"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smoke]:
    """All experiments at smoke, by one command, in a folder of their own."""
    folder = tmp_path_factory.mktemp("smoke")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        spoken: list[str] = []
        patch.setattr(
            "resnet_cli.runtime.display.Display.summary",
            lambda self, content: spoken.append(json.dumps(content)),
        )
        assert run_command(["run", *RUNNABLE, "--profile", "smoke", "-q"]) == 0
    yield Smoke(folder, json.loads(spoken[-1]))
    shutil.rmtree(folder, ignore_errors=True)


def experiment(name: str) -> Experiment:
    return load(f"veit2016/{name}", "smoke")


def test_each_run_is_trained_once(smoke: Smoke) -> None:
    asked = {
        run.folder
        for name in RUNNABLE
        if name != "veit2016/fig7"
        for _, run in load(name, "smoke").runs()
    }
    assert {path.name for path in (smoke.folder / "runs").iterdir()} == asked
    assert len(asked) == 9  # stage_change trains a network with projections


FILES = {
    "fig3": [
        "lesion_single.png",
        "preact110/lesion_delete.csv",
        "preact110/lesion_single.png",
        "vgg15/lesion_delete.csv",
        "vgg15/lesion_single.png",
    ],
    "fig5a": ["lesion_count.png", "lesion_delete.csv", "lesion_single.png"],
    "fig5b": ["lesion_reorder.csv", "lesion_reorder.png"],
    "fig6": [
        "path_gradients.csv",
        "path_lengths.csv",
        "path_spectrum.csv",
        "path_spectrum.png",
        "paths.png",
    ],
    "fig7": ["path_survival.csv", "path_survival.png"],
    "fig8": [
        "lesion_single.png",
        "plain/lesion_delete.csv",
        "plain/lesion_single.png",
        "stochastic-depth/lesion_delete.csv",
        "stochastic-depth/lesion_single.png",
    ],
    "effective_paths": ["table.csv", "table.png", "training.csv", "training.png"],
    "greedy": ["lesion_delete.csv", "lesion_greedy.csv", "lesion_greedy.png"],
    "additivity": ["lesion_additivity.csv", "lesion_additivity.png"],
    "influence": ["influence.csv", "influence.png"],
    "iterative": ["iterative.csv", "iterative.png"],
    "effects": ["effects.csv", "effects.png"],
    "shortest_paths": ["path_cumulative.csv", "path_cumulative.png", "path_spectrum.csv"],
}


@pytest.mark.parametrize("name", FILES)
def test_an_experiment_writes_its_tables_and_plots(smoke: Smoke, name: str) -> None:
    folder = smoke.results / name
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert set(FILES[name]) <= {file for file in found if not file.endswith(".json")}
    assert all(is_pair(folder / file) for file in found if file.endswith(".csv"))
    written = smoke.summary["experiments"][f"veit2016/{name}"]["files"]
    assert set(written) >= {
        f"results/veit2016/smoke/{name}/{file}" for file in FILES[name] if file.endswith(".csv")
    }


def test_the_deletions_are_those_asked_for(smoke: Smoke) -> None:
    vgg = read_table(smoke.results / "fig3" / "vgg15" / "lesion_delete.csv")
    assert vgg["blocks"].tolist() == [str(layer) for layer in range(9)]
    count = read_table(smoke.results / "fig5a" / "lesion_delete.csv")
    assert count.groupby("k").size().to_dict() == {1: 9, 2: 5, 3: 5, 4: 5}
    assert set(count["images"]) == {100}
    single = read_table(smoke.results / "fig3" / "preact110" / "lesion_delete.csv")
    assert count[count["k"] == 1]["test_error"].tolist() == single["test_error"].tolist()


def test_the_exact_spectrum_is_beside_the_sampled_one(smoke: Smoke) -> None:
    for case in ("../fig6", "identity", "exclusive-gating", "shortcut-gating"):
        frame = read_table(smoke.results / "highway_paths" / case / "path_spectrum.csv")
        assert frame["k"].tolist() == list(range(10))
        assert (frame["exact_norm"] > 0).all()
        assert frame["share_total"].sum() == pytest.approx(1)


def test_paths_left_are_arithmetic(smoke: Smoke) -> None:
    frame = read_table(smoke.results / "fig7" / "path_survival.csv")
    left = frame.groupby("deleted")["remaining"].sum()
    assert left.to_dict() == {1: 2**8, 3: 2**6, 5: 2**4}
    assert read_provenance(smoke.results / "fig7" / "path_survival.csv")["checkpoint"] is None


def test_the_cases_of_section_4_3(smoke: Smoke) -> None:
    table = read_table(smoke.results / "effective_paths" / "table.csv").set_index("case")
    assert table["paper_error"].fillna(-1).to_dict() == {
        "full": 6.10,
        "active-23": 5.96,
        "active-24": -1,
    }


def test_greedy_is_chosen_on_training_images_and_measured_on_test_images(smoke: Smoke) -> None:
    path = smoke.results / "greedy" / "lesion_greedy.csv"
    assert read_table(path)["k"].tolist() == [1, 2, 3]
    assert set(read_provenance(path)["data"]) == {"digits/test", "digits/train"}
    facts = smoke.summary["experiments"]["veit2016/greedy"]["main"]
    assert facts["chosen_on"] == "train"
    assert set(facts["mean_random_error_by_k"]) == {"1", "2", "3"}


def test_the_second_time_nothing_is_done(smoke: Smoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(smoke.folder)
    watched = [*smoke.results.rglob("*.csv"), *(smoke.folder / "runs").rglob("*")]
    before = {path: path.stat().st_mtime_ns for path in watched if path.name != "path_lengths.csv"}
    names = ["veit2016/fig8", "veit2016/greedy", "veit2016/additivity", "veit2016/fig5b"]
    assert run_command(["run", *names, "--profile", "smoke", "-q"]) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_claims_are_judged_from_the_files(smoke: Smoke) -> None:
    judged = judge_all("veit2016", smoke.results, "smoke")
    missing = [one for one in judged if one.verdict == "not measured"]
    assert all(one.commands or one.reason for one in missing)
    measured = [one for one in judged if one not in missing]
    assert measured
    assert all(evidence(one) for one in measured)
    by_source = {one.claim.source: one.verdict for one in judged}
    assert by_source["fig7"] == "holds"
    assert by_source["fig4"] == "not measured"
    json.dumps([judgement_to_dict(one) for one in judged], allow_nan=False)


# --- the options by hand -------------------------------------------------------------------------


@pytest.fixture
def network(smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The plain network of the smoke runs, seen from an empty folder."""
    _, run = experiment("fig5a").runs()[0]
    monkeypatch.chdir(tmp_path)
    return str(smoke.folder / "runs" / run.folder)


def lesion(network: str, *options: str) -> list[str]:
    return ["lesion", "--checkpoint", network, "--images", "50", "--out", "a", *options]


def summary(arguments: list[str], capsys: Captured) -> dict[str, Any]:
    assert run_command([*arguments, "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_greedy_by_hand(network: str, capsys: Captured) -> None:
    content = summary(lesion(network, "--greedy", "3", "--samples", "2"), capsys)
    frame = read_table(Path("a/lesion_greedy.csv"))
    assert frame["unit"].tolist() == content["order"]
    assert len(set(content["order"])) == 3
    assert content["chosen_on"] == "test"
    random = read_table(Path("a/lesion_delete.csv"))
    assert random.groupby("k").size().to_dict() == {1: 9, 2: 2, 3: 2}
    singles = random[random["k"] == 1]["test_error"]
    assert frame["test_error"].iloc[0] == singles.min()
    assert Path("a/lesion_greedy.png").exists()


def test_additivity_by_hand(network: str, capsys: Captured) -> None:
    arguments = lesion(network, "--additivity", "2-3", "--samples", "6")
    content = summary(arguments, capsys)
    frame = read_table(Path("a/lesion_additivity.csv"))
    assert frame.groupby("k").size().to_dict() == {2: 6, 3: 6}
    expected = frame["joint_loss_damage"].corr(frame["summed_loss_damage"])
    assert content["correlation"]["pearson_loss"] == pytest.approx(expected)
    assert run_command(arguments) == 0
    assert "correlation of joint with summed damage: pearson, error" in capsys.readouterr().out


def test_per_class_by_hand(network: str, capsys: Captured) -> None:
    assert run_command(lesion(network, "--only", "1,2", "--per-class")) == 0
    frame = read_table(Path("a/lesion_classes.csv"))
    assert frame["class_name"].tolist() == [str(digit) for digit in range(10)]
    assert frame["images"].sum() == 50
    assert set(frame["blocks"]) == {"1 2"}
    assert "by class" in capsys.readouterr().out
    assert Path("a/lesion_classes.png").exists()


def test_per_class_is_measured_though_the_deletions_are_there(network: str) -> None:
    assert run_command(lesion(network, "--blocks", "1")) == 0
    assert run_command(lesion(network, "--blocks", "1", "--per-class")) == 0
    assert len(read_table(Path("a/lesion_classes.csv"))) == 90


def test_ranked_shows_the_worst_first(network: str, capsys: Captured) -> None:
    assert run_command(lesion(network, "--blocks", "1", "--ranked")) == 0
    shown = re.findall(r"│\s*(\d)\s*│ stage \d[^│]*│\s*([\d.]+) │", capsys.readouterr().out)
    errors = [float(error) for _, error in shown]
    assert len(errors) == 9
    assert errors == sorted(errors, reverse=True)
    assert Path("a/lesion_ranked.png").exists()
    frame = read_table(Path("a/lesion_delete.csv"))
    assert frame["blocks"].tolist() == [str(unit) for unit in range(9)]  # the table is not sorted


def test_ranked_draws_of_several_sizes(network: str, capsys: Captured) -> None:
    assert run_command(lesion(network, "--blocks", "1-9", "--samples", "8", "--ranked")) == 0
    assert "the worst 60 of 73" in " ".join(capsys.readouterr().out.split())


BAD = {
    "greedy too many": (["--greedy", "99"], "--greedy 99: this network has 9 units, so 1 to 9"),
    "greedy none": (["--greedy", "0"], "--greedy"),
    "greedy word": (["--greedy", "few"], "--greedy"),
    "additivity of one": (["--additivity", "1-3"], "--additivity: k must be 2 or more"),
    "additivity word": (["--additivity", "x"], "--additivity: 'x' is not a range; write 3, 1-20"),
    "additivity too many": (["--additivity", "2,12"], "12 units cannot be deleted"),
    "two studies": (["--greedy", "2", "--blocks", "1"], "exclude each other; give one"),
    "two more": (["--additivity", "2", "--reorder", "1"], "exclude each other; give one"),
    "classes of orders": (["--reorder", "1", "--per-class"], "--per-class goes with --blocks or"),
    "ranked greedy": (["--greedy", "2", "--ranked"], "--ranked goes with --blocks or --only"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_line(name: str, network: str, capsys: Captured) -> None:
    options, words = BAD[name]
    assert run_command(lesion(network, *options)) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert len(error.splitlines()) == 1
    assert not Path("a").exists()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("study={kind: additivity, k: 1-3}", r"study: k must be 2 or more"),
        ("study={kind: greedy, max_units: 0}", r"study\.max_units: .*greater than 0"),
        ("study={kind: greedy, choose_on: validation}", r"choose_on: .*'test' or 'train'"),
        ("study={kind: path_survival, deleted: many}", r"deleted: 'many' is not a range"),
        ("study={kind: delete, per_class: 1}", r"per_class: must be true or false"),
    ],
)
def test_bad_studies_are_named(setting: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load("quickstart", "smoke", [setting])


def test_more_deleted_than_there_are(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["run", "veit2016/fig7", "--profile", "smoke", "--set", "study.deleted=10"]
    assert run_command(arguments) == 2
    assert "10 units cannot be deleted; this network has 9 units" in capsys.readouterr().err
    assert not Path("results").exists()
