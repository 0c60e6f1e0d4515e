"""A result's provenance alone suffices to have the result again."""

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from pandas.testing import assert_frame_equal
from safetensors.torch import load

from resnet_cli.cli import run_command
from resnet_cli.config.experiments import experiment_names, experiment_profiles, load_experiment
from resnet_cli.config.schema import Experiment, config_hash
from resnet_cli.results.provenance import collect
from resnet_cli.results.tables import read_provenance, read_table
from resnet_cli.run.rerun import CommandStudy, check_data, read_spec
from resnet_cli.runtime.errors import UserError
from resnet_cli.training.context import Context

Captured = pytest.CaptureFixture[str]
RESULTS = Path(__file__).parents[2] / "results"
COMMITTED = sorted(RESULTS.rglob("*.provenance.json"))

YAML = """
title: two
model: {depth: 8, widths: [2, 4, 8]}
data: {train_images: 64, test_images: 20}
train: {epochs: 1, batch_size: 64, schedule: one_cycle}
cases: [{name: one}, {name: two, train: {lr: 0.05}}]
"""


@pytest.mark.parametrize("name", experiment_names())
def test_an_experiment_survives_its_own_description(name: str) -> None:
    for profile in experiment_profiles(name):
        experiment = load_experiment(name, profile)
        again = Experiment.model_validate(experiment.model_dump(mode="json"))
        readers_own = dict.fromkeys(("question", "published", "time", "decides_below"))
        assert again == experiment.model_copy(update=readers_own)
        assert [run.hash for _, run in again.runs()] == [run.hash for _, run in experiment.runs()]


