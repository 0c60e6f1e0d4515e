"""The commands on one network: eval, lesion, paths, signal."""

import dataclasses
import json
import math
import shutil
import signal
from pathlib import Path

import pandas
import pytest
import torch
from cli_helpers import FEW, OUT, TRAIN, Captured, cells_of, refused, run_folder, summary_of
from layouts import Vgg, fill

from resnet_cli.cli import run_command
from resnet_cli.config.schema import DataConfig
from resnet_cli.results.tables import is_pair, read_provenance, read_table
from resnet_cli.runtime.interrupt import Stopper
from resnet_cli.studies.runner import Written
from resnet_cli.studies.subject import Subject, find_subject, results_folder
from resnet_cli.training.context import Context
from resnet_cli.weights.cards import bundled_path
from resnet_cli.weights.load import file_hash


@pytest.mark.parametrize(
    "arguments",
    [
        ["lesion", "--blocks", "1"],
        ["paths", "--k", "1-2", "--batch-size", "8"],
        ["signal", "--batch-size", "8"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_spent_budget_stops_a_study(
    arguments: list[str], work: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnet_cli.studies.walks.CHUNK_BYTES", 1 << 15)
    line = refused([*arguments, "--budget", "0s", "--out", "o"], capsys, code=130, writes=True)
    assert "the same command continues from here" in line
    assert run_command([*arguments, "--out", "o"]) == 0


def test_a_signal_stops_an_evaluation(
    work: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Signalled(Stopper):
        def __call__(self) -> bool:
            signal.raise_signal(signal.SIGTERM)
            return super().__call__()

    monkeypatch.setattr("resnet_cli.training.evaluation.BATCH_SIZE", 20)
    monkeypatch.setattr("resnet_cli.runtime.interrupt.Stopper", Signalled)
    assert refused(["eval"], capsys, code=130).endswith("stopped; nothing was measured")


def lesion(out: str, *arguments: str) -> pandas.DataFrame:
    assert run_command(["lesion", *arguments, "--out", out]) == 0
    assert is_pair(Path(out) / "lesion_delete.csv")
    return read_table(Path(out) / "lesion_delete.csv")


def test_lesion_of_each_unit_in_turn(work: Path, capsys: Captured) -> None:
    error = summary_of(["eval"], capsys)["test_error"]
    frame = lesion("a", "--blocks", "1")
    out = capsys.readouterr().out
    assert frame["blocks"].tolist() == ["0", "1", "2"]
    assert frame["baseline_error"].tolist() == [error] * 3
    assert f"from {run_folder()}" in " ".join(out.split())
    cells = [row[:2] for row in cells_of(out)]
    assert cells[1:] == [["0", "stage 1, first"], ["1", "stage 2, first"], ["2", "stage 3, first"]]
    provenance = read_provenance(Path("a/lesion_delete.csv"))
    assert provenance["checkpoint"]["source"] == str(run_folder())
    assert lesion("b")["test_error"].tolist() == frame["test_error"].tolist()  # the default


def test_lesion_of_several_units(work: Path) -> None:
    frame = lesion("a", "--blocks", "3")
    assert frame["blocks"].unique().tolist() == ["0 1 2"]
    assert len(frame) == 20
    ranged = lesion("b", "--blocks", "1-2", "--samples", "4", "--seed", "5", "--images", "40")
    assert ranged["k"].tolist() == [1] * 3 + [2] * 4
    assert ranged["seed"].unique().tolist() == [5]
    assert ranged["images"].unique().tolist() == [40]


def test_lesion_of_named_units_together(work: Path) -> None:
    (row,) = lesion("a", "--only", "0,2").to_dict("records")
    assert (row["k"], row["blocks"]) == (2, "0 2")


def test_lesion_by_reordering(empty: Path, capsys: Captured) -> None:
    settings = ["--set", "model.depth=14", "--set", "train.iterations=1"]
    assert run_command([*TRAIN, *settings]) == 0
    arguments = ["lesion", "--reorder", "1-2", "--samples", "3", "--out", "a"]
    content = summary_of(arguments, capsys)
    frame = read_table(Path("a/lesion_reorder.csv"))
    assert frame["swaps"].tolist() == [1, 1, 1, 2, 2, 2]
    assert content["rows"] == 6
    assert all(sorted(map(int, order.split(" "))) == list(range(6)) for order in frame["order"])


def test_a_study_by_hand_goes_to_results_local(work: Path, capsys: Captured) -> None:
    content = summary_of(["lesion", "--checkpoint", str(run_folder())], capsys)
    assert content["checkpoint"] == str(run_folder())
    folder = f"results/local/lesion-{run_folder().name}"
    assert f"{folder}/lesion_delete.csv" in content["files"]
    assert content["rows"] == 3


QUICK_PATHS = ["--k", "1", "--samples", "1", "--batch-size", "4"]


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (["lesion", *FEW], "lesion-NAME-images10"),
        (["lesion", "--blocks", "1-2,3", *FEW], "lesion-NAME-blocks1-3-images10"),
        (["lesion", "--only", "2,0", *FEW], "lesion-NAME-only0,2-images10"),
        (["lesion", "--per-class", *FEW], "lesion-NAME-per-class-images10"),
        (["lesion", "--ranked", *FEW], "lesion-NAME-images10"),
        (["lesion", "--engine", "plain", *FEW], "lesion-NAME-images10-plain"),
        (
            ["lesion", "--greedy", "1", "--samples", "2", "--seed", "3", *FEW],
            "lesion-NAME-greedy1-samples2-images10-seed3",
        ),
        (
            ["lesion", "--normalize", ".5,.5,.5/1,1,1", *FEW],
            "lesion-NAME-images10-normalize-.5,.5,.5-1,1,1",
        ),
        (["paths", "--lengths"], "paths-NAME-lengths"),
        (["paths", *QUICK_PATHS], "paths-NAME-k1-samples1-batch4"),
        (
            ["paths", *QUICK_PATHS, "--exact", "--stages", "--unit", "0"],
            "paths-NAME-k1-exact-stages-unit0-samples1-batch4",
        ),
        (
            ["paths", *QUICK_PATHS, "--estimator", "image"],
            "paths-NAME-k1-samples1-estimator-image-batch4",
        ),
        (["signal", "--batch-size", "8"], "signal-NAME-batch8"),
    ],
)
def test_each_question_has_a_folder_of_its_own(
    arguments: list[str], folder: str, work: Path, capsys: Captured
) -> None:
    expected = Path("results/local") / folder.replace("NAME", run_folder().name)
    files = summary_of(arguments, capsys)["files"]
    assert {Path(file).parent for file in files} == {expected}


def test_a_folder_is_named_after_the_weights_not_their_network(
    work: Path, capsys: Captured
) -> None:
    """One network given by its run, by the run's file and by a copy of it, and with other data."""
    run, copy = run_folder(), "mine.v2.safetensors"
    shutil.copy(run / "weights.safetensors", copy)
    found = []
    for checkpoint in (str(run), f"{run}/weights.safetensors", copy):
        arguments = ["lesion", "--checkpoint", checkpoint, "--dataset", "digits", *FEW]
        found.append(Path(summary_of(arguments, capsys)["files"][0]).parent.name)
    suffix = "images10"
    assert found == [
        *[f"lesion-{run.name}-{suffix}"] * 2,
        f"lesion-mine.v2-{suffix}",
    ]
    subject = find_subject(Context(torch.device("cpu")), "preact56-digits")
    assert subject.name == "preact56-digits"
    other = dataclasses.replace(subject, data=DataConfig(dataset="cifar10"))
    assert other.name == "preact56-digits-cifar10"


def test_results_of_other_weights_are_kept(work: Path, capsys: Captured) -> None:
    for folder, weights in (
        ("a", run_folder() / "weights.safetensors"),
        ("b", bundled_path("preact56-digits")),
    ):
        Path(folder).mkdir()
        shutil.copy(weights, Path(folder, "net.pt"))
    command = ["lesion", "--only", "0", *FEW, "--checkpoint"]
    first = summary_of([*command, "a/net.pt"], capsys)["files"]
    folder = Path("results/local/lesion-net-only0-images10")
    assert {Path(file).parent for file in first} == {folder}
    other = folder.with_name(f"{folder.name}-{file_hash(Path('b/net.pt'))[:10]}")
    second = summary_of([*command, "b/net.pt"], capsys)["files"]
    assert {Path(file).parent for file in second} == {other}

    tables = [path / "lesion_delete.csv" for path in (folder, other)]
    written = {path: path.stat().st_mtime_ns for path in tables}
    assert summary_of([*command, "a/net.pt"], capsys)["files"] == first
    assert summary_of([*command, "b/net.pt"], capsys)["files"] == second
    shutil.rmtree(folder)
    assert summary_of([*command, "b/net.pt"], capsys)["files"] == second, "still found there"
    assert all(path.stat().st_mtime_ns == time for path, time in written.items() if path.exists())


def test_results_of_another_pair_of_networks_are_kept(empty: Path) -> None:
    subject = find_subject(Context(torch.device("cpu")), "preact56-digits")
    pair = [subject, renamed(subject, "other")]
    folder = results_folder("lesion", pair, {"seed": 3})
    assert folder == Path("results/local/lesion-preact56-digits-and-other-seed3")
    weights = {"preact56-digits": subject.loaded.sha256, "other": "b" * 64}
    for name, digest in weights.items():
        (folder / name).mkdir(parents=True)
        stored = {"checkpoint": {"source": "x", "sha256": digest}}
        (folder / name / "lesion_delete.provenance.json").write_text(json.dumps(stored))
    hashes = "-".join(one.loaded.sha256[:10] for one in pair)
    own = folder.with_name(f"{folder.name}-{hashes}")
    assert results_folder("lesion", pair, {"seed": 3}) == own
    for damaged in ("{", '{"checkpoint": null}', '{"checkpoint": {"sha256": 1}}'):
        (folder / "other" / "lesion_delete.provenance.json").write_text(damaged)
        assert results_folder("lesion", pair, {"seed": 3}) == folder
    assert results_folder("lesion", pair, {"x" * 300: True}).name.endswith("x"), "refused later"


def renamed(subject: Subject, source: str) -> Subject:
    return dataclasses.replace(subject, loaded=dataclasses.replace(subject.loaded, source=source))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("resnet-18/model.safetensors", "resnet-18-model"),
        ("resnet-18/pytorch_model.bin", "resnet-18-pytorch_model"),
        ("mine/checkpoint.pth.tar", "mine-checkpoint.pth"),
        ("mine/best.pt", "mine-best"),
        ("mine/weights.safetensors", "mine"),
        ("mine/model_a.pt", "model_a"),
        ("best", "best"),  # the folder of a run
    ],
)
def test_a_usual_file_name_follows_that_of_its_folder(file: str, name: str, empty: Path) -> None:
    Path(file).parent.mkdir(exist_ok=True)
    if "." in file:
        Path(file).touch()
    else:
        Path(file).mkdir()
    subject = find_subject(Context(torch.device("cpu")), "preact56-digits")
    assert renamed(subject, file).name == name


def test_signals_of_an_experiment_at_two_profiles_lie_apart(
    empty: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnet_cli.run.experiment.study_experiment", lambda *arguments: Written())
    asked: list[str] = []

    def writable(folder: Path) -> Path:
        asked.append(folder.name)
        return folder

    monkeypatch.setattr("resnet_cli.cli.studies.writable", writable)
    command = ["signal", "he2016/table1", "--profile"]
    for more in (
        ["mini"],
        ["smoke"],
        ["smoke", "--set", "train.lr=1"],
        ["smoke", "--set", "seeds=[1]"],
    ):
        assert run_command([*command, *more]) == 0
    assert asked[:2] == ["signal-he2016-table1-mini", "signal-he2016-table1-smoke"]
    assert len(set(asked)) == 4
    assert "--seed and an EXPERIMENT" in refused([*command, "smoke", "--seed", "1"], capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ["lesion", *FEW],
        ["lesion", "--per-class", *FEW],
        ["lesion", "--greedy", "1", "--samples", "2", *FEW],
        ["lesion", "--additivity", "2", "--samples", "2", *FEW],
        ["paths", *QUICK_PATHS, "--exact", "--stages", "--unit", "0"],
        ["signal", "--batch-size", "8"],
    ],
)
def test_the_second_time_all_files_and_numbers_are_told_again(
    arguments: list[str], work: Path, capsys: Captured
) -> None:
    first, second = (summary_of(arguments, capsys) for _ in range(2))
    folder = Path(first["files"][0]).parent
    written = {str(p) for p in folder.iterdir() if p.suffix in (".csv", ".png")}
    assert written == set(first["files"]) == set(second["files"])
    assert len(first["files"]) == len(second["files"]) == len(written)
    first.pop("exact_check", None)  # of the sweep itself, which is not done again
    del first["files"], second["files"]
    assert first == second
    capsys.readouterr()
    assert run_command(arguments) == 0
    out = capsys.readouterr().out
    measured = [file for file in written if file.endswith(".csv") and "lengths" not in file]
    assert measured
    for file in measured:
        assert f"there already: {file}" in out
        assert f"wrote {file}" not in out


def test_paths_of_one_length(work: Path) -> None:
    assert run_command(["paths", "--k", "1", "--samples", "5", "--out", "a"]) == 0
    frame = read_table(Path("a/path_gradients.csv"))
    assert frame["k"].tolist() == [1] * 5
    assert (frame["grad_norm"] > 0).all()


def test_of_some_lengths_norms_are_told_and_no_shares(work: Path, capsys: Captured) -> None:
    common = ["--samples", "2", "--batch-size", "8", "--out", "a"]
    content = summary_of(["paths", "--k", "1", *common], capsys)
    mean = read_table(Path("a/path_gradients.csv"))["grad_norm"].mean()
    assert content["mean_norm_by_k"] == {"1": pytest.approx(mean)}
    assert not {"intervals_sampled", "intervals_exact", "exact_norm_by_k"} & content.keys()
    assert run_command(["paths", "--k", "1", *common]) == 0
    assert "%" not in capsys.readouterr().out

    content = summary_of(["paths", "--k", "1", "--exact", *common], capsys)
    assert list(content["mean_norm_by_k"]) == ["1"]
    assert list(content["exact_norm_by_k"]) == ["0", "1", "2", "3"]
    assert "intervals_sampled" not in content
    assert content["intervals_exact"].keys() == {"0.5", "0.9", "0.95", "0.99"}
    assert run_command(["paths", "--k", "1", "--exact", *common]) == 0
    out = capsys.readouterr().out
    assert "share exact" in out
    assert "sampled" not in out

    content = summary_of(["paths", *common], capsys)
    assert "intervals_sampled" in content
    assert run_command(["paths", *common]) == 0
    assert "share sampled" in capsys.readouterr().out


def test_paths_of_every_length_with_the_exact_spectrum(work: Path, capsys: Captured) -> None:
    arguments = ["paths", "--exact", "--samples", "2", "--batch-size", "16", "--out", "a"]
    content = summary_of(arguments, capsys)
    assert content["exact_check"] < 1e-3
    frame = read_table(Path("a/path_spectrum.csv"))
    assert frame["k"].tolist() == [0, 1, 2, 3]
    assert frame["paths"].tolist() == [1, 3, 3, 1]
    assert (frame["exact_norm"] > 0).all()
    assert frame["share_exact"].sum() == pytest.approx(1.0)
    assert read_table(Path("a/path_lengths.csv"))["paths"].tolist() == [1, 3, 3, 1]


def test_the_plain_engine_finds_the_same(work: Path) -> None:
    for command, table, column in (
        (["lesion", "--blocks", "1-2", "--samples", "2"], "lesion_delete", "test_error"),
        (["paths", "--samples", "2", "--batch-size", "8", "--exact"], "path_spectrum", "mean_norm"),
    ):
        found = []
        for engine in ("fast", "plain"):
            out = f"{table}-{engine}"
            assert run_command([*command, "--engine", engine, "--out", out]) == 0
            found.append(read_table(Path(out) / f"{table}.csv")[column].tolist())
        assert found[0] == pytest.approx(found[1], rel=1e-4)
    by_hand = read_provenance(Path("path_spectrum-plain/path_spectrum.csv"))
    assert by_hand["config"]["engine"] == "plain"


def test_path_lengths_alone(work: Path, capsys: Captured) -> None:
    content = summary_of(["paths", "--lengths", "--out", "a"], capsys)
    assert (content["units"], content["paths"]) == (3, 8)
    assert read_table(Path("a/path_lengths.csv"))["fraction"].tolist() == [
        1 / 8,
        3 / 8,
        3 / 8,
        1 / 8,
    ]
    assert not Path("a/path_gradients.csv").exists()


def test_eval_measures_what_training_measured(work: Path, capsys: Captured) -> None:
    content = summary_of(["eval"], capsys)
    (row,) = read_table(OUT / "table.csv").to_dict("records")
    assert content["test_error"] == row["test_error"]
    assert content["images"] == 100
    assert content["top5_error"] is None  # of 10 classes
    assert summary_of(["eval", "--images", "10"], capsys)["images"] == 10
    assert run_command(["eval"]) == 0
    assert "hint" not in capsys.readouterr().out  # our weights bring their normalisation


def test_with_nothing_named_or_trained_a_study_needs_no_download(
    empty: Path, capsys: Captured
) -> None:
    assert run_command(["lesion", "--only", "3", "--images", "20"]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.endswith("from preact56-digits")
    assert second == "data: digits, normalised by channel"


# --- several networks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "stem", "figures"),
    [
        (["lesion", "--blocks", "1-2", *FEW], "lesion_delete", ["lesion_count", "lesion_single"]),
        (["paths", "--k", "1-2", "--batch-size", "8"], "path_gradients", ["paths"]),
    ],
    ids=["lesion", "paths"],
)
def test_networks_side_by_side(
    arguments: list[str], stem: str, figures: list[str], work: Path, capsys: Captured
) -> None:
    first, second, third = run_folder(), Path("second"), Path("third")
    shutil.copytree(first, second)
    shutil.copytree(first, third)
    given = [part for folder in (first, second, third) for part in ("--checkpoint", str(folder))]
    both = [*arguments, *given, "--out", "both"]
    capsys.readouterr()
    assert run_command(both) == 0
    cells = [row[0] for row in cells_of(capsys.readouterr().out)]
    assert "network" in cells
    assert cells.count("second") > 1
    assert [path.stem for path in sorted(Path("both").glob("*.png"))] == figures
    assert run_command([*arguments, "--checkpoint", str(first), "--out", "alone"]) == 0
    alone = Path("alone", f"{stem}.csv").read_bytes()
    assert Path("both", first.name, f"{stem}.csv").read_bytes() == alone
    facts = summary_of(both, capsys)
    assert facts["checkpoints"] == [str(first), "second", "third"]
    assert {first.name, "second", "third"} <= facts.keys()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["a/same.pt", "b/same.pt"], "2 of the networks are named same"),
        (["preact56-digits"] * 2, "preact56-digits is given twice"),
        (["preact56-digits", "nix"], "nix"),
    ],
)
def test_networks_that_cannot_be_compared(
    more: list[str], said: str, empty: Path, capsys: Captured
) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        shutil.copy(bundled_path("preact56-digits"), Path(folder, "same.pt"))
    given = [part for name in more for part in ("--checkpoint", name)]
    assert said in refused(["lesion", *given], capsys)
    assert said in refused(["examine", *more], capsys)