@pytest.mark.parametrize(
    ("study", "result"),
    [("", "table"), ("study: {kind: delete, k: 1}\n", "one/lesion_delete")],
    ids=["trainings", "study"],
)
def test_an_experiment_again_in_an_empty_folder(
    study: str, result: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The YAML is gone; a shard trains its share, and the table comes out the same."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    monkeypatch.chdir(first)
    Path("two.yaml").write_text(YAML + study)
    assert run_command(["run", "two.yaml"]) == 0
    table = Path(f"results/local/two/mini/{result}.csv")
    expected = table.read_bytes()
    shutil.copy(table.with_suffix(".provenance.json"), second / "kept.provenance.json")
    monkeypatch.chdir(second)
    assert run_command(["run", "kept.provenance.json", "--shard", "2/2"]) == 0
    assert len(list(Path("runs").iterdir())) == 1
    assert not table.exists()
    assert run_command(["run", "kept.provenance.json"]) == 0
    assert table.read_bytes() == expected


def test_signals_of_an_initialisation_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured untrained is not trained to be measured again."""
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text(YAML)
    assert run_command(["signal", "two.yaml", "--out", "first"]) == 0
    provenance = "first/two/signal.provenance.json"
    assert run_command(["run", provenance, "--out", "second"]) == 0
    for case in ("one", "two"):
        again = Path(f"second/{case}/signal.csv").read_bytes()
        assert again == Path(f"first/{case}/signal.csv").read_bytes()
    assert not Path("runs").exists()


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an experiment on two networks, of which one is bundled."""
    folder, weights = tmp_path / "first", tmp_path / "weights"
    folder.mkdir()
    weights.mkdir()
    monkeypatch.chdir(folder)
    Path("two.yaml").write_text(YAML)
    assert run_command(["train", "two.yaml", "--seed", "0"]) == 0
    case_one = next(run for run in Path("runs").iterdir() if '"lr": 0.1' in _description(run))
    monkeypatch.setattr("resnet_cli.weights.cards.bundled_folder", lambda: weights)
    bundle = ["weights", "--export", str(case_one), "--name", "tiny", "--out", str(weights)]
    assert run_command(bundle) == 0
    shutil.rmtree("runs")
    shutil.rmtree("results")
    Path("two.yaml").write_text(YAML + "study: {kind: delete, k: 1, images: 10}\n")
    return folder


def _description(run: Path) -> str:
    return (run / "run.json").read_text()


def test_bundled_weights_in_place_of_their_training(bundled: Path, capsys: Captured) -> None:
    assert run_command(["run", "two.yaml", "--pretrained", "--shard", "1/2"]) == 0
    assert run_command(["run", "two.yaml", "--pretrained", "--shard", "2/2"]) == 0
    (trained,) = Path("runs").iterdir()
    assert '"lr": 0.05' in _description(trained), "only the other case is trained"
    assert run_command(["run", "two.yaml", "--pretrained"]) == 0
    assert "one, seed 0: bundled weights tiny" in capsys.readouterr().out
    assert list(Path("runs").iterdir()) == [trained]
    tables = [Path(f"results/local/two/mini/{case}/lesion_delete.csv") for case in ("one", "two")]
    checkpoints = [read_provenance(table)["checkpoint"]["source"] for table in tables]
    assert checkpoints == ["tiny", str(trained)]
    by_hand = ["lesion", "--blocks", "1", "--images", "10", "--checkpoint", "tiny"]
    assert run_command([*by_hand, "--out", "typed"]) == 0
    assert Path("typed/lesion_delete.csv").read_bytes() == tables[0].read_bytes()
    shutil.move(tables[0].with_suffix(".provenance.json"), "kept.provenance.json")
    shutil.rmtree("results")
    shutil.rmtree("runs")
    assert run_command(["run", "kept.provenance.json"]) == 0
    assert tables[0].read_bytes() == Path("typed/lesion_delete.csv").read_bytes()
    assert len(list(Path("runs").iterdir())) == 1


def test_what_is_not_bundled_is_trained(bundled: Path) -> None:
    assert run_command(["run", "two.yaml", "--pretrained", "--seed", "1"]) == 0
    assert run_command(["run", "two.yaml"]) == 0
    assert len(list(Path("runs").iterdir())) == 4
    assert run_command(["train", "two.yaml"]) == 0, "training trains"


def test_bundled_weights_stand_for_their_training_in_tables(bundled: Path) -> None:
    """The table and the curves of a training are those of its card."""
    Path("two.yaml").write_text(YAML)
    assert run_command(["train", "two.yaml", "--out", "trained"]) == 0
    shutil.rmtree("runs")
    assert run_command(["run", "two.yaml", "--pretrained"]) == 0
    (trained,) = Path("runs").iterdir()
    assert '"lr": 0.05' in _description(trained)
    folder = Path("results/local/two/mini")
    times = ["images_per_second", "seconds"]
    for stem in ("table", "training"):
        both = [read_table(at / f"{stem}.csv") for at in (Path("trained"), folder)]
        expected, found = (frame.drop(columns=times, errors="ignore") for frame in both)
        assert_frame_equal(found, expected)
    assert (folder / "training.png").exists()
    assert read_provenance(folder / "table.csv")["checkpoint"]["source"] == "tiny"
    shutil.move(folder / "table.provenance.json", "kept.provenance.json")
    shutil.rmtree("runs")
    assert run_command(["run", "kept.provenance.json"]) == 0
    assert len(list(Path("runs").iterdir())) == 1


def test_a_card_with_only_the_last_epoch(bundled: Path) -> None:
    """As those of the first bundles do."""
    Path("two.yaml").write_text(YAML)
    path = bundled.parent / "weights/tiny.json"
    card = json.loads(path.read_text())
    del card["training"]
    path.write_text(json.dumps(card))
    assert run_command(["run", "two.yaml", "--pretrained"]) == 0
    table = read_table(Path("results/local/two/mini/table.csv")).set_index("case")
    assert table.loc["one", "test_error"] == card["test_error"]
    assert table.loc["one", "params"] == table.loc["two", "params"]
    training = read_table(Path("results/local/two/mini/training.csv"))
    (last,) = training[training["case"] == "one"].to_dict("records")
    assert (last["epoch"], last["iteration"]) == (card["epochs"], card["iterations"])


def test_bundled_weights_of_another_precision(bundled: Path, capsys: Captured) -> None:
    """Precision says how a device computes, not what is trained."""
    wanted = ["run", "two.yaml", "--pretrained", "--set", "train.precision=float32"]
    assert run_command(wanted) == 0
    assert "one, seed 0: bundled weights tiny" in capsys.readouterr().out
    assert run_command(["run", "two.yaml", "--pretrained", "--set", "train.momentum=0.8"]) == 0
    assert "bundled weights" not in capsys.readouterr().out


def test_a_damaged_card_is_named(bundled: Path, capsys: Captured) -> None:
    (bundled.parent / "weights/tiny.json").write_text('{"run": {}}')
    assert run_command(["run", "two.yaml", "--pretrained"]) == 2
    assert "tiny.json: the model card is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["lesion", "--blocks", "1", "--images", "20"],
        ["lesion", "--only", "3,5", "--images", "20"],
        ["lesion", "--reorder", "1-2", "--samples", "2", "--images", "20", "--seed", "4"],
        ["paths", "--k", "1-2", "--samples", "2", "--batch-size", "4", "--batch-statistics"],
        ["signal", "--batch-size", "4"],
        ["lesion", "--engine", "plain", "--blocks", "1", "--images", "20"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_typed_study_again(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command([*command, "--checkpoint", "preact56-digits", "--out", "first"]) == 0
    table = sorted(Path("first").glob("*.csv"))[0]
    provenance = table.with_suffix(".provenance.json")
    assert run_command(["run", str(provenance), "--out", "second"]) == 0
    again = Path("second") / table.name
    assert again.read_bytes() == table.read_bytes()
    assert read_provenance(again)["config"] == read_provenance(table)["config"]
    assert run_command(["run", str(provenance), "--shard", "1/2"]) == 2
    assert "leave out --shard and --executor" in capsys.readouterr().err


def test_other_weights_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text(YAML)
    assert run_command(["train", "two.yaml"]) == 0
    one, two = sorted(Path("runs").iterdir())
    weights = shutil.copy(one / "weights.safetensors", "mine.safetensors")
    assert run_command(["lesion", "--checkpoint", str(weights), "--out", "first"]) == 0
    shutil.copy(two / "weights.safetensors", weights)
    assert run_command(["run", "first/lesion_delete.provenance.json"]) == 2
    assert "restore the original file" in capsys.readouterr().err


# --- what it was measured on, and how ------------------------------------------------------------

SIZES = """
title: two sizes of one data set
model: {depth: 8, widths: [2, 4, 8]}
data: {test_images: 20}
train: {epochs: 1, batch_size: 64, schedule: one_cycle}
cases: [{name: one, data: {train_images: 64}}, {name: two, data: {train_images: 32}}]
"""


def alter(provenance: Path, name: str) -> str:
    """Record other data of this name; returns the fingerprint that was there."""
    content = json.loads(provenance.read_text())
    fingerprint: str = content["data"][name]
    content["data"][name] = "0123456789abcdef" * 4
    provenance.write_text(json.dumps(content))
    return fingerprint


def refused_data(provenance: Path, name: str, capsys: Captured) -> str:
    """The line of a run that is refused for its data; nothing is written."""
    fingerprint = alter(provenance, name)
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert run_command(["run", str(provenance)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for fact in (f" {name} ", " 0123456789ab…", f" {fingerprint[:12]}…"):
        assert fact in line
    assert sorted(Path().rglob("*")) == before
    return line


STUDY = YAML + "study: {kind: delete, k: 1, images: 10}\n"


@pytest.mark.parametrize(
    ("yaml", "name"),
    [
        (YAML, "digits/train"),
        (YAML, "digits/test"),
        (SIZES, "digits/train"),
        (SIZES, "digits/test"),
        (STUDY, "digits/test"),
    ],
)
def test_other_data_are_refused(
    yaml: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text(yaml)
    assert run_command(["run", "two.yaml"]) == 0
    table = sorted(Path("results").rglob("*.csv"))[-1]
    shutil.copy(table.with_suffix(".provenance.json"), "kept.provenance.json")
    assert run_command(["run", "kept.provenance.json"]) == 0
    if yaml != STUDY:  # the table would be that of the runs that are there
        assert "was trained on these data" in refused_data(
            Path("kept.provenance.json"), name, capsys
        )
        shutil.copy(table.with_suffix(".provenance.json"), "kept.provenance.json")
    shutil.rmtree("runs")
    shutil.rmtree("results")
    line = refused_data(Path("kept.provenance.json"), name, capsys)
    assert line.endswith("install the version recorded in the file")


def test_other_data_of_a_typed_study_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["paths", "--k", "1", "--samples", "1", "--batch-size", "2", "--out", "first"]
    assert run_command([*command, "--checkpoint", "preact56-digits"]) == 0
    refused_data(Path("first/path_gradients.provenance.json"), "digits/train", capsys)
    arithmetic = Path("first/path_lengths.provenance.json")
    assert json.loads(arithmetic.read_text())["data"] == {}
    assert isinstance(read_spec(arithmetic).work, CommandStudy)


def test_bundled_weights_of_other_data_are_refused(bundled: Path, capsys: Captured) -> None:
    assert run_command(["run", "two.yaml", "--pretrained", "--set", "study=null"]) == 0
    table = Path("results/local/two/mini/table.provenance.json")
    content = json.loads(table.read_text())
    content["config"]["cases"] = content["config"]["cases"][:1]
    content["config_hash"] = config_hash(content["config"])
    Path("kept.provenance.json").write_text(json.dumps(content))
    line = refused_data(Path("kept.provenance.json"), "digits/train", capsys)
    assert line.endswith("; the bundled weights tiny were trained on these data")


def test_data_that_the_configuration_does_not_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    write_provenance(EXPERIMENT, data={"cifar10/test": "0" * 64})
    assert run_command(["run", "x.provenance.json"]) == 2
    assert "'cifar10/test', but its configuration uses" in capsys.readouterr().err


def test_the_engine_of_an_experiments_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_provenance(EXPERIMENT | {"study": {"kind": "delete"}, "engine": "plain"})
    assert read_spec(Path("x.provenance.json")).engine == "plain"
    write_provenance(EXPERIMENT | {"study": {"kind": "delete"}})
    assert read_spec(Path("x.provenance.json")).engine == "fast"


def test_deterministic_kernels_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text(YAML)
    told = []
    try:
        for options in ([], ["--deterministic"]):
            shutil.rmtree("results", ignore_errors=True)
            assert run_command(["run", "two.yaml", *options]) == 0
            table = Path("results/local/two/mini/table.csv")
            shutil.copy(table.with_suffix(".provenance.json"), "kept.provenance.json")
            assert run_command(["run", "kept.provenance.json", "--out", "again"]) == 0
            both = [read_provenance(path) for path in (table, Path("again/table.csv"))]
            told.append([one["platform"]["deterministic"] for one in both])
    finally:
        torch.use_deterministic_algorithms(False)
    assert told == [[False, False], [True, True]]


def test_a_single_training_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the provenance in the folder of a run."""
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text(YAML)
    assert run_command(["train", "two.yaml"]) == 0
    folder = sorted(Path("runs").iterdir())[0]
    weights, rows = (
        (folder / "weights.safetensors").read_bytes(),
        read_table(folder / "training.csv"),
    )
    run = json.loads(_description(folder))
    shutil.copy(folder / "training.provenance.json", "kept.provenance.json")
    shutil.rmtree("runs")
    shutil.rmtree("results")
    assert run_command(["run", "kept.provenance.json"]) == 0
    assert list(Path("runs").iterdir()) == [folder], "this one only"
    again = json.loads(_description(folder))
    assert (again["hash"], again["data"]) == (run["hash"], run["data"])
    other = ["experiment", "case", "images_per_second", "seconds"]
    table = Path("results/local") / folder.name / "mini/training.csv"
    for path in (folder / "training.csv", table):
        assert_frame_equal(read_table(path).drop(columns=other), rows.drop(columns=other))
    tensors = [
        load(content) for content in (weights, (folder / "weights.safetensors").read_bytes())
    ]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


# --- what is read --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nothing_trained(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return Context(torch.device("cpu"), runs=tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: str(path.relative_to(RESULTS)))
def test_committed_provenance_can_be_run(path: Path, nothing_trained: Context) -> None:
    content = json.loads(path.read_text())
    if path.relative_to(RESULTS).parts[0] in ("bench", "reliability"):
        with pytest.raises(UserError, match="repeat its command: "):
            read_spec(path)
        return
    spec = read_spec(path)
    assert isinstance(spec.work, Experiment) == ("cases" in content["config"])
    assert spec.provenance.data == content["data"]
    if spec.work.data.dataset == "digits":
        check_data(spec, nothing_trained)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid JSON"),
        ("9" * 5000, "is not valid JSON"),
        ("[1, 2]", "not a provenance file"),
        ('{"config": 3}', "not a provenance file"),
        ('{"config": {"cases": []}, "config_hash": "0"}', "does not match its hash"),
        ('{"a": ' * 5000, "is not valid JSON"),
    ],
)
def test_an_invalid_file(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.provenance.json").write_text(text)
    assert run_command(["run", "x.provenance.json"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


EXPERIMENT = {
    "name": "two",
    "profile": "mini",
    "title": "T",
    "model": {"depth": 8},
    "train": {"epochs": 1},
    "cases": [{"name": "main"}],
}
TYPED = {
    "model": None,
    "study": {"kind": "delete"},
    "data": {},
    "only": None,
    "batch_statistics": False,
    "seed": 0,
}
WEIGHTS = {"source": "preact56-digits", "sha256": "0" * 64}


def write_provenance(config: Mapping[str, Any], **changes: Any) -> None:
    """x.provenance.json whose hash is right, whatever else is wrong."""
    content = collect(config, seeds=[0], started=datetime.now(UTC)).model_dump(mode="json")
    content |= {"checkpoint": WEIGHTS} | changes
    Path("x.provenance.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("config", "beside", "message"),
    [
        (EXPERIMENT | {"name": "../../../escape"}, {}, "name: must be a relative path"),
        (EXPERIMENT | {"name": "a\0b"}, {}, "name: must not contain line breaks or control"),
        (EXPERIMENT | {"profile": "../mini"}, {}, "profile: must be 'smoke', "),
        (EXPERIMENT | {"nmae": "x"}, {}, "unknown key 'nmae'; did you mean 'name'"),
        (
            EXPERIMENT | {"cases": [{"name": "a", "model": {"depth": 9}}]},
            {},
            "depth 9 does not fit",
        ),
        (EXPERIMENT | {"title": "\ud800"}, {}, "title: must not contain line breaks or control"),
        (EXPERIMENT, {"checkpoint": ["x"]}, "checkpoint: must be a mapping"),
        (EXPERIMENT, {"command": 3}, "command: must be text"),
        (EXPERIMENT, {"profile": "large"}, "profile: must be 'smoke', "),
        (TYPED, {"checkpoint": WEIGHTS | {"source": ["x"]}}, "checkpoint.source: must be"),
        (TYPED, {"checkpoint": WEIGHTS | {"source": "a\0b"}}, "unknown bundled weights 'a"),
        (TYPED, {"checkpoint": {"source": "x"}}, "checkpoint.sha256: is missing"),
        (TYPED, {"checkpoint": None}, "does not name the weights"),
        (TYPED | {"seed": "x"}, {}, "seed: must be a whole number"),
        (TYPED | {"seed": True}, {}, "seed: must be a whole number"),
        (TYPED | {"seed": -1}, {}, "seed: must be greater"),
        (TYPED | {"batch_statistics": "no"}, {}, "batch_statistics: must be true or false"),
        (TYPED | {"only": 3}, {}, "only: must be a list"),
        (TYPED | {"only": ["3"]}, {}, "only.0: must be a whole number"),
        (TYPED | {"only": []}, {}, "only: Tuple should have at least 1 item"),
        (TYPED | {"engine": "slow"}, {}, "engine: must be 'fast' or 'plain'"),
        (TYPED | {"study": {}}, {}, "study: needs the key kind: "),
        (TYPED | {"data": {"dataset": "x"}}, {}, "data.dataset: unknown data set 'x'"),
        ({"benchmarks": 1}, {"command": " "}, "repeat its command: none is recorded"),
        ({"benchmarks": 1}, {"command": "a\nb " * 300}, "repeat its command: a b a b"),
    ],
)
def test_what_does_not_fit_is_named(
    config: dict[str, Any],
    beside: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    folder = tmp_path / "a/b/c/d/e"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    write_provenance(config, **beside)
    assert run_command(["run", "x.provenance.json"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert len(error) < 700
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["x.provenance.json"]


@pytest.mark.parametrize(
    "more", [["--profile", "mini"], ["--set", "train.lr=1"], ["--seed", "1"], ["quickstart"]]
)
def test_a_provenance_is_run_as_it_is(more: list[str], capsys: Captured) -> None:
    assert run_command(["run", "x.provenance.json", *more]) == 2
    assert "x.provenance.json: a provenance file contains all settings" in capsys.readouterr().err
    assert run_command(["run", "nowhere.provenance.json"]) == 2
    assert "cannot be read" in capsys.readouterr().err