def test_model_goes_with_one_network(empty: Path, capsys: Captured) -> None:
    names = ["--checkpoint", "preact56-digits", "--checkpoint", "preact20-cifar10"]
    assert "--model needs a single" in refused(["paths", *names, "--model", "token=mean"], capsys)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["paths"], "has one path only"),
        (["signal"], "has no shortcuts"),
        (["signal", "--iterative", "10"], "has no shortcuts"),
    ],
)
@pytest.mark.parametrize("checkpoint", ["vgg15-cifar10", "theirs.pt"])
def test_a_plain_network_is_refused_before_its_data_are_read(
    checkpoint: str, command: list[str], said: str, empty: Path, capsys: Captured
) -> None:
    torch.save(fill(Vgg()).state_dict(), "theirs.pt")
    given = ["--checkpoint", checkpoint, "--normalize", "cifar"]
    assert said in refused([*command, *given], capsys)  # no CIFAR here


# --- what is shown -------------------------------------------------------------------------------


def test_lengths_without_a_share_are_not_shown(work: Path, capsys: Captured) -> None:
    assert run_command(["paths", "--lengths", "--checkpoint", "preact56-digits"]) == 0
    cells = cells_of(capsys.readouterr().out)
    lengths = [int(row[0]) for row in cells[1:]]
    smallest = 2**27 * 0.00005 / 100  # paths of one length that round to 0.0001 %
    assert lengths == [k for k in range(28) if math.comb(27, k) >= smallest]


def test_json_has_the_error_without_each_unit(work: Path, capsys: Captured) -> None:
    facts = summary_of(["lesion", "--blocks", "1-2", "--samples", "2", "--out", "o"], capsys)
    frame = read_table(Path("o/lesion_delete.csv"))
    single = frame[frame["k"] == 1].set_index("blocks")["test_error"]
    assert facts["error_by_unit"] == single.to_dict()
    assert list(facts["error_by_unit"]) == ["0", "1", "2"]


def test_a_smoke_run_is_named_even_when_quiet(work: Path, capsys: Captured) -> None:
    assert run_command(["eval", "--quiet"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"from {run_folder()}" in said
    assert "profile smoke" in said
    assert run_command(["eval", "--quiet", "--checkpoint", str(run_folder())]) == 0
    assert "profile smoke" not in capsys.readouterr().out
